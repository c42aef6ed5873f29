"""What is read from transcripts, by the real engine into a real server: each request once, as it was billed.

Tests that are called after a pitfall belong to the row of that number in docs/pitfalls.md.
"""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from sp_telemetry.transcripts import summary
from tests.client.script import Usage
from tests.recordings.reading import Recording, recordings
from tests.secrets_search import files
from tests.server import Server
from tests.store.audited import performed
from tests.transcripts import START, Configuration, answer, identifier, line, prompt, touch_later, write

AGENT = "a182b7b8cfcd07463"
TOKENS = "input_tokens, output_tokens, cache_read_tokens, cache_creation_5m_tokens, cache_creation_1h_tokens"


@pytest.fixture
def name(session: str) -> str:
    """Begins the ids of this test's requests."""
    return session[:8]


def requests(running: Server, name: str, columns: str = TOKENS) -> list[list[Any]]:
    """`columns` of each request whose id begins with `name`, in order of id and attempt."""
    where = " OR ".join(f"startsWith(trimLeft(substring({each}, 5), '0'), {{name:String}})" for each in ("message_id", "request_id"))
    sql = f"SELECT {columns} FROM telemetry.transcript_requests WHERE {where} ORDER BY message_id, request_id, attempt"
    return running.query(sql, name=name.lstrip("0"))


def audited(running: Server, configuration: Configuration, session: str) -> str:
    """What an audit of the session says to a person."""
    return summary.text(performed(running, configuration, session=session, start="2026-11-01"))


FULL = Usage(input=4, output=300, cache_read=1000, cache_write_5m=50, cache_write_1h=7)
ROW = [4, 300, 1000, 50, 7]


def test_pitfall_01_a_request_in_several_lines_is_one_request(running, configuration, session, name):
    configuration.session(session, [
        prompt(session, "p", START),
        *(answer(session, f"{name}a", START + block, FULL, block=block) for block in range(3)),
        # some versions write no requestId, and some write it not in each line
        *(answer(session, f"{name}b", START + 5 + block, FULL, block=block, request_id="") for block in range(2)),
        answer(session, f"{name}c", START + 8, FULL, block=0, request_id=""),
        answer(session, f"{name}c", START + 9, FULL, block=1),
        answer(session, f"{name}d", START + 10, FULL, message_id=""),
    ])  # fmt: skip
    assert configuration.bring(running.client).new == 1
    assert requests(running, name) == [ROW] * 4
    assert [[bool(row[0]), bool(row[1])] for row in requests(running, name, "message_id != '', request_id != ''")] == [
        [False, True], [True, True], [True, False], [True, True],
    ]  # fmt: skip


def test_pitfall_02_the_placeholder_of_the_first_line_does_not_count(running, configuration, session, name):
    early = {**FULL.wire(), "output_tokens": 1, "cache_read_input_tokens": 999}
    configuration.session(session, [
        answer(session, f"{name}a", START, early, block=0, stop_reason=None),
        answer(session, f"{name}a", START + 1, FULL, block=1),
        # the last line is not always the fullest
        answer(session, f"{name}b", START + 2, FULL, block=0),
        answer(session, f"{name}b", START + 3, early, block=1, stop_reason=None),
        # of equal ones the last: its uuid is the event's
        *(answer(session, f"{name}c", START + 4 + block, FULL, block=block) for block in range(3)),
    ])  # fmt: skip
    configuration.bring(running.client)
    assert requests(running, name) == [ROW] * 3  # each line whole: no cache_read of the other
    assert requests(running, name, "message_uuid")[2] == [identifier(session, f"{name}c", 2)]


def test_pitfall_03_history_that_is_repeated_in_a_file_counts_once(running, configuration, session, name):
    lines = [prompt(session, "p", START), *(answer(session, f"{name}{n}", START + n, FULL) for n in range(3))]
    beside = [each | {"isSidechain": True} for each in lines]  # a side question takes its history along
    configuration.session(session, [*lines, *lines, *beside, answer(session, f"{name}9", START + 9, FULL, isSidechain=True)])
    configuration.bring(running.client)
    assert requests(running, name, "agent_id, copies") == [["", 1], ["", 1], ["", 1], ["sidechain", 1]]
    counted = "SELECT sum(lines), sum(repeated_lines) FROM telemetry.transcript_copies FINAL WHERE session_id = {session:String}"
    assert running.query(counted, session=session) == [[10, 6]]
    assert "replays: 0 requests in several transcripts, 6 lines repeated; counted once" in audited(running, configuration, session)


