"""The privacy policy in the store: put in force, and remembered with its history."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.privacy.redaction import quote
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Handle


@dataclass(frozen=True)
class InForce:
    """The policy that the store applies: its level, since when (epoch seconds), how many rules are the installation's own. With a checksum
    that begins with UNDER_WAY it is being put in force: until that is done some functions are its own, others of the one before."""

    level: str
    since: float
    own_patterns: int
    own_attributes: int
    checksum: str
    functions: str  # a checksum of what the engine has made of them


UNDER_WAY = "under way: "
IN_FORCE = (
    "SELECT level, toUnixTimestamp64Milli(since) / 1000 AS since, own_patterns, own_attributes, checksum, detail AS functions"
    " FROM telemetry.privacy_history WHERE what IN ('in force', 'under way') ORDER BY since DESC LIMIT 1"
)


def checksum(policy: Policy) -> str:
    return hashlib.sha256(sql.render(policy).encode()).hexdigest()


def in_force(handle: Handle) -> InForce | None:
    rows = handle.query(IN_FORCE, "JSONCompactEachRow").splitlines()
    return InForce(*json.loads(rows[0])) if rows else None


def enforce(handle: Handle, policy: Policy) -> bool:
    """Let the store apply `policy` from now on; False where it does already. Statements that run meanwhile end under the old one.

    The record alone is not believed: it and the functions lie in different files, which a kill, a restored backup or a disk without room
    (the engine cuts a function's file short there, and says nothing) can leave apart.
    """
    text = sql.render(policy)
    known, wanted = in_force(handle), checksum(policy)
    if known and known.checksum == wanted and known.functions == _functions(handle, text):
        return False
    if not (known and known.checksum == UNDER_WAY + wanted):  # a change that is tried again is recorded once
        remember(handle, "under way", policy)  # where this can't be written, nothing has changed
    for statement in schema.statements(text):
        handle.query(statement)
    schema.record_views(handle, text)
    remember(handle, "in force", policy, _functions(handle, text))
    return True


def _functions(handle: Handle, text: str) -> str:
    """A checksum of the functions that `text` makes, as the engine has them now."""
    names = ", ".join(map(quote, re.findall(r"^CREATE OR REPLACE FUNCTION (\w+)", text, re.MULTILINE)))
    found = handle.query(f"SELECT name, create_query FROM system.functions WHERE name IN ({names}) ORDER BY name")
    return hashlib.sha256(found).hexdigest()


def remember(handle: Handle, what: str, policy: Policy, detail: str = "") -> None:
    """Write a row that is the newest from now on: the clock may have been ahead when the one before it was written."""
    of = f"{UNDER_WAY if what == 'under way' else ''}{checksum(policy)}"
    handle.query(
        "INSERT INTO telemetry.privacy_history (since, what, level, own_patterns, own_attributes, checksum, detail) SELECT"
        " greatest(now64(3), (SELECT max(since) FROM telemetry.privacy_history) + toIntervalMillisecond(1)),"
        f" '{what}', '{policy.level}', {len(policy.own_patterns)}, {len(policy.own_attributes)}, '{of}', '{detail}'"
    )
