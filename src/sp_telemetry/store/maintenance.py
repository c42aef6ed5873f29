"""What keeps the derived tables true: statements that make rows anew from the events, never add to them.

Each can run at any time, twice, or after having been killed half-way. `telemetry-server/clickhouse/maintenance/*.sql`.
"""

from __future__ import annotations

import time

from sp_telemetry.store.engine import Handle
from sp_telemetry.store.schema import run_file

TTL = {  # table -> (setting, column of its TTL)
    "telemetry_events": ("retention_events_days", "toDateTime(timestamp)"),
    "telemetry_metrics": ("retention_events_days", "toDateTime(timestamp)"),
    "telemetry_spans": ("retention_events_days", "toDateTime(timestamp)"),
    "session_summaries": ("retention_sessions_days", "toDateTime(ended_at)"),
}
LONGEST_DAYS = 10_000  # more is for ever: the engine's DateTime ends in 2106, and what goes beyond it begins in 1970 and has expired


def reattribute(handle: Handle, contexts_since_s: float) -> None:
    """Attribute events anew whose sessions' contexts were received since then (epoch seconds)."""
    run_file(handle, "clickhouse/maintenance/reattribute.sql", since=f"{contexts_since_s:.3f}")


def reattribute_newest(handle: Handle, of_s: float) -> None:
    """Attribute events anew whose sessions' contexts were received in the last `of_s` seconds in which any were, however long ago."""
    newest = float(handle.query("SELECT toFloat64(max(received_at)) FROM telemetry.session_context"))
    reattribute(handle, max(newest - of_s, 0))


def summarise(handle: Handle, written_since_s: float = float("inf")) -> None:
    """Bring session_summaries and usage_hourly up to date with all that was written since the newest they know.

    `written_since_s`: look at what was written from then on (epoch seconds) in any case; the clock may have been set back since.
    """
    since = f"{max(min(written_since_s, time.time()), 0):.3f}"
    run_file(handle, "clickhouse/maintenance/sessions.sql", since=since)
    run_file(handle, "clickhouse/maintenance/usage.sql", since=since)


def summarise_future(handle: Handle) -> None:
    """Make the summaries anew from everything if they know of writes in the future: the clock was set back, so that what was written
    since can't be told by its time. Otherwise nothing."""
    newest = handle.query(
        "SELECT greatest((SELECT max(version) FROM telemetry.session_summaries), (SELECT max(version) FROM telemetry.usage_hourly))"
    )
    if int(newest) > time.time_ns():
        summarise(handle, 0)


def apply_retention(handle: Handle, days: dict[str, int]) -> list[str]:
    """Set each table's TTL to what the settings say (`days`: setting -> days; 0 and more than LONGEST_DAYS are for ever). Returns the
    tables that were changed. What is stored follows in the background: a part keeps when it expires, by the TTL it was written under."""
    _note_retention(handle, days["retention_events_days"])
    changed = []
    for table, (setting, column) in TTL.items():
        wanted = f"{column} + toIntervalDay({days[setting]})" if 0 < days[setting] <= LONGEST_DAYS else ""
        if _ttl(handle, table) != wanted:
            action = f"MODIFY TTL {wanted}" if wanted else "REMOVE TTL"
            handle.run(f"ALTER TABLE telemetry.{table} {action} SETTINGS materialize_ttl_after_modify = 1, alter_sync = 0")
            changed.append(table)
        elif wanted and _expires_otherwise(handle, table, days[setting]):
            handle.run(f"ALTER TABLE telemetry.{table} MATERIALIZE TTL SETTINGS mutations_sync = 0")
    return changed


def _expires_otherwise(handle: Handle, table: str, days: int) -> bool:
    """Whether parts go by another retention, and nothing is about to change that: a kill, or a disk without room, came between the
    definition and the mutation. Told by the newest time in a part, which the engine knows of tables that are partitioned by time."""
    known = f"database = 'telemetry' AND table = '{table}'"
    otherwise = f"toUnixTimestamp(delete_ttl_info_max) - toUnixTimestamp(max_time) != {days} * 86400"
    parts = f"{known} AND active AND toUnixTimestamp(max_time) BETWEEN 1 AND 4000000000 AND {otherwise}"
    mutations = f"{known} AND NOT is_done AND command LIKE '%TTL%'"
    asked = f"SELECT (SELECT count() FROM system.parts WHERE {parts}) > 0 AND (SELECT count() FROM system.mutations WHERE {mutations}) = 0"
    return handle.query(asked).strip() == b"1"


def retention(handle: Handle) -> dict[str, int]:
    """What `apply_retention` was told last: setting -> days, 0 for ever."""
    return {setting: int(_ttl(handle, table).partition("toIntervalDay(")[2].rstrip(")") or 0) for table, (setting, _) in TTL.items()}


def _ttl(handle: Handle, table: str) -> str:
    named = f"database = 'telemetry' AND name = '{table}'"
    engine = handle.query(f"SELECT engine_full FROM system.tables WHERE {named}", "RawBLOB").decode()
    return engine.partition(" TTL ")[2].partition(" SETTINGS ")[0]


def _note_retention(handle: Handle, days: int) -> None:
    """Remember for how long events are kept, and that those which an earlier setting let go do not come back. What a shorter one lets go is
    summed up before."""
    days = days if 0 < days <= LONGEST_DAYS else 0
    before = handle.query("SELECT days FROM telemetry.event_retention FINAL").strip()
    if before != str(days).encode():
        if before:
            summarise(handle)
        kept = "(SELECT max(since) FROM telemetry.events_kept)"
        handle.run(f"INSERT INTO telemetry.event_retention (days, lost_before) SELECT {days}, assumeNotNull({kept})")


def figures(handle: Handle, since_s: float) -> dict[str, float]:
    """How much is kept: events_stored, events_new (of them, arrived for the first time since `since_s`; what was filled in from
    transcripts did not arrive), bytes_on_disk."""
    stored, new, size = handle.query(
        "SELECT (SELECT count() FROM telemetry.telemetry_events FINAL),"
        " (SELECT count() FROM telemetry.telemetry_events FINAL"
        "  WHERE received_at >= toDateTime64({since:Float64}, 9, 'UTC') AND source != 'transcript'),"
        " (SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'telemetry' AND active)"
        " SETTINGS do_not_merge_across_partitions_select_final = 1",
        "TabSeparated",
        {"since": str(since_s)},
    ).split(b"\t")
    return {"events_stored": int(stored), "events_new": int(new), "bytes_on_disk": int(size) if size.strip() != b"\\N" else 0}
