"""Fills in what telemetry missed from what Claude Code's own transcripts say. The work is in SQL: `store/backfill.py`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sp_telemetry.store import backfill, maintenance
from sp_telemetry.store.client import Client
from sp_telemetry.transcripts import contexts

_FIGURES = """
    count() AS requests, uniqExact(session_id) AS sessions, round(sum(usd), 9) AS cost_usd, sum(used) AS tokens,
    countIf(unpriced) AS unpriced_requests, sumIf(used, unpriced) AS unpriced_tokens,
    arraySort(groupUniqArrayIf(toString(model), unpriced)) AS unpriced_models, min(timestamp) AS first_at, max(timestamp) AS last_at"""
_USED = "input_tokens + output_tokens + cache_read_tokens + cache_creation_tokens AS used"
_STANDING = """SELECT session_id, timestamp, model, cost_usd AS usd, cost_usd = 0 AND used > 0 AS unpriced, {used}
    FROM telemetry.telemetry_events FINAL
    WHERE event_type = 'api_request' AND source = 'transcript' AND timestamp >= {{since:DateTime64(9, 'UTC')}}"""
_WRITTEN = " AND version > 4000000000000000000 + {run:UInt64}"
_MISSING = """SELECT session_id, timestamp, model, ifNull(computed_usd, 0) AS usd, isNull(computed_usd) AND used > 0 AS unpriced, {used}
    FROM telemetry.transcript_costs
    WHERE (message_id, request_id, attempt) IN (SELECT message_id, request_id, attempt FROM telemetry.unreported_requests)
        AND timestamp >= {{since:DateTime64(9, 'UTC')}}
        AND file_id IN (SELECT file_id FROM telemetry.transcript_files FINAL WHERE machine = {{machine:String}})
        AND (message_id, request_id, attempt) NOT IN
        (
            SELECT message_id, request_id, attempt FROM telemetry.backfilled_requests
            WHERE sipHash64('transcript', if(message_id != '', message_id, request_id), attempt) IN
                (SELECT event_id FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request' AND source = 'transcript')
        )"""


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


def fill(client: Client, machine: str, since_s: float, person: str, retention_days: int) -> Figures:
    """Fill in what no event tells of since then (epoch seconds). Returns what was written: new, or other than it was."""
    runner = _Runner(client)
    if backfill.is_up_to_date(runner, machine, since_s):
        return Figures()
    run = backfill.begin(runner, machine, since_s)
    pairs = client.query(
        "SELECT DISTINCT toString(branch), toString(directory) FROM telemetry.transcript_copies"
        " WHERE session_id IN (SELECT session_id FROM telemetry.backfilled_requests WHERE run = {run:UInt64})",
        {"run": run},
    )
    rows = "\n".join(json.dumps(row) for row in contexts.decide((branch, directory) for branch, directory in pairs.rows))
    if rows:
        client.insert("telemetry.read_contexts", "JSONEachRow", rows.encode())
    backfill.complete(runner, run, person)
    done = _figures(client, _STANDING.format(used=_USED) + _WRITTEN, since=backfill.moment(since_s), run=run)
    _summarise(runner, int(run), retention_days)
    backfill.note(runner, machine, since_s, run)
    return done


def missing(client: Client, machine: str, since_s: float) -> Figures:
    """What `fill` would write that is not there yet."""
    return _figures(client, _MISSING.format(used=_USED), machine=machine, since=backfill.moment(since_s))


def standing(client: Client, since_s: float = 0) -> Figures:
    """What was filled in and still is."""
    return _figures(client, _STANDING.format(used=_USED), since=backfill.moment(since_s))


def remove(client: Client, since_s: float, retention_days: int) -> Figures:
    """Take back what was filled in since then, from all machines. Returns what that was."""
    before, now = standing(client, since_s), time.time_ns()
    runner = _Runner(client)
    backfill.note(runner, "", since_s, str(now), removed=True)  # so that each machine looks again
    backfill.remove(runner, since_s)
    _summarise(runner, now, retention_days)
    return before


def _summarise(runner: _Runner, since_ns: int, retention_days: int) -> None:
    """Made anew here, for the server looks only when something came by its own intake."""
    maintenance.summarise(runner, retention_days, since_ns / 1e9)


def _figures(client: Client, rows: str, **parameters: str) -> Figures:
    [found] = client.query(f"SELECT {_FIGURES} FROM ({rows})", parameters).records()
    return Figures(**found) if found["requests"] else Figures()


class _Runner:
    """The client in the shape of an engine's handle."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def query(self, sql: str, format: str = "TabSeparated", parameters: Mapping[str, str] | None = None) -> bytes:
        return b"".join(self._client.stream(sql, format, parameters))
