"""Requests that only transcripts know, as rows of telemetry_events: filled in, taken back when their event comes, removed.

Each statement can run at any time, twice, or after having been killed half-way. They are in
`telemetry-server/clickhouse/maintenance/`; the order in which they run is what keeps a request from counting twice.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from typing import Protocol

from sp_telemetry import resources
from sp_telemetry.store.schema import statements


class Runner(Protocol):
    """What runs a statement: a handle of the engine, or a client of the ClickHouse interface in its shape."""

    def query(self, sql: str, format: str = ..., parameters: Mapping[str, str] | None = ...) -> bytes: ...


def begin(runner: Runner, machine: str, since_s: float) -> str:
    """List what no event tells of since then (epoch seconds), of the transcripts of `machine`. Returns the name of this run.

    From then on whoever stores an event looks for a row in its place, so this comes before the rows.
    """
    run = str(time.time_ns())
    _run(runner, "list_for_backfill", run=run, machine=machine, since=moment(since_s))
    return run


def complete(runner: Runner, run: str, person: str) -> None:
    """Fill in what `run` lists, under the name `person`; then take back rows whose events came before the list was written. So
    whichever is committed last sees the other."""
    _run(runner, "backfill", run=run, person=person)
    cancel(runner)


def is_up_to_date(runner: Runner, machine: str, since_s: float) -> bool:
    """Whether the last run of `machine` left nothing to do: no transcript was read and no price loaded since it began."""
    return runner.query(_UP_TO_DATE, "TabSeparated", {"machine": machine, "since": moment(since_s)}).strip() == b"1"


def note(runner: Runner, machine: str, since_s: float, run: str, removed: bool = False) -> None:
    """Remember that `run` came to its end."""
    runner.query(_NOTE, "Null", {"machine": machine, "since": moment(since_s), "run": run, "removed": str(int(removed))})


_UP_TO_DATE = """
    SELECT count() FROM telemetry.backfill_runs AS r FINAL
    WHERE machine = {machine:String} AND r.since <= {since:DateTime64(9, 'UTC')} AND NOT r.removed
        AND r.prices = (SELECT max(loaded_at) FROM telemetry.model_prices)
        AND r.run > (SELECT toUnixTimestamp64Nano(max(read_at)) FROM telemetry.transcript_files WHERE machine = {machine:String})
        AND r.run > (SELECT max(if(removed, run, 0)) FROM telemetry.backfill_runs)"""
_NOTE = """
    INSERT INTO telemetry.backfill_runs
    SELECT
        {machine:String}, {run:UInt64}, {since:DateTime64(9, 'UTC')}, (SELECT max(loaded_at) FROM telemetry.model_prices), {removed:Bool}"""


def cancel(runner: Runner) -> None:
    """Take back what stands in the place of an event that is there."""
    _run(runner, "cancel_backfilled")
    if runner.query(_WITHOUT_ID).strip():
        _run(runner, "cancel_alike")
    _forget_emptied_sessions(runner)


def remove(runner: Runner, since_s: float) -> None:
    """Take back everything that was filled in since then (epoch seconds)."""
    _run(runner, "remove_backfilled", since=moment(since_s))
    _forget_emptied_sessions(runner)


def cancel_arrived(runner: Runner) -> None:
    """The same as `cancel` for the events in stage_logs, which were just stored. Next to nothing where none is concerned."""
    if int(runner.query("SELECT count() FROM telemetry.backfilled_requests")) == 0:
        return
    by_id, without_id = map(int, runner.query(_CONCERNED).split())
    if by_id:
        _run(runner, "cancel_arrived")
    if without_id:
        cancel(runner)


def _forget_emptied_sessions(runner: Runner) -> None:
    """Summaries are made from events, so one without any would stay as it was."""
    if runner.query(f"SELECT 1 FROM telemetry.session_summaries WHERE {_EMPTIED} LIMIT 1").strip():
        runner.query(f"DELETE FROM telemetry.session_summaries WHERE {_EMPTIED}")


_EMPTIED = """session_id IN (SELECT session_id FROM telemetry.backfilled_requests) AND session_id NOT IN
    (SELECT session_id FROM telemetry.telemetry_events FINAL WHERE session_id IN (SELECT session_id FROM telemetry.backfilled_requests))"""
_WITHOUT_ID = """
    SELECT 1 FROM telemetry.telemetry_events AS e FINAL
    WHERE event_type = 'api_request' AND request_id = '' AND (source = 'transcript'
        OR session_id IN (SELECT session_id FROM telemetry.telemetry_events WHERE event_type = 'api_request' AND source = 'transcript'))
    LIMIT 1"""
# Of what was listed: that with a request of the block, and where an id is lacking on either side, that of its sessions.
_CONCERNED = """
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt,
    came AS
    (
        SELECT
            telemetry_identifier(salt, LogAttributes['session.id']) AS session_id,
            telemetry_identifier(salt, LogAttributes['request_id']) AS request_id
        FROM stage_logs WHERE LogAttributes['event.name'] = 'api_request' OR Body = 'claude_code.api_request'
    )
SELECT
    countIf(request_id != '' AND request_id IN (SELECT request_id FROM came)),
    countIf(session_id IN (SELECT session_id FROM came WHERE request_id = '')
        OR request_id = '' AND session_id IN (SELECT session_id FROM came))
FROM telemetry.backfilled_requests"""


def moment(epoch_s: float) -> str:
    """As the statements' parameters of type DateTime64 are written."""
    return f"{max(epoch_s, 0.0):.3f}"


def _run(runner: Runner, name: str, **parameters: str) -> None:
    for statement in _statements(name):
        runner.query(statement, "Null", parameters)


@cache
def _statements(name: str) -> tuple[str, ...]:
    return tuple(statements(resources.path(f"telemetry-server/clickhouse/maintenance/{name}.sql").read_text()))
