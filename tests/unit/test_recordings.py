"""The recordings against themselves: what the client printed as its cost is what its events add up to."""

from __future__ import annotations

import pytest

from tests.recordings.reading import Recording, recordings

ALL = recordings()
each = pytest.mark.parametrize("recording", ALL, ids=lambda recording: recording.name)


def printed_cost(recording: Recording, session: dict) -> float:
    """What the client says a session cost.

    A resumed run states the whole session's cost on 2.1.330 (it restores the sum from the transcript); on 2.1.197 it
    states its own alone.
    """
    totals = [run["total_cost_usd"] for run in session["runs"]]
    return totals[-1] if recording.about["client_version"] == "2.1.330" else sum(totals)


def costs(recording: Recording) -> dict[str, float]:
    sums: dict[str, float] = {}
    for event in recording.events():
        if event.name == "api_request":
            session = event.attributes["session.id"]
            sums[session] = sums.get(session, 0.0) + event.attributes["cost_usd"]
    return sums


def test_there_are_recordings_of_both_versions_and_every_protocol():
    made = {(recording.about["client_version"], recording.about["protocol"]) for recording in ALL}
    assert {("2.1.330", "http/protobuf"), ("2.1.330", "http/json"), ("2.1.330", "grpc"),
            ("2.1.197", "http/protobuf"), ("2.1.197", "grpc")} <= made


@each
def test_a_sessions_cost_is_the_sum_of_its_requests(recording):
    sums = costs(recording)
    assert set(sums) == {session["session_id"] for session in recording.about["sessions"]}
    for session in recording.about["sessions"]:
        assert sums[session["session_id"]] > 0
        assert sums[session["session_id"]] == pytest.approx(printed_cost(recording, session), abs=1e-6), session["scenario"]


@each
def test_every_answered_request_has_one_event_and_the_same_tokens(recording):
    answered = {line["request_id"]: line for line in recording.about["api_log"] if line["status"] == 200}
    seen = [event.attributes for event in recording.events() if event.name == "api_request"]
    assert sorted(answered) == sorted(attributes["request_id"] for attributes in seen)
    for attributes in seen:
        line = answered[attributes["request_id"]]
        assert attributes["session.id"] == line["session_id"]
        assert attributes["model"].startswith(line["model"].split("[")[0])
        assert int(attributes["input_tokens"]) == line["usage"]["input_tokens"]
        assert int(attributes["output_tokens"]) == line["usage"]["output_tokens"]
        assert int(attributes["cache_read_tokens"]) == line["usage"]["cache_read_input_tokens"]
        assert int(attributes["cache_creation_tokens"]) == line["usage"]["cache_creation_input_tokens"]


@each
def test_the_cost_metric_repeats_the_events(recording):
    """Delta sums: the metric's points add up to the same money, which is why it is never added to the events."""
    points = sum(value for name, _, value in recording.points() if name == "claude_code.cost.usage")
    assert points == pytest.approx(sum(costs(recording).values()), abs=1e-6)


@each
def test_every_session_has_a_hook_line_before_its_first_request(recording):
    first: dict[str, int] = {}
    for line in recording.hooks():
        first.setdefault(line["session_id"], line["at_ns"])
    for line in recording.about["api_log"]:
        assert first[line["session_id"]] < line["at_ns"]


@each
def test_every_session_has_a_transcript(recording):
    names = {path.stem for path in (recording.directory / "transcripts").glob("*/*.jsonl")}
    assert names == {session["session_id"] for session in recording.about["sessions"]}
