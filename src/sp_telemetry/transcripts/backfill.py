"""Fills in what telemetry missed from what Claude Code's own transcripts say. The work is in SQL: `store/backfill.py`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from sp_telemetry.store import backfill, maintenance
from sp_telemetry.store.client import Client, Statements
from sp_telemetry.store.schema import shipped
from sp_telemetry.transcripts import contexts
from sp_telemetry.transcripts.special import special


@dataclass(frozen=True)
class Figures:
    """How much was filled in, or would be. Costs are computed from the price list; unpriced requests are not in `cost_usd`."""

    requests: int = 0
    sessions: int = 0
    cost_usd: float = 0.0
    tokens: int = 0
    unpriced_requests: int = 0
    unpriced_tokens: int = 0
    unpriced_models: list[str] = field(default_factory=list)
    first_at: str = ""
    last_at: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fill(client: Client, machine: str, since_s: float, person: str) -> Figures:
    """Fill in what no event tells of since then (epoch seconds). Returns what was written: new, or other than it was."""
    runner = Statements(client)
    if backfill.is_up_to_date(runner, machine, since_s):
        return Figures()
    by_id = not special(runner).pairs
    run = backfill.begin(runner, machine, since_s, by_id)
    pairs = client.query(
        "SELECT DISTINCT toString(branch), toString(directory) FROM telemetry.transcript_copies"
        " WHERE session_id IN (SELECT session_id FROM telemetry.backfilled_requests WHERE run = {run:UInt64})",
        {"run": run},
    )
    rows = "\n".join(json.dumps(row) for row in contexts.decide((branch, directory) for branch, directory in pairs.rows))
    if rows:
        client.insert("telemetry.read_contexts", "JSONEachRow", rows.encode())
    backfill.complete(runner, run, machine, person, by_id)
    done = _figures(client, "filled_in", since=backfill.moment(since_s), run=run)
    _summarise(runner, int(run))
    backfill.note(runner, machine, since_s, run)
    return done


def missing(client: Client, machine: str, since_s: float) -> Figures:
    """What `fill` would write that is not there yet."""
    return _figures(client, "to_fill_in", machine=machine, since=backfill.moment(since_s))


def standing(client: Client, since_s: float = 0) -> Figures:
    """What was filled in and still is."""
    return _figures(client, "filled_in", since=backfill.moment(since_s), run="0")


def remove(client: Client, since_s: float) -> Figures:
    """Take back what was filled in since then, from all machines. Returns what that was."""
    before, now = standing(client, since_s), time.time_ns()
    runner = Statements(client)
    backfill.note(runner, "", since_s, str(now), removed=True)  # so that each machine looks again
    backfill.remove(runner, since_s)
    _summarise(runner, now)
    return before


def _summarise(runner: Statements, since_ns: int) -> None:
    """Made anew here, for the server looks only when something came by its own intake."""
    maintenance.summarise(runner, since_ns / 1e9)


def _figures(client: Client, file: str, **parameters: str) -> Figures:
    [statement] = shipped(f"transcripts/{file}.sql")
    [found] = client.query(statement, parameters).records()
    return Figures(**found) if found["requests"] else Figures()
