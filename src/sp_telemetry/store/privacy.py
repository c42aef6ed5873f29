"""The privacy policy in the store: put in force, remembered, and applied to what is stored already.

Rows are tightened by mutations, which the engine keeps on its disk and goes on with after a restart; beside them inserts go on, under
the policy that is in force by then. Columns that belong to a table's sorting key can't be mutated: there rows are written again as they
may be, and the old ones deleted. All of it can be run again at any time, and changes nothing the second time.
"""

# ruff: noqa: E501 - expressions of SQL
from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sp_telemetry.errors import QueryFailed
from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Handle

SALT = "assumeNotNull((SELECT any(salt) FROM telemetry.installation))"
GONE_S = 60  # how long to wait for the engine to take replaced parts off the disk
#: attribute -> its column in telemetry_events and, where they have it, in the others
COLUMNS = {
    "user.id": "installation_id", "user.account_uuid": "user_account_uuid", "organization.id": "organization_id", "service.name": "service_name",
    "service.version": "service_version", "app.entrypoint": "entrypoint", "terminal.type": "terminal_type", "os.type": "os_type",
    "host.arch": "host_arch", "model": "model", "query_source": "query_source", "speed": "speed", "effort": "effort", "agent.name": "agent_name",
    "skill.name": "skill_name", "plugin.name": "plugin_name", "mcp_server.name": "mcp_server_name", "mcp_tool.name": "mcp_tool_name",
    "status_code": "api_error_code", "error_type": "error_type", "command_name": "command_name", "command_source": "command_source",
    "tool_name": "tool_name", "decision": "decision", "decision_source": "decision_source", "enduser.id": "user_id",
}  # fmt: skip
#: columns with names that are kept at every level, redacted
NAMED = ("user_id", "project", "branch", "feature", "chapter_context", "part", "workflow_step", "model")


@dataclass(frozen=True)
class InForce:
    """The policy that the store applies: its level, since when (epoch seconds), how many rules are the installation's own."""

    level: str
    since: float
    own_patterns: int
    own_attributes: int
    checksum: str


IN_FORCE = (
    "SELECT level, toUnixTimestamp64Milli(since) / 1000 AS since, own_patterns, own_attributes, checksum"
    " FROM telemetry.privacy_history WHERE what = 'in force' ORDER BY since DESC LIMIT 1"
)


def checksum(policy: Policy) -> str:
    return hashlib.sha256(sql.render(policy).encode()).hexdigest()


def in_force(handle: Handle) -> InForce | None:
    rows = handle.query(IN_FORCE, "JSONCompactEachRow").splitlines()
    return InForce(*json.loads(rows[0])) if rows else None


def enforce(handle: Handle, policy: Policy) -> bool:
    """Let the store apply `policy` from now on; False where it does already. Statements that run meanwhile end under the old one."""
    text = sql.render(policy)
    known = in_force(handle)
    if known and known.checksum == checksum(policy):
        return False
    for statement in schema.statements(text):
        handle.query(statement)
    schema.record_views(handle, text)
    remember(handle, "in force", policy)
    return True


def remember(handle: Handle, what: str, policy: Policy, detail: str = "") -> None:
    handle.query(
        "INSERT INTO telemetry.privacy_history (what, level, own_patterns, own_attributes, checksum, detail) VALUES"
        f" ('{what}', '{policy.level}', {len(policy.own_patterns)}, {len(policy.own_attributes)}, '{checksum(policy)}', '{detail}')"
    )


@dataclass(frozen=True)
class Change:
    """What tightening does to one table: how many rows it concerns, and the statements."""

    table: str
    count: str
    statements: tuple[str, ...]


