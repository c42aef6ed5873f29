"""The audit's reasons, on the real engine behind a real server."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from sp_telemetry.transcripts import backfill, files, summary
from sp_telemetry.transcripts.audit import refresh
from tests.client.script import Usage
from tests.store.audited import (
    DAY,
    NOW,
    Request,
    Session,
    audited_server,
    made,
    named,
    of,
    performed,
    reasons,
    running,
    sets,
    store,
)
from tests.transcripts import SECRET, answer, identifier, prompt

__all__ = ["of", "running"]  # fixtures


def test_a_clean_session(running, configuration, of):
    done, found = reasons(running, configuration, made(of, NOW - 5 * DAY, 4, copies=2))
    assert found == {"both": Counter({"": 4}), "telemetry": Counter(), "transcript": Counter()}
    assert (done.missing, done.unexplained, done.differing) == (0, 0, 0)
    assert summary.line(done).startswith("4 of 4 requests in both · 0 missing · cost differs by")


def test_pitfall_08_auxiliary_requests_only_in_telemetry_are_clean(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 5)
    for request in session.requests[3:]:
        request.in_transcript, request.source = False, "generate_session_title"
    done, found = reasons(running, configuration, session)
    assert found == {"both": Counter({"": 3}), "telemetry": Counter(auxiliary=2), "transcript": Counter()}
    assert not (done.missing or done.unexplained)
    assert "2 auxiliary only in telemetry · 0 missing" in summary.line(done)


def test_pitfall_16_a_request_for_what_nobody_knows_is_told_apart_from_auxiliary_ones(running, configuration, of):
    """A later version's word: as a hash at `strict`, as it is at the other levels."""
    session = made(of, NOW - 5 * DAY, 3)
    session.requests[1].in_transcript, session.requests[1].source = False, "a_word_of_tomorrow"
    done, found = reasons(running, configuration, session)
    assert found["telemetry"] == Counter({"of an unknown kind": 1})
    assert summary.line(done).startswith("2 of 2 requests in both · 1 of an unknown kind only in telemetry · 0 missing · ")
    assert (done.unexplained, done.missing, f"session {of}" in summary.text(done)) == (0, 0, True)


def test_a_request_of_the_conversation_that_its_transcript_lacks_is_no_auxiliary_one(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 3)
    session.requests[1].in_transcript = False
    done, found = reasons(running, configuration, session)
    assert found["telemetry"] == Counter(unknown=1)
    assert not done.clean


