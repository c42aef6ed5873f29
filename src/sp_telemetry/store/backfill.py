"""Requests that only transcripts know, as rows of telemetry_events: filled in, taken back when their event comes, removed.

Each statement can run at any time, twice, or after having been killed half-way. They are in
`telemetry-server/clickhouse/maintenance/`; the order in which they run is what keeps a request from counting twice.
"""

from __future__ import annotations

import time

from sp_telemetry.store.schema import Runner, run_file


def begin(runner: Runner, machine: str, since_s: float, by_id: bool = False) -> str:
    """List what no event tells of since then (epoch seconds), of the transcripts of `machine`. Returns the name of this run.

    `by_id`: every request has an id of its own, so none has to be told by its likeness.

    From then on whoever stores an event looks for a row in its place, so this comes before the rows.
    """
    run = str(time.time_ns())
    asked = {"run": run, "machine": machine, "since": moment(since_s), "by_id": str(int(by_id))}
    run_file(runner, "clickhouse/maintenance/list_for_backfill.sql", **asked)
    return run


def complete(runner: Runner, run: str, machine: str, person: str, by_id: bool = False) -> None:
    """Fill in what `run` of `machine` lists, under the name `person`; then take back rows whose events came before the list was written. So
    whichever is committed last sees the other. `by_id`: as of `begin`."""
    run_file(runner, "clickhouse/maintenance/backfill.sql", run=run, machine=machine, person=person)
    cancel(runner, by_id)


def is_up_to_date(runner: Runner, machine: str, since_s: float) -> bool:
    """Whether the last run of `machine` left nothing to do: no transcript was read and no price loaded since it began."""
    return run_file(runner, "clickhouse/maintenance/backfill_up_to_date.sql", machine=machine, since=moment(since_s)).strip() == b"1"


def note(runner: Runner, machine: str, since_s: float, run: str, removed: bool = False) -> None:
    """Remember that `run` came to its end."""
    run_file(runner, "clickhouse/maintenance/note_backfill.sql", machine=machine, since=moment(since_s), run=run, removed=str(int(removed)))


def cancel(runner: Runner, by_id: bool = False) -> None:
    """Take back what stands in the place of an event that is there. `by_id`: as of `begin`."""
    run_file(runner, "clickhouse/maintenance/cancel_backfilled.sql", by_id=str(int(by_id)))
    if run_file(runner, "clickhouse/maintenance/backfilled_without_id.sql").strip():
        run_file(runner, "clickhouse/maintenance/cancel_alike.sql")
    run_file(runner, "clickhouse/maintenance/forget_emptied.sql")


def remove(runner: Runner, since_s: float) -> None:
    """Take back everything that was filled in since then (epoch seconds)."""
    run_file(runner, "clickhouse/maintenance/remove_backfilled.sql", since=moment(since_s))
    run_file(runner, "clickhouse/maintenance/forget_emptied.sql")


def is_any_listed(runner: Runner) -> bool:
    """Whether anything was listed for backfill, so that what arrives has to be looked at. Next to nothing: a count from metadata."""
    return int(runner.query("SELECT count() FROM telemetry.backfilled_requests")) > 0


def cancel_arrived(runner: Runner) -> None:
    """The same as `cancel` for the events in stage_events, which were just stored. They keep the context that a row in their place had."""
    by_id, without_id = map(int, run_file(runner, "clickhouse/maintenance/concerned_by_arrival.sql").split())
    if by_id:
        run_file(runner, "clickhouse/maintenance/keep_contexts.sql")
        run_file(runner, "clickhouse/maintenance/cancel_arrived.sql")
    if without_id:
        cancel(runner)


def moment(epoch_s: float) -> str:
    """As the statements' parameters of type DateTime64 are written."""
    return f"{max(epoch_s, 0.0):.3f}"