def changes(policy: Policy) -> Iterator[Change]:
    """What brings each table down to `policy`, whose functions have to be in force. `count` is a query of one number."""
    pairs = ", ".join(f"'{name}', toString({column})" for name, column in COLUMNS.items())
    words = f"telemetry_words({SALT}, map({pairs}, 'error', ''))"
    columns = {column: f"{words}['{name}']" for name, column in COLUMNS.items()}
    columns |= {
        name: f"telemetry_redact(toString({name}))" for name in ("project", "branch", "feature", "chapter_context", "part", "workflow_step")
    }
    columns |= {name: _error(policy, name) for name in ("api_error_message", "error_message")}
    columns["unknown_attributes"] = "arrayMap(k -> telemetry_name(toString(k)), unknown_attributes)"
    columns["attributes"] = _attributes(policy, "has(unknown_attributes, k)")
    if policy.treatments["prompt"] == "drop":
        columns["prompt_hash"] = "''"
    yield _renamed("telemetry_events", "event_type")
    yield _mutation("telemetry_events", columns)

    some = {name: column for name, column in COLUMNS.items() if column in ("installation_id", "service_name", "service_version", "user_id")}
    pairs = ", ".join(f"'{name}', toString({column})" for name, column in some.items())
    who = {column: f"telemetry_words({SALT}, map({pairs}))['{name}']" for name, column in some.items()}
    yield _renamed("telemetry_metrics", "metric_name")
    metric = who | {"unit": f"telemetry_word({SALT}, toString(unit))", "attributes": _attributes(policy, "false", whole=True)}
    yield _mutation("telemetry_metrics", metric)
    span = who | {name: f"telemetry_words({SALT}, map('{name}', toString({name})))['{name}']" for name in ("tool_name", "model")}
    span |= {"span_name": "telemetry_name(toString(span_name))", "error_message": _error(policy, "error_message")}
    span["attributes"] = _attributes(policy, "match(v, '^[0-9]+$')")
    span["events"] = "arrayMap(e -> (e.1, telemetry_name(toString(e.2))), events)"
    yield _mutation("telemetry_spans", span)

    told = ("project", "branch", "feature", "chapter", "part", "step", "directory", "spec_directory", "worktree")
    context = {name: f"telemetry_redact(toString({name}))" for name in told}
    yield _mutation("session_context", context | {"person": "telemetry_text('context.person', toString(person))"})
    lists = {name: f"arrayMap(x -> telemetry_redact(x), {name})" for name in ("branches", "features", "chapters", "steps", "models")}
    summary = {"user_id": "telemetry_text('enduser.id', toString(user_id))", "project": "telemetry_redact(toString(project))"}
    yield _mutation("session_summaries", lists | summary)
    yield _usage()


def _error(policy: Policy, column: str) -> str:
    treatment = policy.treatments["error"]
    if treatment in ("drop", "hash"):
        return "''" if treatment == "drop" else f"telemetry_words({SALT}, map('error', {column}))['error']"
    return f"telemetry_error({column})"


def _attributes(policy: Policy, stays: str, whole: bool = False) -> str:
    """The map: what the policy keeps as it keeps it, hashes of what is unknown, and of a file what the level allows."""
    plain = "CAST(attributes, 'Map(String, String)')"
    words = f"telemetry_words({SALT}, {plain})"
    kept = words if whole else f"telemetry_kept({words})"
    rest = f"mapFilter((k, v) -> {stays} AND match(v, '^([0-9a-f]{{16}}|[0-9]+)$'), {plain})"
    rest = f"mapApply((k, v) -> (telemetry_name(k), v), {rest})"
    file = f"mapFilter((k, v) -> k IN ('file_path', 'file_extension'), mapApply((k, v) -> (k, telemetry_redact(v)), {plain}))"
    parts = [kept, rest] + ([file] if policy.treatments["file_path"] == "relative" else [])
    return f"mapConcat({', '.join(parts)})"


def _mutation(table: str, columns: dict[str, str]) -> Change:
    types = {name: f"CAST({value}, toTypeName({name}))" if name in ("attributes", "events", "unknown_attributes") else value
             for name, value in columns.items()}  # fmt: skip
    differs = " OR ".join(
        f"{name} != {value}" if name not in ("attributes",) else f"mapSort({name}) != mapSort({value})" for name, value in types.items()
    )
    sets = ", ".join(f"{name} = {value}" for name, value in types.items())
    return Change(
        table,
        f"SELECT count() FROM telemetry.{table} WHERE {differs} SETTINGS final = 0",
        (f"ALTER TABLE telemetry.{table} UPDATE {sets} WHERE {differs} SETTINGS mutations_sync = 1",),
    )


