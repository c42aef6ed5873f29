"""Brings what is stored down to a privacy policy that is in force, where one that kept more held when it was stored.

Rows that differ from what the policy keeps are changed (rewriting.py); then their partitions are merged and the old parts taken off the
disk. Inserts go on beside it, under the policy that is in force by then. Whatever a kill leaves undone still differs, so it can be run
again at any time, and changes nothing the second time.
"""

# ruff: noqa: E501 - expressions of SQL
from __future__ import annotations

import time
from collections.abc import Iterator

from sp_telemetry.errors import QueryFailed
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.privacy.redaction import quote
from sp_telemetry.store.engine import Handle
from sp_telemetry.store.privacy import remember
from sp_telemetry.store.rewriting import SALT, Change, forgotten, rewritten, updated, usage

REQUEST = "privacy.request"  # the file of a home that asks its server for it, and lies there until it is done
ROUNDS = 4  # the last one finds nothing left to do
GONE_S = 60  # how long to wait for the engine to take replaced parts off the disk
#: attribute -> its column in telemetry_events and, where they have it, in the others
COLUMNS = {
    "user.id": "installation_id", "user.account_uuid": "user_account_uuid", "organization.id": "organization_id", "service.name": "service_name",
    "service.version": "service_version", "app.entrypoint": "entrypoint", "terminal.type": "terminal_type", "os.type": "os_type",
    "host.arch": "host_arch", "model": "model", "query_source": "query_source", "speed": "speed", "effort": "effort", "agent.name": "agent_name",
    "skill.name": "skill_name", "plugin.name": "plugin_name", "mcp_server.name": "mcp_server_name", "mcp_tool.name": "mcp_tool_name",
    "status_code": "api_error_code", "error_type": "error_type", "command_name": "command_name", "command_source": "command_source",
    "tool_name": "tool_name", "decision": "decision", "decision_source": "decision_source", "enduser.id": "user_id",
    "anthropic.plan": "plan", "anthropic.seat_type": "seat_type",
}  # fmt: skip
#: column -> the two attributes that it may hold; which of them it was nobody knows any more
OR_OF = {"error_type": ("error_type", "error_name"), "decision_source": ("decision_source", "source")}
HASHES = {"user.email": "user_email_hash"} | {name: f"{name}_hash" for name in ("prompt", "response", "tool_input", "tool_parameters")}
#: column -> the attributes whose number it holds
NUMBERS = {
    "cost_usd": ("cost_usd",), "input_tokens": ("input_tokens",), "output_tokens": ("output_tokens",),
    "token_count": ("input_tokens", "output_tokens"), "cache_read_tokens": ("cache_read_tokens",),
    "cache_creation_tokens": ("cache_creation_tokens",), "cache_creation_5m_tokens": ("cache_creation_5m_tokens",),
    "cache_creation_1h_tokens": ("cache_creation_1h_tokens",), "duration_ms": ("duration_ms", "total_duration_ms"), "ttft_ms": ("ttft_ms",),
    "attempt": ("attempt", "total_attempts"), "prompt_length": ("prompt_length",), "response_length": ("response_length",),
    "tool_input_bytes": ("tool_input_size_bytes",), "tool_result_bytes": ("tool_result_size_bytes",), "api_duration_ms": ("duration_ms",),
}  # fmt: skip
SUMS = ("cost_usd", "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "api_duration_ms")


def changes(policy: Policy) -> Iterator[Change]:
    """What brings each table down to `policy`, whose functions have to be in force."""
    told = {"project": "project", "branch": "branch", "feature": "feature", "chapter_context": "chapter", "part": "part",
            "workflow_step": "step"}  # fmt: skip
    named = {column: _told(policy, name, column) for column, name in told.items()}
    events = {column: f"w['{name}']" for name, column in COLUMNS.items()}
    for column, (name, other) in OR_OF.items():
        events[column] = _other(policy, other, events[column], _other(policy, name, f"toString({column})"))
    person = {"user_id": _person(policy, "user_id = installation_id", "w['enduser.id']")}
    events |= named | person | {"context_source": _redacted("context_source")}
    for column, name in (("project", "vcs.repository.name"), ("branch", "vcs.ref.head.name")):  # where no record told of it
        if name in policy.own_attributes:
            events[column] = f"if(context_at = 0, {_ruled(name, column)}, {events[column]})"
    events |= {name: _error(policy, name) for name in ("api_error_message", "error_message")}
    events |= {column: "''" for name, column in HASHES.items() if policy.treatments[name] == "drop"}
    events |= _taken(policy, *(column for column in NUMBERS if column != "api_duration_ms")) | _success(policy)
    events["attributes"] = _attributes(policy, ours=True)
    events["unknown_attributes"] = "arraySort(arrayDistinct(arrayMap(k -> telemetry_name(toString(k)), unknown_attributes)))"
    events["event_type"] = "telemetry_name(toString(event_type))"
    later = {"version": "greatest(version + 1, 4000000000000000000 + toUInt64(toUnixTimestamp64Nano(now64(9))))"}
    yield rewritten("telemetry_events", COLUMNS, events, later, key="event_type", identity="event_type, session_id, timestamp, event_id")

    some = {name: column for name, column in COLUMNS.items() if column in ("installation_id", "service_name", "service_version", "user_id")}
    who = {column: f"w['{name}']" for name, column in some.items()} | person
    after = {"received_at": "received_at + toIntervalNanosecond(1)"}
    metrics = who | {"unit": f"telemetry_word({SALT}, toString(unit))", "metric_name": "telemetry_name(toString(metric_name))"}
    metrics["attributes"] = _attributes(policy, whole=True)
    yield rewritten("telemetry_metrics", some, metrics, after, key="metric_name")
    of_spans = some | {"tool_name": "tool_name", "model": "model"}
    numbers = ", ".join(quote(name) for name, treatment in policy.treatments.items() if treatment == "number")
    spans = who | {"tool_name": "w['tool_name']", "model": "w['model']", "span_name": "telemetry_name(toString(span_name))"}
    spans |= {"error_message": _error(policy, "error_message"), "attributes": _attributes(policy, numbers)} | _success(policy)
    spans["events"] = "arrayMap(e -> (e.1, telemetry_name(toString(e.2))), events)"
    yield rewritten("telemetry_spans", of_spans, spans, after)

    records = (*told.values(), "directory", "spec_directory", "worktree", "feature_source", "chapter_source", "hook")
    contexts = {name: _told(policy, name, name) for name in records}
    contexts["person"] = _other(policy, "context.person", "telemetry_text('context.person', toString(person))", "toString(person)")
    yield rewritten("session_context", {}, contexts, after)
    lists = {f"{name}s": name for name in ("feature", "chapter", "step")} | {"branches": "branch"}
    summaries = {column: f"arrayFilter(y -> y != '', arrayMap(x -> {_told(policy, name, 'x')}, {column}))" for column, name in lists.items()}
    summaries["models"] = f"arrayMap(x -> {_other(policy, 'model', _redacted('x'))}, models)"
    given = _other(policy, "enduser.id", "telemetry_text('enduser.id', toString(user_id))", "toString(user_id)")
    person = {"user_id": _person(policy, "match(user_id, '^[0-9a-f]{64}$')", given)}  # here an installation's is known by its look alone
    version = {"service_version": _word("service.version", "service_version")}
    version["versions"] = f"arrayMap(x -> {_word('service.version', 'x')}, versions)"
    summaries |= person | version | {"project": named["project"]} | _taken(policy, *SUMS)
    yield rewritten("session_summaries", {}, summaries, {"version": "version + 1"}, identity="session_id")
    of_usage = {column: value for column, value in named.items() if column != "part"}
    sums = _taken(policy, *SUMS, "cache_creation_5m_tokens", "cache_creation_1h_tokens")
    if sums.keys() & {"input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens"}:
        sums["unpriced_tokens"] = "0"  # nobody knows how many of each kind
    yield usage(of_usage | {"model": _other(policy, "model", _redacted("model"))} | person, sums)

    attributes = {"service_version": "service.version", "entrypoint": "app.entrypoint", "project": "vcs.repository.name", "branch": "vcs.ref.head.name"}
    names = ("model", "speed", "service_tier", "inference_geo", "stop_reason", *attributes, "directory")
    copies = {name: _ruled(attributes.get(name, name), name) for name in names} | {"agent_id": _redacted("agent_id")}
    counts = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "cache_creation_5m_tokens", "cache_creation_1h_tokens")
    copies |= _taken(policy, *counts)
    again = {"read_at": "read_at + toIntervalNanosecond(1)"}
    yield rewritten("transcript_copies", {}, copies, again)
    of_files = {name: _redacted(name) for name in ("agent_id", "problem")} | {"directory": _ruled("directory", "directory")}
    yield rewritten("transcript_files", {}, of_files, again)
    decided = {name: copies[name] for name in ("branch", "directory", "project")}
    yield forgotten("transcript_contexts", decided | {name: _told(policy, name, name) for name in ("feature", "chapter", "part")})
    found = {column: _word(name, column) for name, column in COLUMNS.items() if column in ("model", "service_version", "query_source")}
    yield updated("audit_findings", found | {"agent_id": _redacted("agent_id")})


