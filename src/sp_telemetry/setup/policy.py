"""Which privacy policy the store applies, as commands and the doctor show it."""

from __future__ import annotations

import time
from typing import Any

from sp_telemetry.errors import QueryFailed, ServerUnreachable, UsageError
from sp_telemetry.home import Home
from sp_telemetry.privacy import own
from sp_telemetry.setup import service
from sp_telemetry.setup.doctor import ERROR, OK, WARNING, Finding, Patient
from sp_telemetry.store.client import connect
from sp_telemetry.store.privacy import IN_FORCE, UNDER_WAY, checksum
from sp_telemetry.store.tightening import LAST, REQUEST


def in_force(home: Home) -> dict[str, Any] | None:
    """level, since (epoch seconds), own_patterns, own_attributes, checksum (see `InForce`); or None where nobody answers."""
    try:
        rows = connect(home, home.settings()).query(IN_FORCE).records()
    except (ServerUnreachable, QueryFailed):
        return None
    return rows[0] if rows else None


def describe(force: dict[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(force["since"]))
    rules = force["own_patterns"] + force["own_attributes"]
    state = ", under way" if force["checksum"].startswith(UNDER_WAY) else ""
    return f"{force['level']}{state} since {since}" + (f", with {rules} rule{'' if rules == 1 else 's'} of your own" if rules else "")


def look(patient: Patient) -> list[Finding]:
    """Whether what is in force is what the files ask for."""
    try:
        wanted = own.read(patient.home.path / own.NAME).policy(patient.settings.privacy_level)
    except UsageError as error:
        why = "The policy before stays in force, and a server does not start with this."
        return [Finding(ERROR, "privacy", "rules-refused", str(error), why, "sp-telemetry privacy check")]
    force = in_force(patient.home) if patient.server_runs else None
    if force is None:
        return []
    facts = {"own_patterns": force["own_patterns"], "own_attributes": force["own_attributes"]}
    if force["checksum"] != checksum(wanted):
        what = f"The store applies privacy level {describe(force)}; the settings ask for another policy ({wanted.level})."
        why = "What is stored now follows the old one."
        return [Finding(WARNING, "privacy", "policy-differs", what, why, "sp-telemetry privacy apply", facts)]
    return [Finding(OK, "privacy", "policy", f"Privacy level {describe(force)}", facts=facts)]


def stored(patient: Patient) -> list[Finding]:
    """Whether stored rows are being brought down to the policy, wait for it, or were left in the midst of it."""
    try:
        asked = (patient.home.path / REQUEST).read_text("utf-8").strip()
    except FileNotFoundError:
        return _left(patient)
    why = "Until it is done the store may hold what the policy would not keep."
    if not service.is_held(patient.home):
        if asked == "count":  # who asked is told so, and nothing is the matter
            return []
        what = "Stored rows are to be brought down to the privacy policy, and no server runs that could."
        return [Finding(WARNING, "privacy", "stored-waits", what, why, "sp-telemetry up; it goes on by itself then")]
    try:
        server = service.running(patient.home)
        health = server.health if server else {}
    except ServerUnreachable:  # it is starting, or has much to do
        health = {}
    if waits := health.get("unanswered") or health.get("reason"):
        mend = f"{health.get('mend') or 'What is said there'}; it is tried again until it is done. sp-telemetry logs says more"
        return [Finding(WARNING, "privacy", "stored-waits", waits, why, mend)]
    return [Finding(OK, "privacy", "stored-under-way", "Stored rows are being looked at, or brought down to the privacy policy")]


def _left(patient: Patient) -> list[Finding]:
    """Nobody asks for it any more, and the last time it was begun it did not come to its end."""
    if not patient.server_runs:
        return []
    try:
        rows = connect(patient.home, patient.settings).query(LAST).rows
    except (ServerUnreachable, QueryFailed):  # which other parts say
        return []
    if rows != [["tightening"]]:
        return []
    what = "Bringing stored rows down to the privacy policy was begun, and has not come to its end."
    why = "Rows may be stored as the policy would not keep them, and old parts of tables lie on the disk."
    mend = "sp-telemetry privacy apply --to-stored, unless that is under way"
    return [Finding(WARNING, "privacy", "stored-left", what, why, mend)]