def _renamed(table: str, column: str) -> Change:
    """A name that belongs to the sorting key."""
    differs = f"telemetry_name(toString({column})) != {column}"
    return Change(
        table,
        f"SELECT count() FROM telemetry.{table} WHERE {differs} SETTINGS final = 0",
        (
            f"INSERT INTO telemetry.{table} SELECT * REPLACE (telemetry_name(toString({column})) AS {column}) FROM telemetry.{table} FINAL"
            f" WHERE {differs}",
            f"ALTER TABLE telemetry.{table} DELETE WHERE {differs} SETTINGS mutations_sync = 1",
        ),
    )


def _usage() -> Change:
    """usage_hourly, whose names are its key: hours in which one changes are made anew from themselves, in one insert."""
    names = ("user_id", "project", "branch", "feature", "chapter_context", "workflow_step", "model")
    new = {name: f"telemetry_redact(toString({name}))" for name in names} | {"user_id": "telemetry_text('enduser.id', toString(user_id))"}
    differs = "(" + " OR ".join(f"{name} != {value}" for name, value in new.items()) + ")"
    sums = ["requests", "unpriced_requests", "api_errors", "prompts", "tool_calls", "tool_failures", "cost_usd", "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "api_duration_ms"]  # fmt: skip
    inner = ", ".join(f"{value} AS n_{name}" for name, value in new.items())
    rows = f"SELECT *, {inner} FROM telemetry.usage_hourly FINAL WHERE hour IN (SELECT hour FROM telemetry.usage_hourly WHERE {differs})"
    return Change(
        "usage_hourly",
        f"SELECT count() FROM telemetry.usage_hourly WHERE {differs} SETTINGS final = 0",
        (
            f"INSERT INTO telemetry.usage_hourly (hour, {', '.join(names)}, {', '.join(sums)}, version, is_deleted)"
            f" SELECT hour, {', '.join(f'n_{name}' for name in names)}, {', '.join(f'sum({name})' for name in sums)}, max(version) + 1, 0"
            f" FROM ({rows}) GROUP BY hour, {', '.join(f'n_{name}' for name in names)}",
            f"ALTER TABLE telemetry.usage_hourly DELETE WHERE {differs} SETTINGS mutations_sync = 1",
        ),
    )


def pending(handle: Handle, policy: Policy) -> dict[str, int]:
    """Rows by table that `policy`, which is in force, would keep otherwise than they are."""
    found: dict[str, int] = {}
    for change in changes(policy):
        found[change.table] = found.get(change.table, 0) + int(handle.query(change.count))
    return found


def tighten(handle: Handle, policy: Policy, say: Callable[[str, int], None] = lambda table, rows: None) -> dict[str, int]:
    """Bring all that is stored down to `policy`, which is in force, and wait until the old bytes are off the disk. Rows by table."""
    done: dict[str, int] = {}
    for change in changes(policy):
        rows = int(handle.query(change.count))
        if rows:
            remember(handle, "tightening", policy, f"{change.table}: {rows} rows")
            for statement in change.statements:
                handle.query(statement)
        done[change.table] = done.get(change.table, 0) + rows
        say(change.table, rows)
    for table in done:
        _take_off_the_disk(handle, table)
    remember(handle, "tightened", policy, ", ".join(f"{table}: {rows}" for table, rows in done.items()))
    return done


def _take_off_the_disk(handle: Handle, table: str) -> None:
    """Parts that were replaced lie on the disk for minutes, and here until they are told to go: dropping a partition, even one that
    does not exist, removes them."""
    handle.query(f"ALTER TABLE telemetry.{table} MODIFY SETTING old_parts_lifetime = 0")
    try:
        deadline = time.monotonic() + GONE_S
        old = f"SELECT count() FROM system.parts WHERE database = 'telemetry' AND table = '{table}' AND NOT active"
        while int(handle.query(old)):
            if time.monotonic() > deadline:
                raise QueryFailed(f"Replaced parts of {table} are still on the disk.", "A query may be reading them; run it again.")
            handle.query(f"ALTER TABLE telemetry.{table} DROP PARTITION ID 'none'")
            time.sleep(0.1)
    finally:
        handle.query(f"ALTER TABLE telemetry.{table} RESET SETTING old_parts_lifetime")
