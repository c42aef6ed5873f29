"""Brings a real ClickHouse server to this version's shape: schema, policy, prices, retention, and views that keep derived tables true.

The embedded server does the same to its engine at its start (serve/server.py), but for the last, which it does itself (serve/upkeep.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from sp_telemetry import resources
from sp_telemetry.errors import QueryFailed, UsageError
from sp_telemetry.home import Home
from sp_telemetry.privacy import own, sql
from sp_telemetry.settings import Settings
from sp_telemetry.store import maintenance, prices, privacy, schema
from sp_telemetry.store.client import Client

_INCLUDED = re.compile(r"\{\{(\w+)(?: \| ([^}]*))?\}\}")
_VIEW = re.compile(r"^CREATE MATERIALIZED VIEW telemetry\.(\w+)", re.MULTILINE)
_PARAMETER = re.compile(r"\{(\w+):[^{}]*\}")


def migrate(runner: schema.Runner, home: Home, settings: Settings, salt: str = "", shared: bool = False) -> list[str]:
    """What was applied, nothing where the store has this version's shape. `runner`: of telemetry_user, with no database chosen, for there
    may be none. `salt`: of the hashes, for a store that has none yet. `shared`: other installations do this to it too. Raises UsageError,
    QueryFailed, ServerUnreachable."""
    if shared:
        settings = _as_it_is(runner, home, settings)
    policy = own.load(home.path, settings.privacy_level, runner.query)
    applied = schema.migrate(runner, privacy=sql.render(policy), salt=salt)
    if privacy.enforce(runner, policy):
        applied.append(f"privacy {policy.level}")
    if prices.load(runner, prices.own_file(home.path, settings.prices)):
        applied.append("prices")
    applied += (f"retention of {table}" for table in maintenance.apply_retention(runner, dict(settings.values)))
    if make_upkeep(runner):
        applied.append("upkeep")
    return applied


def _as_it_is(runner: schema.Runner, home: Home, settings: Settings) -> Settings:
    """`settings`, with what nobody has set here as it is in the store: an update by somebody else must not throw away a year of events, or
    take the team's policy out of force. Raises UsageError where that has rules of its own and there are none here."""
    known = schema.recorded(runner)
    there: dict[str, Any] = maintenance.retention(runner) if known else {}
    policy = privacy.in_force(runner) if "0010_privacy.sql" in known else None
    if policy:
        there["privacy_level"] = policy.level
        if (policy.own_patterns or policy.own_attributes) and not (home.path / own.NAME).exists():
            what = f"The server applies rules of its own, and there is no {own.NAME} in {home.path}. Nothing was changed."
            raise UsageError(what, f"Copy the {own.NAME} of whoever made them; an empty one takes them out of force.")
    unset = {name: value for name, value in there.items() if settings.origins[name] == "default"}
    return Settings({**settings.values, **unset}, settings.origins)


def check_salt(runner: schema.Runner, salt: str) -> None:
    """Raise UsageError where the store was made with another salt: what the collector hashes would not be what the store hashes."""
    if runner.query("SELECT any(salt) FROM telemetry.installation", "RawBLOB").decode() != salt:
        what = "The store was made with another salt than that of this installation."
        raise UsageError(what, "Bring back its secrets/telemetry_salt, or begin anew: `sp-telemetry down --volumes`.")


def make_upkeep(runner: schema.Runner) -> bool:
    """The views of clickhouse/server/, made again where their text has changed or one is not there, for whoever makes all views anew drops
    them too; whether they were."""
    text = upkeep()
    checksum = hashlib.sha256(text.encode()).hexdigest()
    rows = runner.query("SELECT name FROM system.tables WHERE database = 'telemetry' AND name LIKE 'upkeep\\\\_%'")
    present = rows.decode().split()
    if set(present) == set(_VIEW.findall(text)) and schema.recorded(runner).get("upkeep") == checksum:
        return False
    schema.record(runner, "upkeep", "under way")
    for name in present:
        runner.query(f"DROP TABLE telemetry.`{name}`")
    for statement in schema.statements(text):
        runner.query(statement)
    schema.record(runner, "upkeep", checksum)
    return True


def upkeep() -> str:
    """clickhouse/server/*.sql with the statements of clickhouse/maintenance/ put in where they are named."""

    def included(found: re.Match[str]) -> str:
        values = dict(part.split(": ", 1) for part in found[2].split(", ")) if found[2] else {}
        return _select(found[1], values)

    files = sorted(resources.path("telemetry-server/clickhouse/server").glob("*.sql"))
    without_comments = (re.sub(r"^--.*\n", "", file.read_text("utf-8"), flags=re.M) for file in files)
    return "\n".join(_INCLUDED.sub(included, text) for text in without_comments)


def _select(name: str, values: Mapping[str, str]) -> str:
    """The SELECT of the one INSERT in clickhouse/maintenance/<name>.sql."""
    (statement,) = schema.shipped(f"clickhouse/maintenance/{name}.sql")
    _, found, select = re.split(r"^(INSERT INTO telemetry\.\w+)\s+", statement, maxsplit=1)
    if not found:
        raise ValueError(f"maintenance/{name}.sql does not begin with an INSERT of all columns")
    return _PARAMETER.sub(lambda one: f"({values[one[1]]})", select)


def failing(client: Client) -> dict[str, str]:
    """Views that keep derived tables true and whose last refresh failed: name -> why."""
    try:
        answer = client.query("SELECT view, exception FROM system.view_refreshes WHERE database = 'telemetry' AND exception != ''")
    except QueryFailed as error:
        return {"system.view_refreshes": str(error)}
    return {view: exception[:300] for view, exception in answer.rows}