def test_pitfall_03_a_copied_history_is_credited_to_the_session_that_first_had_it(running, configuration, session, name):
    original = [prompt(session, "p", START), *(answer(session, f"{name}{n}", START + n, FULL) for n in range(3))]
    fork = identifier(session, "fork")
    own = answer(fork, f"{name}7", START + 70, FULL)
    queued = {"type": "queue-operation", "operation": "enqueue", "timestamp": own["timestamp"][:-4] + "000Z", "sessionId": fork}
    # in the order in which the real client writes them; the fork's file comes first by name, so order of reading does not decide
    configuration.session(fork, [queued, *(each | {"sessionId": fork} for each in original), own], project="-a")
    configuration.session(session, [*original, answer(session, f"{name}5", START + 50, FULL)], project="-b")
    configuration.bring(running.client)
    assert requests(running, name, "session_id, copies") == [[session, 2]] * 3 + [[session, 1], [fork, 1]]
    assert "replays: 3 requests in several transcripts, 0 lines repeated; counted once" in audited(running, configuration, session)


@pytest.mark.parametrize("first", ["the fork", "the original"])
def test_pitfall_03_whichever_file_is_read_first(running, configuration, session, name, first):
    original = [prompt(session, "p", START), answer(session, f"{name}1", START + 1, FULL)]
    fork = identifier(session, "fork")
    queued = {"type": "queue-operation", "operation": "enqueue", "timestamp": "2026-11-16T09:01:00.000Z", "sessionId": fork}
    writing = [lambda: configuration.session(fork, [queued, *(each | {"sessionId": fork} for each in original)]),
               lambda: configuration.session(session, original)]  # fmt: skip
    for write_one in writing if first == "the fork" else reversed(writing):
        write_one()
        assert configuration.bring(running.client).new == 1
    assert requests(running, name, "session_id, copies") == [[session, 2]]


def test_pitfall_03_a_file_that_begins_anew_takes_nothing_away(running, configuration, session, name):
    path = configuration.session(session, [answer(session, f"{name}{n}", START + n, FULL) for n in range(5)])
    configuration.bring(running.client)
    write(path, [answer(session, f"{name}8", START + 8, FULL)])  # rotated: shorter than before, with other lines
    assert configuration.bring(running.client).new == 1
    assert requests(running, name) == [ROW] * 6


