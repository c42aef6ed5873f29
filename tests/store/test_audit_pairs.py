"""Which event goes with which request: several with one id, some with none, some alike."""

from __future__ import annotations

from collections import Counter

from sp_telemetry.transcripts import backfill, files, summary
from tests.client.script import Usage
from tests.store.audited import (
    DAY,
    NOW,
    Request,
    Session,
    made,
    named,
    of,
    performed,
    reasons,
    running,
    sets,
    store,
)
from tests.transcripts import SECRET, answer, prompt

__all__ = ["of", "running"]  # fixtures


def test_of_several_requests_with_one_id_the_first_goes_with_the_first(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 3)
    same = {"request_id": f"req_{of[:8]}same"}
    configuration.session(of, [answer(of, each.name, each.at, each.usage, **same) for each in session.requests])
    events = session.events()
    store(running, [event | same for event in events[:2]])
    done = performed(running, configuration, session=of)
    assert {side: sum(counted.values()) for side, counted in sets(done, of).items()} == {"both": 2, "telemetry": 0, "transcript": 1}
    assert not done.differing  # the pairs are those that belong together


def test_of_several_requests_with_one_id_and_fewer_events_the_others_are_filled_in(running, configuration, of):
    def rows() -> dict[int, str]:
        found = running.query("SELECT input_tokens, source FROM telemetry.telemetry_events FINAL WHERE session_id = {of:String}", of=of)
        assert len(dict(found)) == len(found)
        return dict(found)

    def fill() -> None:
        machine = files.machine(SECRET)
        would = backfill.missing(running.client, machine, 0)
        assert backfill.fill(running.client, machine, 0, "") == would
        assert backfill.missing(running.client, machine, 0).requests == 0

    session = made(of, NOW - 5 * DAY, 3)
    same = {"request_id": f"req_{of[:8]}same"}
    configuration.session(of, [answer(of, each.name, each.at, each.usage, **same) for each in session.requests])
    events = [event | same for event in session.events()]
    store(running, events[:1])
    assert performed(running, configuration, session=of).missing == 2
    fill()
    assert rows() == {1: "otlp", 2: "transcript", 3: "transcript"}
    done = performed(running, configuration, session=of)
    assert (done.missing, done.filled, done.differing, done.unexplained) == (0, 2, 0, 0)
    store(running, events[:1])  # again
    assert rows() == {1: "otlp", 2: "transcript", 3: "transcript"}
    store(running, events[1:2])
    assert rows() == {1: "otlp", 2: "otlp", 3: "transcript"}
    fill()
    assert rows() == {1: "otlp", 2: "otlp", 3: "transcript"}
    store(running, events[2:])
    assert rows() == {1: "otlp", 2: "otlp", 3: "otlp"}
    fill()
    assert performed(running, configuration, session=of).count("both") == 3


def test_a_line_without_ids_of_request_and_line_is_filled_in_and_missing_no_longer(running, configuration, of):
    configuration.session(of, [answer(of, of[:8], NOW - 5 * DAY, Usage(input=3), request_id="") | {"uuid": ""}])
    assert performed(running, configuration, session=of).missing == 1
    assert backfill.fill(running.client, files.machine(SECRET), 0, "").requests >= 1
    done = performed(running, configuration, session=of)
    assert (done.missing, done.filled, done.clean) == (0, 1, True)
    coverage = "SELECT only_transcript, filled FROM telemetry.session_audits FINAL WHERE session_id = {of:String}"
    performed(running, configuration)
    assert running.query(coverage, of=of) == [[1, 1]]


