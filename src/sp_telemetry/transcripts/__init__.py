"""Claude Code's own transcripts: read by the engine, held against the telemetry."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Protocol

GRACE_S = 60  # what is younger may still be under way


class Answering(Protocol):
    """What is asked of a client. See `store.client.Client`."""

    def query(self, sql: str) -> Any: ...


def kept_since(client: Answering) -> datetime | None:
    """The hour since which every event that came is there, and backfill may fill in; None where none ever went. As the store
    says, which may have let go more than today's settings would, and may be a team's.

    Transcripts are remembered for longer, so of what is older nobody can tell what telemetry had. An hour later than reports begin
    to read sums of hours: no hour may come to that while it is filled in.
    """
    [[since]] = client.query("SELECT toUnixTimestamp(max(since) + INTERVAL 1 HOUR) * (max(since) > 0) FROM telemetry.events_kept").rows
    return datetime.fromtimestamp(int(since), UTC) if int(since) else None