def test_pitfall_04_every_attempt_that_was_billed_counts(running, configuration, session, name):
    attempts = [
        {"type": "message", "model": "claude-opus-4-5", "input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 5,
         "cache_creation_input_tokens": 8, "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 8}},
        {"type": "message", "input_tokens": 11, "output_tokens": 40, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0},
    ]  # fmt: skip
    top = {**Usage(input=11, output=40).wire(), "iterations": attempts}
    once = {**FULL.wire(), "iterations": [{"type": "message", "input_tokens": 4, "output_tokens": 300}]}
    configuration.session(session, [answer(session, f"{name}a", START, top), answer(session, f"{name}b", START + 1, once)])
    configuration.bring(running.client)
    assert requests(running, name, f"attempt, attempts, model, {TOKENS}") == [
        [0, 2, "claude-opus-4-5", 10, 2, 5, 0, 8],
        [1, 2, "claude-sonnet-4-5", 11, 40, 0, 0, 0],
        [0, 1, "claude-sonnet-4-5", *ROW],
    ]


def test_pitfall_05_a_subagent_belongs_to_its_session_and_prompt_and_may_end_later(running, configuration, session, name):
    configuration.session(session, [
        prompt(session, "first", START), answer(session, f"{name}1", START + 1, FULL, stop_reason="tool_use"),
        prompt(session, "second", START + 60), answer(session, f"{name}2", START + 61, FULL),
    ])  # fmt: skip
    agent = [prompt(session, "first", START + 2, isSidechain=True, agentId=AGENT),
             answer(session, f"{name}3", START + 3, FULL, model="claude-haiku-4-5", isSidechain=True, agentId=AGENT)]  # fmt: skip
    path = configuration.agent(session, AGENT, agent)
    configuration.bring(running.client)
    # it goes on after its session has ended
    write(path, [*agent, answer(session, f"{name}4", START + 90, FULL, model="claude-haiku-4-5", isSidechain=True, agentId=AGENT)])
    configuration.bring(running.client)
    first, second = identifier(session, "first"), identifier(session, "second")
    assert requests(running, name, "session_id, prompt_id, agent_id, model") == [
        [session, first, "", "claude-sonnet-4-5"],
        [session, second, "", "claude-sonnet-4-5"],
        [session, first, AGENT, "claude-haiku-4-5"],
        [session, first, AGENT, "claude-haiku-4-5"],
    ]


def test_pitfall_06_what_no_model_answered_is_no_request(running, configuration, session, name):
    nothing = Usage()
    configuration.session(session, [
        answer(session, f"{name}1", START, nothing, model="<synthetic>", request_id=""),
        answer(session, f"{name}2", START + 1, FULL),
        answer(session, f"{name}3", START + 2, FULL, model="<synthetic>", isApiErrorMessage=True),
    ])  # fmt: skip
    configuration.bring(running.client)
    assert requests(running, name, "message_id") == [[f"msg_{name + '2':0>12}"]]


def test_pitfall_07_a_last_line_that_is_being_written_is_named_and_read_when_it_is_whole(running, configuration, session, name):
    whole = [prompt(session, "p", START), answer(session, f"{name}1", START + 1, FULL)]
    last = [answer(session, f"{name}2", START + 2, {**FULL.wire(), "output_tokens": 1}, stop_reason=None, block=0),
            answer(session, f"{name}2", START + 3, FULL, block=1)]  # fmt: skip
    path = configuration.session(session, whole + last)
    text = path.read_bytes()
    path.write_bytes(text[:-40])
    read = configuration.bring(running.client)
    assert read.lines["cut off in the middle"] == 1
    # an audit says of it: last line not written
    assert requests(running, name, "output_tokens, stop_reason") == [[300, "end_turn"], [1, ""]]
    path.write_bytes(text)
    read = configuration.bring(running.client)
    assert (read.new, read.lines["cut off in the middle"]) == (1, 0)
    assert requests(running, name, "output_tokens, stop_reason") == [[300, "end_turn"], [300, "end_turn"]]


def test_a_second_run_reads_only_what_changed_and_starts_no_engine(running, configuration, session, name, monkeypatch):
    first = configuration.session(session, [answer(session, f"{name}1", START, FULL)])
    other = identifier(session, "other")
    configuration.session(other, [answer(other, f"{name}2", START, FULL)])
    assert configuration.bring(running.client).new == 2
    with monkeypatch.context() as patched:
        patched.setattr("sp_telemetry.transcripts.reading.scratch", None)  # calling it would fail
        read = configuration.bring(running.client)
        assert (read.files, read.new, read.size, read.changed) == (2, 0, 0, False)
    touch_later(first)
    read = configuration.bring(running.client)
    assert (read.new, read.size) == (1, first.stat().st_size)
    first.unlink()
    read = configuration.bring(running.client)
    assert (read.files, read.new, read.gone, read.changed) == (1, 0, 1, True)
    assert configuration.bring(running.client).changed is False
    assert requests(running, name) == [ROW] * 2  # what was read stays, also when Claude Code deletes the file


def test_a_new_reader_reads_everything_again(running, configuration, session, name, monkeypatch):
    configuration.session(session, [answer(session, f"{name}1", START, FULL)])
    configuration.bring(running.client)
    monkeypatch.setattr("sp_telemetry.transcripts.reading.READER", 60000)
    assert configuration.bring(running.client).new == 1


def test_the_policy_holds_for_transcripts(running, configuration, session, name):
    """No text of a conversation, no path of a home, no key in a name, on no disk: as for events."""
    planted = "sk-ant-" + "api03-" + identifier(session, "key").replace("-", "") * 2
    secret = answer(
        session, f"{name}1", START, FULL, text=f"PLANTED-{planted}", model=f"claude-{planted}", cwd=f"/home/planted-person/{planted}/book",
        gitBranch=f"feature/{planted}", version=planted, entrypoint=planted,
    )  # fmt: skip
    configuration.session(session, [prompt(session, "p", START, text=f"PLANTED-{planted}"), secret], project="-home-planted-person-book")
    configuration.bring(running.client)
    assert requests(running, name, "model, project, branch, directory") == [
        ["claude-<anthropic-key>", "book", "feature/<anthropic-key>", "~/<anthropic-key>/book"]
    ]
    for table in ("transcript_copies", "transcript_files", "session_links"):
        text = b"".join(running.client.stream(f"SELECT * FROM telemetry.{table} FORMAT TSVRaw", "TSVRaw"))
        for never in (planted, "PLANTED", "planted-person", str(configuration.folder)):
            assert never.encode() not in text, (table, never)
    stored = list(files(running.home.store))
    assert stored
    assert [place for place, content in stored if planted.encode() in content or b"planted-person" in content] == []


def test_an_identifier_that_is_none_of_claude_codes_is_hashed_as_in_events(running, configuration, session):
    """Some providers' ids have another form; both sides must hash them alike, or nothing would match."""
    configuration.session(session, [answer(session, "1", START, FULL, message_id="msg_bdrk_01abc", request_id="0a1b/odd")])
    configuration.agent(session, "aside-1", [answer(session, "2", START, FULL, isSidechain=True, agentId="aside-1")])
    configuration.bring(running.client)
    [[message_id, request_id]] = running.query(
        "SELECT message_id, request_id FROM telemetry.transcript_requests WHERE session_id = {session:String} AND agent_id = ''",
        session=session,
    )
    assert len(message_id) == len(request_id) == 64
    from tests.server import JSON, as_json, log_request

    event = {"name": "api_request", "time_ns": int(START * 1e9), "session.id": session, "event.sequence": 0, "request_id": "0a1b/odd"}
    running.stored("logs", as_json(log_request([event | {"agent_id": "aside-1"}])), JSON)
    stored = "SELECT request_id, attributes['agent_id'] FROM telemetry.telemetry_events WHERE session_id = {session:String}"
    [[_, agent_id]] = running.query(stored, session=session)
    assert running.query(stored, session=session) == [[request_id, agent_id]] and len(agent_id) == 64
    for table in ("transcript_files", "transcript_copies"):
        sql = f"SELECT agent_id FROM telemetry.{table} FINAL WHERE session_id = {{session:String}} ORDER BY agent_id"
        assert running.query(sql, session=session) == [[""], [agent_id]]


def _queued(of: str, at: float) -> dict[str, Any]:
    return {"type": "queue-operation", "operation": "enqueue", "timestamp": line("user", of, at)["timestamp"], "sessionId": of}


def test_pitfall_26_sessions_that_go_on_in_another_are_linked_to_the_first(running, configuration, session):
    """As 2.1.330 writes them: a fork copies the history, /clear begins a file of its own in the same folder."""
    from sp_telemetry.transcripts import links

    fork, again, cleared, other = (identifier(session, name) for name in ("fork", "fork of the fork", "cleared", "other folder"))
    folder = f"-home-ada-{session[:8]}"

    def clear(of: str, at: float) -> list[dict[str, Any]]:
        caveat = line("user", of, at + 0.1, isMeta=True, message={"role": "user", "content": "<local-command-caveat>…"})
        command = {"role": "user", "content": "<command-name>/clear</command-name>\n <command-message>clear</command-message>"}
        return [{"type": "mode", "mode": "normal", "sessionId": of}, caveat, line("user", of, at, message=command)]

    unique = session[:6]
    first = [prompt(session, "p", START), answer(session, f"{unique}a1", START + 1, FULL)]
    second = answer(fork, f"{unique}b2", START + 100, FULL)
    configuration.session(session, first, folder)
    configuration.session(fork, [_queued(fork, START + 99), *(each | {"sessionId": fork} for each in first), second], folder)
    copied = [each | {"sessionId": again} for each in (*first, second)]
    configuration.session(again, [_queued(again, START + 199), *copied, answer(again, f"{unique}c3", START + 200, FULL)], folder)
    went_on = [prompt(cleared, "p", START + 310), answer(cleared, f"{unique}d4", START + 311, FULL)]
    configuration.session(cleared, [*clear(cleared, START + 300), *went_on], folder)
    configuration.session(other, [*clear(other, START + 400), answer(other, f"{unique}e5", START + 411, FULL)], folder + "-elsewhere")
    configuration.bring(running.client)
    links.link(running.client)
    found = """SELECT session_id, kind, follows, work_id FROM telemetry.session_links FINAL
        WHERE work_id = {session:String} ORDER BY kind, session_id"""
    assert running.query(found, session=session) == sorted([
        [fork, "forked", session, session],
        [again, "forked", fork, session],
        [cleared, "cleared", again, session],
    ], key=lambda row: (row[1], row[0]))  # fmt: skip
    assert running.query("SELECT count() FROM telemetry.session_links FINAL WHERE session_id = {other:String}", other=other) == [[0]]


def _aside(kind: str, of: str, **more: Any) -> dict[str, Any]:
    """What the client notes between messages, and a fork leaves out."""
    return {"type": kind, "sessionId": of, **more}


@pytest.mark.parametrize("nth", range(4))  # what can't be told apart would be right in every second
@pytest.mark.parametrize("shape", ["turns", "queued", "one turn"])
def test_a_fork_of_a_session_in_a_terminal_follows_it(running, configuration, session, name, shape, nth):
    """As 2.1.197 and 2.1.330 write them without -p: nothing says where a fork's history ends, but only the original has notes within it."""
    from sp_telemetry.transcripts import links

    fork = identifier(session, "fork")
    turns = [
        [prompt(session, f"p{turn}", START + 10 * turn), answer(session, f"{name}{turn}", START + 10 * turn + 1, FULL)]
        for turn in range(1 if shape == "one turn" else 3)
    ]
    original = [_aside("mode", session, mode="normal"), _aside("file-history-snapshot", session, messageId="m")]
    for asked, answered in turns:
        original += [asked, *([_queued(session, START + 15)] if shape == "queued" else []), answered]
        original.append(_aside("last-prompt", session, lastPrompt="…"))
    history = [each | {"sessionId": fork} for turn in turns for each in turn]
    own = [prompt(fork, "p9", START + 500), answer(fork, f"{name}9", START + 501, FULL)]
    configuration.session(session, original)
    configuration.session(fork, [_aside("mode", fork, mode="normal"), *history, *own])
    configuration.bring(running.client)
    links.link(running.client)
    assert requests(running, name, "session_id") == [*([session] for _ in turns), [fork]]
    found = "SELECT session_id, kind, follows FROM telemetry.session_links FINAL WHERE session_id IN ({a:String}, {b:String})"
    assert running.query(found, a=session, b=fork) == [[fork, "forked", session]]


def test_what_was_cleared_follows_who_asked_last_before_it(running, configuration, session):
    """Not who ended last, for that one may be resumed; and a link that is not found any more is none."""
    from sp_telemetry.transcripts import links

    first, stranger, cleared = (identifier(session, name) for name in ("first", "stranger", "cleared"))
    folder, unique = f"-home-ada-{session[:8]}", session[:6]

    def follows() -> list[list[Any]]:
        configuration.bring(running.client)
        links.link(running.client)
        found = "SELECT kind, follows, work_id FROM telemetry.session_links FINAL WHERE session_id = {of:String}"
        return running.query(found, of=cleared)

    command = {"role": "user", "content": "<command-name>/clear</command-name>\n <command-message>clear</command-message>"}
    went_on = [prompt(cleared, "p", START + 310), answer(cleared, f"{unique}c", START + 311, FULL)]
    begun = [line("user", cleared, START + 300, message=command), *went_on]
    configuration.session(stranger, [prompt(stranger, "p", START), answer(stranger, f"{unique}s", START + 1, FULL)], folder)
    configuration.session(cleared, begun, folder)
    assert follows() == [["cleared", stranger, stranger]]
    lines = [prompt(first, "p", START + 50), answer(first, f"{unique}a", START + 51, FULL)]
    configuration.session(first, lines, folder)
    assert follows() == [["cleared", first, first]]
    resumed = [prompt(first, "q", START + 900), answer(first, f"{unique}b", START + 901, FULL)]
    configuration.session(first, [*lines, *resumed], folder)
    assert follows() == [["cleared", first, first]]
    configuration.session(cleared, [*begun, _queued(cleared, START + 1500)], folder)  # what is queued later does not begin it
    assert follows() == [["cleared", first, first]]
    configuration.session(cleared, went_on, folder)
    assert follows() == [["", "", cleared]]


@pytest.mark.parametrize("recording", recordings(), ids=lambda recording: recording.name)
def test_the_real_clients_transcripts_say_what_the_api_answered(running, tmp_path, recording: Recording):
    """Each answer of the recorded API with its usage and its session, subagents' included, and nothing else."""
    shutil.copytree(recording.directory / "transcripts", tmp_path / "projects")
    read = Configuration(tmp_path).bring(running.client)
    assert (read.new > 0, read.problems) == (True, [])
    answered = [each for each in recording.about["api_log"] if each["status"] == 200]
    wanted = {
        each["request_id"]: [
            each["session_id"], each["agent_id"] or "", each["model"], each["usage"]["input_tokens"], each["usage"]["output_tokens"],
            each["usage"]["cache_read_input_tokens"], each["usage"]["cache_creation_input_tokens"], recording.about["client_version"],
        ]
        for each in answered if each["kind"] != "auxiliary"
    }  # fmt: skip
    sessions = "[" + ",".join(f"'{each['session_id']}'" for each in recording.about["sessions"]) + "]"
    sql = """SELECT
            request_id, session_id, agent_id, model, input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens, service_version
        FROM telemetry.transcript_requests WHERE has({sessions:Array(String)}, session_id)"""
    assert {row[0]: row[1:] for row in running.query(sql, sessions=sessions)} == wanted
    prompts = "SELECT count() FROM telemetry.transcript_requests WHERE has({sessions:Array(String)}, session_id) AND prompt_id = ''"
    assert running.query(prompts, sessions=sessions) == [[0]]