def test_requests_without_ids_are_matched_by_their_tokens_and_time(running, configuration, of):
    """Also equal ones, as often as they are there on both sides."""
    same = Usage(input=5, output=5)
    requests = [Request(f"{of[:8]}{n}", NOW - 5 * DAY + n * 100, same, has_id=False, number=n) for n in range(5)]
    requests[2].in_telemetry = False
    requests[4].in_transcript = False
    done, found = reasons(running, configuration, Session(of, requests))
    assert {side: sum(counts.values()) for side, counts in found.items()} == {"both": 3, "telemetry": 1, "transcript": 1}
    assert named(done, "transcript", of) == {f"msg_{requests[2].name:0>12}"}


def test_what_is_no_pair_for_the_audit_is_filled_in(running, configuration, of):
    """Without ids, equal requests 200 s apart are two: backfill took them for one, and the audit said for ever that it would fill it in."""
    same = Usage(input=5, output=5)
    requests = [Request(f"{of[:8]}{n}", NOW - 5 * DAY + n * 200, same, has_id=False, number=n) for n in range(2)]
    requests[0].in_transcript = requests[1].in_telemetry = False
    _, found = reasons(running, configuration, Session(of, requests))
    assert {side: sum(counts.values()) for side, counts in found.items()} == {"both": 0, "telemetry": 1, "transcript": 1}
    assert len(running.query(f"SELECT message_id FROM telemetry.unreported_requests WHERE session_id = '{of}'")) == 1


def test_requests_without_ids_are_matched_under_a_providers_name_of_the_model(running, configuration, of):
    """Bedrock's events have the name that was asked for, transcripts the one that answered."""
    at = NOW - 5 * DAY
    configuration.session(of, [prompt(of, "p", at), answer(of, of[:8], at + 1, Usage(input=3, output=5), request_id="")])
    [event] = Session(of, [Request(of[:8], at + 1, Usage(input=3, output=5), has_id=False)]).events()
    store(running, [event | {"model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0"}])
    assert sets(performed(running, configuration, session=of), of) == {
        "both": Counter({(of, ""): 1}), "telemetry": Counter(), "transcript": Counter(),
    }  # fmt: skip
    assert not running.query(f"SELECT message_id FROM telemetry.unreported_requests WHERE session_id = '{of}'")  # nor filled in


def test_equal_requests_with_other_ids_are_not_the_same(running, configuration, of):
    same = Usage(input=5, output=5)
    requests = [Request(f"{of[:8]}{n}", NOW - 5 * DAY + n, same, in_telemetry=n == 0, in_transcript=n == 1, number=n) for n in range(2)]
    _, found = reasons(running, configuration, Session(of, requests))
    assert {side: sum(counts.values()) for side, counts in found.items()} == {"both": 0, "telemetry": 1, "transcript": 1}


def test_several_attempts_that_the_event_does_not_tell_of_are_said_so(running, configuration, of):
    attempts = [{"input_tokens": 3, "output_tokens": 1}, {"input_tokens": 4, "output_tokens": 30}]
    line = answer(of, f"{of[:8]}1", NOW - 5 * DAY, {**Usage(input=4, output=30).wire(), "iterations": attempts})
    configuration.session(of, [line])
    store(running, Session(of, [Request(f"{of[:8]}1", NOW - 5 * DAY, Usage(input=4, output=30))]).events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["both"] == Counter({(of, "billed for several attempts"): 1})
    assert [row["transcript_tokens"]["input"] for row in done.rows] == [7]
    assert "in both, and different: 1 billed for several attempts (" in summary.text(done)


def test_a_transcript_that_ends_within_an_answer_has_only_a_placeholder_of_its_tokens(running, configuration, of):
    """For a minute it is not yet written; then it will not be."""
    at = NOW - 5 * DAY
    configuration.session(of, [prompt(of, "p", at), answer(of, of[:8], at + 1, Usage(input=4, output=1), stop_reason=None)])
    store(running, Session(of, [Request(of[:8], at + 2, Usage(input=4, output=300))]).events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["both"] == Counter({(of, "last line not written"): 1})
    assert (done.pending, done.differing, done.clean) == (0, 1, False)
    assert "in both, and different: 1 last line not written (" in summary.text(done)
