"""One batch of requests into the journal or its table, and what each of its senders is told."""

from __future__ import annotations

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve import trouble
from sp_telemetry.serve.trouble import Trouble
from sp_telemetry.store.journal import Journal
from sp_telemetry.store.pipeline import Lane, Pipeline

TOO_MUCH = "To store this request takes too much memory. Send fewer records at once."


class Busy(Exception):
    """Too much is waiting. The sender may send it again."""

    retry_after_s = 1


class Unavailable(Busy):
    """The store can't take it now. The sender may send it again, later."""

    retry_after_s = 5

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(str(trouble))
        self.trouble = trouble


class Rejected(Exception):
    """This request can never be stored. The message says why."""


def commit(
    pipeline: Pipeline, lane: Lane, bodies: list[bytes], by_statements: bool = False, journal: Journal | None = None
) -> list[Exception | int]:
    """For each body the number of its records, or why it is not stored. What fails together is tried in halves, so that one bad
    request costs its companions nothing; unless it is the place that fails, where smaller inserts would do so too."""
    try:
        return [pipeline.store(lane, bodies, by_statements, journal)] + [0] * (len(bodies) - 1)
    except QueryFailed as error:
        reason = trouble.of_error(error)
        if reason.what in trouble.OF_THE_PLACE:
            return [Unavailable(reason)] * len(bodies)
        if len(bodies) > 1:
            half = len(bodies) // 2
            return commit(pipeline, lane, bodies[:half], True) + commit(pipeline, lane, bodies[half:], True)
        if trouble.is_too_much(error):
            return [Rejected(TOO_MUCH)]
        found = pipeline.undecodable(lane, bodies[0]) if trouble.can_never_be_stored(error) else None
        never = found is not None and trouble.can_never_be_stored(found)  # the second look may have met a fault of ours instead
        return [Rejected(str(found)) if never else Unavailable(reason)]