def test_a_request_that_a_damaged_transcript_may_have_held(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 3)
    session.requests[1].in_transcript = False
    configuration.session(of, [*session.transcript(), b'{"type":"assistant","message":{"usage":{"input_tokens":9'])
    store(running, session.events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["telemetry"] == Counter({(of, "transcript unreadable"): 1})
    text = summary.text(done)
    assert "only in telemetry: 1 transcript unreadable (" in text and "\nlines left out: 1 cut off in the middle" in text


def test_what_nothing_explains_is_unknown(running, configuration, of):
    """Its prompt has events, the server ran, no number is missing, and its process told of what came later."""
    session = made(of, NOW - 5 * DAY, 4)
    session.requests[1].in_telemetry = False
    for request in session.requests[2:]:
        request.number -= 1
    done, found = reasons(running, configuration, session)
    assert (found["transcript"], done.missing, done.numbers["gaps"]) == (Counter(unknown=1), 1, 0)
    assert "only in transcripts: 1 unknown (no reason was found)" in summary.text(done)


def test_without_a_transcript_there_is_nothing_to_hold_against(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 3)
    for request in session.requests:
        request.in_transcript = False
    done, found = reasons(running, configuration, session)
    assert found == {"both": Counter(), "telemetry": Counter({"transcript deleted": 3}), "transcript": Counter()}
    assert done.clean


def test_what_came_after_the_last_reading_of_a_deleted_transcript(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 4)
    early = Session(of, session.requests[:2])
    path = configuration.session(of, early.transcript())
    configuration.bring(running.client)
    path.unlink()
    store(running, session.events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["both"] == Counter({(of, ""): 2})
    assert sets(done, of)["telemetry"] == Counter({(of, "transcript deleted"): 2})


def test_a_transcript_whose_folder_was_renamed_is_not_deleted(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 4)
    path = configuration.session(of, Session(of, session.requests[:2]).transcript())
    configuration.bring(running.client)
    path.parent.rename(path.parent.with_name("-home-ada-tome"))
    store(running, session.events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["telemetry"] == Counter({(of, "unknown"): 2})
    assert not done.clean


def test_a_transcript_under_another_name_is_no_replay(running, configuration, of):
    path = configuration.session(of, made(of, NOW - 5 * DAY, 3).transcript())
    configuration.bring(running.client)
    path.parent.rename(path.parent.with_name("-home-ada-tome"))
    assert performed(running, configuration, session=of).numbers["replayed_requests"] == 0


def test_a_deleted_transcript_of_a_subagent_explains_only_its_own_requests(running, configuration, of):
    agent, at = "a182b7b8cfcd07463", NOW - 5 * DAY
    session = made(of, at, 3)
    configuration.session(of, Session(of, session.requests[:2]).transcript())
    path = configuration.agent(of, agent, [answer(of, f"{of[:8]}9", at + 30, isSidechain=True, agentId=agent)])
    configuration.bring(running.client)
    path.unlink()
    of_agent = Session(of, [Request(f"{of[:8]}8", at + 400, Usage(input=1, output=1), number=3)]).events()
    store(running, session.events() + [event | {"agent_id": agent} for event in of_agent])
    found = sets(performed(running, configuration, session=of), of)["telemetry"]
    assert found == Counter({(of, "unknown"): 1, (of, "transcript deleted"): 1})


def test_telemetry_off(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 6)
    for request in session.requests[2:4]:  # a process of its own, with prompts of its own, and no event
        request.in_telemetry, request.prompt = False, f"q{request.number}"
    session.requests[4].number, session.requests[5].number = 0, 1  # the next process begins its numbers again
    done, found = reasons(running, configuration, session)
    assert found["transcript"] == Counter({"telemetry off then": 2})
    assert (done.missing, done.clean) == (2, False)
    assert "2 missing" in summary.line(done)
    assert f"session {of}" in summary.text(done)


def test_server_down(running, configuration, of):
    session = made(of, NOW - 8 * DAY - 150, 8)  # the server ended 150 s later
    for request in session.requests[2:]:
        request.in_telemetry = False
    _, found = reasons(running, configuration, session)
    assert found["both"] == Counter({"": 2})
    # the third is from 30 s before the end: its event was lost in another way
    assert found["transcript"] == Counter({"server down then": 5, "last events lost": 1})


def test_a_gap_in_the_numbers(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 6)
    for request in session.requests[2:4]:
        request.in_telemetry = False
    done, found = reasons(running, configuration, session)
    assert found["transcript"] == Counter({"sequence gap": 2})
    assert (done.numbers["gaps"], done.numbers["expected"]) == (2, 6)


def test_each_missing_number_is_listed_with_its_process_and_the_times_around_it(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 12)
    for request, number in zip(session.requests, (0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6), strict=True):
        request.number = number
    for lost in (2, 3, 5, 9):  # of the first process 2 and 3, of the second 0 and 4
        session.requests[lost].in_telemetry = False
    done, _ = reasons(running, configuration, session)

    def at(index: int) -> str:
        event = session.requests[index].at + 0.003
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event))

    listed = [(g["process"], g["first"], g["last"], g["missing"], str(g["after"])[:19], str(g["before"])[:19]) for g in done.gaps]
    assert listed == [(1, 2, 3, 2, at(1), at(4)), (2, 0, 0, 1, at(4), at(6)), (2, 4, 4, 1, at(8), at(10))]
    assert sum(gap["missing"] for gap in done.gaps) == done.numbers["gaps"]
    assert f"  session {of}, process 1: 2 to 3, between {at(1)} and {at(4)} UTC" in summary.text(done)


def test_numbers_of_two_processes_at_once_are_counted_and_listed_without_telling_them_apart(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 9)
    for request, number in zip(session.requests, (0, 0, 1, 1, 2, 3, 2, 4, 4), strict=True):  # one of them lacks 3
        request.number = number
    done, _ = reasons(running, configuration, session)
    assert [(gap["process"], gap["first"], gap["last"], gap["missing"]) for gap in done.gaps] == [(0, 3, 3, 1)]
    assert done.numbers["gaps"] == 1


def test_what_has_not_changed_is_not_matched_again(running, configuration, of):
    def audits() -> int:
        return running.query("SELECT uniqExact(audited_at) FROM telemetry.audit_findings WHERE session_id = {of:String}", of=of)[0][0]

    session = made(of, NOW - 5 * DAY, 3)
    late = session.requests[2]
    late.in_telemetry = False
    done, _ = reasons(running, configuration, session)
    assert (done.count("both"), done.missing, audits()) == (2, 1, 1)
    again = performed(running, configuration, session=of)
    assert (again.rows, audits()) == (done.rows, 1)
    late.in_telemetry = True
    store(running, Session(of, [late]).events())  # an event arrives
    assert (performed(running, configuration, session=of).count("both"), audits()) == (3, 2)
    configuration.session(of, session.transcript()[:2])  # a transcript is another one
    assert (performed(running, configuration, session=of).count("both"), audits()) == (3, 3)
    running.run("INSERT INTO telemetry.model_prices SELECT * EXCEPT (price) REPLACE (now64(9) AS loaded_at) FROM telemetry.prices")
    performed(running, configuration, session=of)
    assert audits() == 4
    performed(running, configuration, session=of, start="2026-01-01")  # another question
    assert audits() == 5


def test_a_version_that_is_known_to_lose_events(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 4)
    session.requests[3].in_telemetry = False  # the last: no number tells of it
    assert reasons(running, configuration, session)[1]["transcript"] == Counter({"last events lost": 1})
    assert reasons(running, configuration, session, loses=True)[1]["transcript"] == Counter({"version known to misreport": 1})


def test_an_answer_that_was_broken_off_is_told_by_no_event(running, configuration, of):
    """Seen on both versions: somebody interrupts an answer, and its line is left without an end; or the budget is spent with it, and of
    the last request only the decision about its tool is told."""
    session = made(of, NOW - 5 * DAY, 4)
    broken, spent = session.requests[1], session.requests[3]
    broken.in_telemetry = spent.in_telemetry = False
    session.requests[2].number, spent.number = 1, 3  # what is not told has no number
    lines = session.transcript()
    lines[3]["message"]["stop_reason"] = None
    configuration.session(of, lines)
    tool = {"name": "tool_decision", "time_ns": int(spent.at * 1e9) + 1, "event.sequence": 2, "session.id": of}
    store(running, [*session.events(), tool | {"request_id": f"req_{spent.name:0>12}"}])
    for loses in (False, True):
        done = performed(running, configuration, session=of, loses=loses)
        assert sets(done, of)["transcript"] == Counter({(of, "interrupted"): 2})
    assert (done.missing, done.clean) == (2, False)  # they were billed, and backfill fills in what is known of them


def test_pitfall_13_what_a_killed_client_had_not_sent_is_told_by_the_events_before_it(running, configuration, of):
    """Its last events are lost; the next process of the session begins with 0 again."""
    session = made(of, NOW - 5 * DAY, 5)
    session.requests[2].in_telemetry = False
    session.requests[3].number, session.requests[4].number = 0, 1
    assert reasons(running, configuration, session)[1]["transcript"] == Counter({"last events lost": 1})


def test_what_is_young_is_under_way(running, configuration, of):
    session = Session(of, [Request(f"{of[:8]}1", time.time() - 5, Usage(input=1, output=2), in_telemetry=False)])
    done, found = reasons(running, configuration, session)
    assert found["transcript"] == Counter({"not yet exported": 1})
    assert (done.missing, done.pending, done.clean) == (0, 1, True)
    assert "1 not yet exported · 0 missing" in summary.line(done)


def test_an_answer_of_which_only_the_beginning_is_written_is_under_way_for_a_minute(running, configuration, of):
    """Its event may come first. Then the transcript ends within the answer."""
    at = time.time() - 5
    configuration.session(of, [prompt(of, "p", at), answer(of, of[:8], at + 1, Usage(input=4, output=1), stop_reason=None)])
    store(running, Session(of, [Request(of[:8], at + 2, Usage(input=4, output=300))]).events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["both"] == Counter({(of, "not yet written"): 1})
    assert (done.pending, done.differing, done.clean) == (1, 0, True)


def test_what_is_from_tomorrow_is_not_under_way(running, configuration, of):
    """A clock that was wrong, or a line that lies: what is missing must not wait for that day to be said."""
    requests = [Request(f"{of[:8]}{day}", NOW + day * DAY, Usage(input=1, output=2), in_telemetry=day > 5) for day in (1, 9)]
    requests[1].in_transcript = False
    done, _ = reasons(running, configuration, Session(of, requests))
    assert (done.missing, done.pending, done.unexplained, done.clean) == (1, 0, 1, False)


def test_tokens_that_differ_are_named_request_by_request(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 3)
    configuration.session(of, session.transcript())
    session.requests[1].usage = Usage(input=2, output=99)
    store(running, session.events())
    done = performed(running, configuration, session=of)
    assert sets(done, of)["both"] == Counter({(of, ""): 2, (of, "tokens differ"): 1})
    assert named(done, "both", of) >= {f"req_{session.requests[1].name:0>12}"}
    assert (done.differing, done.clean) == (1, False)


@pytest.mark.parametrize(
    ("said", "differs"), [("claude-opus-5-5", True), ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", False), ("", False)]
)
def test_a_request_under_two_models_is_told(running, configuration, of, said, differs):
    """By the names that they are priced under: a provider has its own, and which model is not said may be any."""
    session = made(of, NOW - 5 * DAY, 3)
    configuration.session(of, session.transcript())
    events = session.events()
    events[1]["model"] = said
    store(running, events)
    done = performed(running, configuration, session=of)
    assert sets(done, of)["both"] == Counter({(of, ""): 2, (of, "models differ"): 1} if differs else {(of, ""): 3})
    assert named(done, "both", of) >= ({f"req_{session.requests[1].name:0>12}"} if differs else set())
    assert done.differing == differs
    assert ("1 with another model" in summary.line(done)) == differs


def test_what_a_backfill_filled_in_before_it_was_killed_is_counted_by_the_next_audit(running, configuration, of):
    """It had no time to count for the coverage under reports, and nothing of the transcripts has changed since."""
    configuration.session(of, made(of, NOW - 5 * DAY, 2).transcript())
    counted = f"SELECT only_transcript, filled FROM telemetry.session_audits FINAL WHERE session_id = '{of}'"
    performed(running, configuration)
    assert running.query(counted) == [[2, 0]]
    backfill.fill(running.client, files.machine(SECRET), NOW - 30 * DAY, "Ada")
    performed(running, configuration)
    assert running.query(counted) == [[2, 2]]


def test_an_answer_without_usage_is_no_request(running, configuration, of):
    at = NOW - 5 * DAY
    unbilled = answer(of, f"{of[:8]}1", at + 60)
    unbilled["message"]["usage"] = None
    elsewhere = answer(of, f"{of[:8]}2", at + 120)  # the word stands in its content only
    elsewhere["message"] |= {"usage": None, "content": [{"type": "tool_use", "input": {"usage": {"input_tokens": 7}}}]}
    configuration.session(of, [prompt(of, "p", at), unbilled, elsewhere, answer(of, f"{of[:8]}3", at + 180, {"input_tokens": 0})])
    done = performed(running, configuration, session=of)
    assert named(done, "transcript", of) == {"req_" + f"{of[:8]}3".zfill(12)}
    assert (done.missing, done.read.lines["not of a transcript"]) == (1, 0)


def test_the_secret_of_the_ids_is_its_own(running, configuration, of):
    """Another machine's secret gives other ids, so two machines that read the same path do not disturb each other."""
    configuration.session(of, made(of, NOW - 5 * DAY, 1).transcript())
    mine, theirs = (files.find(configuration.environ, secret).files[0] for secret in (SECRET, "another"))
    assert mine.file_id != theirs.file_id and mine.folder_id != theirs.folder_id
    assert files.machine(SECRET) != files.machine("another")


def test_counted_after_a_backfill_is_what_an_audit_counts(running, configuration, of):
    """It writes no findings, for nobody asks which requests they are."""
    session = made(of, NOW - 5 * DAY, 6)
    missing, other, surplus, unnamed = session.requests[1:5]
    missing.in_telemetry, surplus.in_transcript, unnamed.has_id = False, False, False
    configuration.session(of, session.transcript())
    other.usage = Usage(input=1000, output=7)
    store(running, session.events())
    alone = configuration.session(identifier(of), made(identifier(of), NOW - 4 * DAY, 2).transcript()).stem
    configuration.bring(running.client)
    both = f"session_id IN ('{of}', '{alone}')"
    counted = f"SELECT * EXCEPT (audited_at) FROM telemetry.session_audits FINAL WHERE {both} ORDER BY session_id = '{of}'"
    findings = f"SELECT count() FROM telemetry.audit_findings WHERE {both}"
    for filled in (0, 2):
        running.run(f"DELETE FROM telemetry.session_audits WHERE {both}")
        before = running.query(findings)
        refresh(running.client, "UTC")
        assert running.query(findings) == before
        by_refresh = running.query(counted)
        performed(running, configuration)
        assert running.query(counted) == by_refresh
        assert [row[3:] for row in by_refresh] == [[0, 0, 2, filled, 0], [4, 1, 1, filled // 2, 1]]
        backfill.fill(running.client, files.machine(SECRET), NOW - 30 * DAY, "Ada")


def test_without_any_event_an_audit_finds_what_it_finds_with_one_of_another_session(tmp_path, configuration, of):
    with audited_server(tmp_path / "silent") as silent:
        session = made(of, NOW - 5 * DAY, 3)
        session.requests[1].has_id = False
        configuration.session(of, session.transcript())
        alone = performed(silent, configuration)
        other = made(identifier(of), NOW - 5 * DAY, 1)
        store(silent, other.events())
        beside = performed(silent, configuration)
        assert (alone.missing, len(named(alone, "transcript", of))) == (3, 3)
        assert sets(alone, of) == sets(beside, of)
        alike = [row | {"transcript_usd": pytest.approx(row["transcript_usd"])} for row in alone.rows]  # a sum's last digit is its order's
        assert [row for row in beside.rows if row["session_id"] == of] == alike
        assert alone.rows[0]["details"] and alone.rows[0]["transcript_tokens"]["input"] == 6
