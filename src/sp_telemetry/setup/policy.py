"""Which privacy policy the store applies, as commands and the doctor show it."""

from __future__ import annotations

import time
from typing import Any

from sp_telemetry.errors import QueryFailed, ServerUnreachable, UsageError
from sp_telemetry.home import Home
from sp_telemetry.privacy import own
from sp_telemetry.setup.doctor import ERROR, OK, WARNING, Finding, Patient
from sp_telemetry.store.client import connect
from sp_telemetry.store.privacy import IN_FORCE, UNDER_WAY, checksum


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
    return f"{force['level']}{state} since {since}" + (f", with {rules} rules of your own" if rules else "")


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
