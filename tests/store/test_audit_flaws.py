"""What Claude Code is known not to tell: an audit says which of it a request may have been, and where that is written down."""

from __future__ import annotations

from collections import Counter

from sp_telemetry.transcripts import summary
from tests.store.audited import DAY, NOW, made, of, reasons, running, store
from tests.transcripts import identifier

__all__ = ["of", "running"]  # fixtures


def test_pitfall_13_a_session_that_is_silent_since_it_was_resumed_is_told_so(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 6)
    for request in session.requests[4:]:  # another process, with prompts of its own, of which nothing arrives
        request.in_telemetry, request.prompt = False, f"q{request.number}"
    done, found = reasons(running, configuration, session)
    assert found == {"both": Counter({"": 4}), "telemetry": Counter(), "transcript": Counter({"telemetry off then": 2})}
    assert (done.missing, done.clean) == (2, False)
    assert "only in transcripts: 2 telemetry off then (" in summary.text(done) and "/issues/89406" in summary.text(done)


def test_pitfall_12_requests_of_a_provider_that_tells_of_none_are_told_so(running, configuration, of):
    """On Microsoft Foundry every event but `api_request` arrives."""
    session = made(of, NOW - 5 * DAY, 3)
    for request in session.requests:
        request.in_telemetry = False
    asked = {"name": "user_prompt", "session.id": of, "prompt.id": identifier(of, "p"), "anthropic.provider": "foundry"}
    at = int(session.requests[0].at * 1e9)
    store(running, [asked | {"time_ns": at - 10**9, "event.sequence": 0}, asked | {"time_ns": at + 200 * 10**9, "event.sequence": 1}])
    done, found = reasons(running, configuration, session)
    assert found["transcript"] == Counter({"on Microsoft Foundry": 3})
    assert (done.missing, "/issues/55984" in summary.text(done)) == (3, True)
