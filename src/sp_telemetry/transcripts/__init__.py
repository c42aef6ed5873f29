"""Claude Code's own transcripts: read by the engine, held against the telemetry."""

from __future__ import annotations

import time
from datetime import UTC, datetime

GRACE_S = 60  # what is younger may still be under way
DAY_S = 86400


def kept_since(retention_days: int) -> datetime | None:
    """A midnight (UTC) since which every event that came is there, and backfill may fill in; None where events are kept for ever.

    Transcripts are remembered for longer, so of what is older nobody can tell what telemetry had.
    """
    if retention_days <= 0:
        return None
    midnight = time.time() // DAY_S * DAY_S
    return datetime.fromtimestamp(max(midnight - max(retention_days - 2, 0) * DAY_S, 0), UTC)