def _redacted(column: str) -> str:
    return f"telemetry_redact(toString({column}))"


def _ruled(name: str, column: str) -> str:
    return f"telemetry_ruled({SALT}, '{name}', {_redacted(column)})"


def _word(name: str, column: str) -> str:
    return f"telemetry_words({SALT}, map('{name}', toString({column})))['{name}']"


def _is_taken(policy: Policy, name: str) -> bool:
    """Whether a rule leaves nothing of `name` itself."""
    return policy.own_attributes.get(name, "text") != "text"


def _other(policy: Policy, name: str, value: str, column: str = "") -> str:
    """`value`; where a rule leaves nothing of `name` itself, `column` (or `value`) as that rule has it."""
    return f"telemetry_ruled({SALT}, '{name}', {column or value})" if _is_taken(policy, name) else value


def _told(policy: Policy, name: str, column: str) -> str:
    """What a context record told: `name` in it."""
    return _other(policy, f"context.{name}", _redacted(column), f"toString({column})")


def _person(policy: Policy, is_installation: str, given: str) -> str:
    """user_id: `given` in an attribute, or in a record, or else an installation's."""
    name = _other(policy, "context.person", given)
    of_installation = _other(policy, "user.id", "toString(user_id)")
    return f"if({is_installation}, {of_installation}, {name})" if _is_taken(policy, "user.id") else name


def _taken(policy: Policy, *columns: str) -> dict[str, str]:
    """Of these columns, 0 for those of numbers that a rule takes away."""
    return {column: "0" for column in columns if any(_is_taken(policy, name) for name in NUMBERS[column])}


def _success(policy: Policy) -> dict[str, str]:
    return {"success": "CAST(NULL, 'Nullable(Bool)')"} if _is_taken(policy, "success") else {}


def _error(policy: Policy, column: str) -> str:
    treatment = policy.treatments["error"]
    if treatment == "drop":
        return "''"
    if treatment == "hash":
        return f"telemetry_words({SALT}, map('error', {column}))['error']"
    return f"telemetry_error({column})"


def _attributes(policy: Policy, numbers: str = "", whole: bool = False, ours: bool = False) -> str:
    """The map: what the policy keeps as it keeps it, `numbers` (a list of names, in SQL), of a file what the level allows, and with `ours`
    what backfill says of a cost, which no event does."""
    plain = "CAST(attributes, 'Map(String, String)')"
    words = f"telemetry_words({SALT}, {plain})"
    kept = words if whole else f"telemetry_kept({words})"
    parts = [kept]
    if numbers:
        parts.append(f"mapFilter((k, v) -> k IN ({numbers}) AND match(v, '^[0-9]+$'), {plain})")
    if ours and "cost_source" not in policy.treatments:
        parts.append(f"mapFilter((k, v) -> k = 'cost_source' AND v IN ('computed', 'unpriced'), {plain})")
    if policy.treatments["file_path"] == "relative":
        parts.append(f"mapApply((k, v) -> (k, telemetry_redact(v)), mapFilter((k, v) -> k IN ('file_path', 'file_extension'), {plain}))")
    return f"mapConcat({', '.join(parts)})" if parts[1:] else kept


def pending(handle: Handle, policy: Policy) -> dict[str, int]:
    """Rows by table that `policy`, which is in force, would keep otherwise than they are."""
    found: dict[str, int] = {}
    for change in changes(policy):
        found[change.table] = found.get(change.table, 0) + int(handle.query(change.count))
    return found


LAST = "SELECT what FROM telemetry.privacy_history WHERE what IN ('tightening', 'tightened') ORDER BY since DESC LIMIT 1"


def tighten(handle: Handle, policy: Policy) -> dict[str, int]:
    """Bring all that is stored down to `policy`, which is in force, and wait until the old bytes are off the disk. Rows by table.

    Looked at once more when it is done: a statement that began before (attribution, summaries, backfill) writes what it had read then, in
    a version that may win; and a merge that can't be made now, for room or a mutation, is passed over in silence.
    """
    interrupted = handle.query(LAST) == b"tightening\n"  # rows were changed then; old parts may be there still, and a table's setting
    done: dict[str, int] = {}
    for _ in range(ROUNDS):
        found = {change.table: _bring_down(handle, policy, change) for change in changes(policy)}
        done = {table: done.get(table, 0) + rows for table, rows in found.items()}
        if not any(found.values()):
            for table in done if interrupted else ():
                _take_off_the_disk(handle, table)
            remember(handle, "tightened", policy, ", ".join(f"{table}: {rows}" for table, rows in done.items()))
            return done
    left = ", ".join(table for table, rows in found.items() if rows)
    raise QueryFailed(f"Rows of {left} can't be brought down to the policy, or their old parts not merged.", "It is tried again.")


def _bring_down(handle: Handle, policy: Policy, change: Change) -> int:
    """How many of its rows had to be changed."""
    rows = int(handle.query(change.count))
    if rows:
        remember(handle, "tightening", policy, f"{change.table}: {rows}")
        partitions = handle.query(change.partitions).decode().split()
        for statement in change.statements:
            handle.query(statement)
        for partition in partitions:
            handle.query(f"OPTIMIZE TABLE telemetry.{change.table} PARTITION ID '{partition}' FINAL")
        _take_off_the_disk(handle, change.table)
    return rows


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
