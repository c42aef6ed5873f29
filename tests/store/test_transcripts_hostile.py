"""Transcripts as hostile input: what can't be read is named, the rest is done, and memory stays within bounds."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sp_telemetry.errors import QueryFailed
from sp_telemetry.transcripts import files, lines, reading, summary
from tests import transcripts
from tests.client.script import Usage
from tests.server import Server
from tests.store.audited import performed
from tests.transcripts import SECRET, START, Configuration, identifier, prompt, write

FULL = Usage(input=4, output=300)
MEMORY_MIB = 500


def answer(session: str, name: str, at: float, usage: Any = FULL, **more: Any) -> dict[str, Any]:
    """Tests share a store, so ids of requests are made of their sessions."""
    return transcripts.answer(session, f"{session[:8]}{name}", at, usage, **more)


def outputs(running: Server, *sessions: str) -> list[int]:
    sql = """SELECT output_tokens FROM telemetry.transcript_requests
        WHERE has({sessions:Array(String)}, session_id) ORDER BY timestamp, output_tokens"""
    return [row[0] for row in running.query(sql, sessions="[" + ",".join(f"'{each}'" for each in sessions) + "]")]


def test_lines_that_are_none_cost_the_others_nothing(running, configuration, session):
    nested = b'{"type":"assistant","message":' + b'{"usage":' * 5000 + b"1" + b"}" * 5001 + b"\n"
    configuration.session(session, [
        answer(session, "1", START, FULL),
        b"\n", b"\n", b"   \n",
        b"not json\n", b'"usage" assistant\n', b"[1, 2]\n", b"null\n", b"\x00\x01\xff\xfe\n", b'{"type":"assistant","usage":}\n',
        b'{"type":"assistant","message":null,"usage":0}\n', b'{"type":"assistant","message":{"usage":"many","id":7,"model":[]}}\n',
        b'{"type":"assistant","message":{"usage":{"output_tokens":-5},"id":"msg_neg000","model":"m"},"requestId":"req_neg000"}\n',
        b'{"type":"assistant","message":{"usage":{"output_tokens":1e300},"id":"msg_huge00","model":"m"},"requestId":"req_huge00"}\n',
        b'{"type":"assistant","message":{"usage":{"output_tokens":"12"},"id":{"a":1},"model":"m"},"timestamp":"never"}\n',
        nested,
        b'{"type":"user","promptId":"../../etc/passwd","message":{"content":"\\ud800"},"timestamp":"2026-11-16T09:00:01Z"}\n',
        answer(session, "2", START + 1, FULL),
        b'{"parentUuid":null,"type":"assistant","message":{"usage":{"output_tok',
    ])  # fmt: skip
    read = configuration.bring(running.client)
    assert read.problems == []
    assert sorted(each for each in outputs(running, session) if each) == [12, 300, 300]  # that of 12 has an odd id and no time
    assert read.lines["cut off in the middle"] == 1
    assert read.lines["not of a transcript"] >= 6
    # a session that the line does not name is the file's
    assert running.query("SELECT countIf(session_id = '') FROM telemetry.transcript_requests") == [[0]]


def test_numbers_that_no_request_has_are_no_request(running, configuration, session):
    """2^63 tokens would be 138 trillion dollars, and a few of them nothing at all."""
    huge = [{**FULL.wire(), name: 1 << 63} for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")]
    attempts = {**FULL.wire(), "iterations": [FULL.wire(), {**FULL.wire(), "input_tokens": 1 << 62}]}
    lines = [answer(session, f"huge{number}", START + number, usage) for number, usage in enumerate([*huge, attempts])]
    configuration.session(session, [*lines, answer(session, "1", START + 9)])
    read = configuration.bring(running.client)
    assert outputs(running, session) == [300]
    assert read.lines["not of a transcript"] >= 4


def test_texts_that_were_cut_off_in_a_character_cost_their_line_nothing(running, configuration, session):
    """JSON.stringify writes half an emoji as one escape, which JSON.parse reads and others don't."""
    texts = (
        b"half \\ud83d", b"the other \\ude00 half", b"\\ud83d\\ud83d", b"whole \\ud83d\\ude00", b"a path: C:\\\\ud83d",
        b"no UTF-8: \xf0\x9f",
    )  # fmt: skip
    lines = [json.dumps(answer(session, f"{n}", START + n, text="TEXT")).encode().replace(b"TEXT", text) for n, text in enumerate(texts)]
    configuration.session(session, [line + b"\n" for line in lines])
    read = configuration.bring(running.client)
    assert outputs(running, session) == [300] * len(texts)
    [file] = running.query("SELECT unreadable_lines FROM telemetry.transcript_files FINAL WHERE session_id = {of:String}", of=session)
    assert (file, read.problems) == ([0], [])


def test_blank_lines_are_no_lines(running, configuration, session, monkeypatch):
    """What can't be read makes its batch be read once more, mended. There is nothing to mend."""
    opened, stream = [], lines.stream
    monkeypatch.setattr(lines, "stream", lambda *asked: opened.append(1) or stream(*asked))
    configuration.session(session, [b"\n", answer(session, "1", START), b"\n", b"\r\n", answer(session, "2", START + 1), b"\n\n"])
    configuration.bring(running.client)
    assert outputs(running, session) == [300, 300]
    [file] = running.query("SELECT unreadable_lines FROM telemetry.transcript_files FINAL WHERE session_id = {of:String}", of=session)
    assert (file, len(opened)) == ([0], 1)


def test_an_unknown_version_with_other_fields_is_read_as_far_as_it_says(running, configuration, session):
    usage = {**FULL.wire(), "thinking_tokens": 9, "by_modality": {"text": 1}}
    later = answer(session, "1", START, usage, version="9.9.9", shape=[{"deep": [1]}])
    kinds = [{"type": f"kind-{n}", "sessionId": session, "usage": {"output_tokens": 5}, "assistant": True} for n in range(3)]
    configuration.session(session, [*kinds, later])
    read = configuration.bring(running.client)
    assert outputs(running, session) == [300]
    assert not any(read.lines.values())


def test_links_out_of_the_tree_are_refused_and_named(running, configuration, session, tmp_path_factory):
    outside = write(tmp_path_factory.mktemp("elsewhere") / "x.jsonl", [answer(session, "9", START, FULL)])
    inside = configuration.session(session, [answer(session, "1", START, FULL)])
    folder = inside.parent
    (folder / f"{identifier('out')}.jsonl").symlink_to(outside)
    (folder.parent / "linked").symlink_to(outside.parent)
    (folder / f"{identifier('in')}.jsonl").symlink_to(inside)  # the same file by another name: read once
    (folder / f"{identifier('dangling')}.jsonl").symlink_to(folder / "nothing")
    os.mkfifo(folder / f"{identifier('pipe')}.jsonl")
    found = configuration.found()
    assert [each.path for each in found.files] == [os.path.realpath(inside)]
    assert sorted((Path(path).name, why) for path, why in found.refused) == sorted([
        (f"{identifier('out')}.jsonl", "is a link out of the folder of transcripts"),
        ("linked", "is a link out of the folder of transcripts"),
        (f"{identifier('pipe')}.jsonl", "is not a file"),
    ])  # fmt: skip
    told = summary.text(performed(running, configuration, session=session, start="2026-11-01"))
    assert f"not read: {folder}/{identifier('out')}.jsonl is a link out of the folder of transcripts\n" in told
    assert f"not read: {folder}/{identifier('pipe')}.jsonl is not a file" in told
    assert outputs(running, session) == [300]


def test_a_file_that_becomes_a_link_after_it_was_found_is_not_followed(running, configuration, session, tmp_path_factory):
    outside = write(tmp_path_factory.mktemp("elsewhere") / "x.jsonl", [answer(session, "9", START, FULL)])
    path = configuration.session(session, [answer(session, "1", START, FULL)])
    other = configuration.session(identifier(session), [answer(identifier(session), "2", START, FULL)])
    found = configuration.found()
    path.unlink()
    path.symlink_to(outside)
    from sp_telemetry.transcripts import reading

    read = reading.bring(running.client, found, SECRET)
    assert [Path(name) for name, _ in read.problems] == [path]
    assert "can't be opened" in read.problems[0][1]
    assert outputs(running, session, identifier(session)) == [300]
    other.unlink()


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="needs a user who may not read everything")
def test_a_file_that_may_not_be_read_is_named(running, configuration, session):
    path = configuration.session(session, [answer(session, "1", START, FULL)])
    configuration.session(identifier(session), [answer(identifier(session), "2", START, FULL)])
    original = lines.os.open

    def refuse(name, *more):
        if str(name) == os.path.realpath(path):
            raise PermissionError(13, "Permission denied")
        return original(name, *more)

    with pytest.MonkeyPatch.context() as patched:  # root may read everything, so the refusal is made up
        patched.setattr(lines.os, "open", refuse)
        read = configuration.bring(running.client)
    assert read.problems == [(os.path.realpath(path), "can't be opened: Permission denied")]
    assert outputs(running, session, identifier(session)) == [300]
    path.write_bytes(path.read_bytes() + b"\n")
    assert configuration.bring(running.client).problems == []
    assert outputs(running, session, identifier(session)) == [300, 300]


def test_several_configuration_directories_and_one_folder_twice(tmp_path, running, session):
    home = tmp_path / "home"
    places = [home / ".claude", home / ".config" / "claude", tmp_path / "named", tmp_path / "second, named"]
    for number, place in enumerate(places):
        of = identifier(session, number)
        write(place / "projects" / "-p" / f"{of}.jsonl", [answer(of, str(number), START, FULL)])
    (tmp_path / "linked").symlink_to(tmp_path / "named")
    environ = {"HOME": str(home), "CLAUDE_CONFIG_DIR": f"{tmp_path / 'named'}, {tmp_path / 'linked'},{tmp_path / 'missing'}"}
    found = files.find(environ, SECRET)
    assert sorted(found.folders) == sorted(os.path.realpath(place / "projects") for place in places[:3])
    assert len(found.files) == 3
    assert found.refused == []
    with_comma = places[3]  # to Claude Code one directory
    assert files.folders({"HOME": str(home), "CLAUDE_CONFIG_DIR": str(with_comma)})[0] == with_comma / "projects"


def test_names_that_mean_something_to_the_engine_or_a_shell(running, configuration, session):
    odd = ["{a,b}", "*", "a?b", "[x]", "x'y", 'x"y', "x\\y", "x y", "x\ny", "ü", "..x", "$(touch x)", "::zip"]
    names = [identifier(session, each) for each in odd]
    for each, of in zip(odd, names, strict=True):
        configuration.session(of, [answer(of, "1", START, FULL, message_id="", request_id=f"req_{of[:8]}")], project=each)
    assert configuration.bring(running.client).new == len(odd)
    assert outputs(running, *names) == [300] * len(odd)


def test_what_is_no_transcript_is_left_alone(running, configuration, session):
    path = configuration.session(session, [answer(session, "1", START, FULL)])
    write(path.parent.parent / "loose.jsonl", [answer(session, "2", START, FULL)])
    write(path.parent / session / "tool-results" / "x.jsonl", [answer(session, "3", START, FULL)])
    write(path.parent / f"{session}.jsonl.bak", [answer(session, "4", START, FULL)])
    write(path.parent / "memory" / "notes.jsonl", [answer(session, "5", START, FULL)])
    assert [each.path for each in configuration.found().files] == [os.path.realpath(path)]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=12), min_size=1, max_size=4),
    st.integers(1, 40), st.integers(1, 40), st.booleans(),
)  # fmt: skip
def test_exactly_the_long_lines_are_left_out(tmp_path, files_lines, longest, piece, spliced):
    """Whatever the lines and wherever the pieces begin. A line is long that is longer than `longest`, its newline not counted. Each file
    stands behind its mark, also where the one before it has no last newline."""
    named, expected, long_lines = [], [], {}
    for number, texts in enumerate(files_lines, 1):
        made = [bytes([97 + nth % 26]) * length for nth, (length, _) in enumerate(texts)]
        data = b"\n".join(made) + (b"\n" if texts and texts[-1][1] else b"")
        path = tmp_path / str(number)
        path.write_bytes(data)
        named.append((number, str(path)))
        split = data.split(b"\n")
        expected += [b"mark %d" % number, *(each for each in split[: len(split) - (not split[-1])] if len(each) <= longest)]
        if left_out := [each for each in split if len(each) > longest]:
            long_lines[number] = len(left_out)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "_PIECE", min(piece, longest))
        if not spliced:
            patched.delattr(os, "splice", raising=False)
        with lines.stream(named, "mark ", longest) as stream, open(stream.path, "rb") as reader:
            passed = reader.read()
    assert passed.splitlines() == expected
    assert (stream.long_lines, stream.closed, stream.broken) == (long_lines, {}, {})


def test_a_file_that_breaks_while_it_is_read_costs_its_companions_nothing(running, configuration, session, monkeypatch):
    """A disk's error in the middle: the file is named, and nothing that it said before is kept."""
    names = [identifier(session, str(number)) for number in range(5)]
    paths = [configuration.session(of, [answer(of, str(nth), START + nth, FULL) for nth in range(20)]) for of in names]
    broken = os.stat(paths[2]).st_ino
    splice = os.splice

    def failing(file, *args, offset_src=0):
        if os.fstat(file).st_ino == broken and offset_src:
            raise OSError(errno.EIO, "Input/output error")
        return splice(file, args[0], 3000, offset_src=offset_src)

    monkeypatch.setattr(os, "splice", failing)
    read = configuration.bring(running.client)
    assert read.problems == [(os.path.realpath(paths[2]), "can't be read: Input/output error")]
    assert outputs(running, names[2]) == []
    assert outputs(running, *names[:2], *names[3:]) == [300] * 80
    monkeypatch.undo()
    with paths[2].open("ab") as out:
        out.write(b"\n")
    assert configuration.bring(running.client).problems == []
    assert outputs(running, names[2]) == [300] * 20


def test_a_file_that_could_not_be_opened_is_read_when_it_can(running, configuration, session, monkeypatch):
    """Nothing of the file has changed when descriptors are there again. While it can't be opened, nothing is written anew for it."""
    path = configuration.session(session, [answer(session, "1", START, FULL)])
    opened = os.open

    def failing(of, *args, **named):
        if os.fspath(of) == os.path.realpath(path):
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(of, *args, **named)

    monkeypatch.setattr(os, "open", failing)
    named = [(os.path.realpath(path), "can't be opened: Too many open files")]
    assert [(read.new, read.problems) for read in (configuration.bring(running.client) for _ in range(2))] == [(1, named), (0, named)]
    monkeypatch.undo()
    assert configuration.bring(running.client).problems == []
    assert outputs(running, session) == [300]


def test_files_of_a_folder_that_was_not_listed_are_not_missed(running, tmp_path, session):
    """Two configurations of one person, looked at in turn; and one whose folder can't be listed for once."""
    both = [Configuration(tmp_path / name) for name in ("one", "two")]
    names = [identifier(session, name) for name in ("one", "two")]
    paths = [each.session(of, [answer(of, "1", START, FULL)]) for each, of in zip(both, names, strict=True)]
    gone = "SELECT session_id, gone_at != 0 FROM telemetry.transcript_files FINAL WHERE has({of:Array(String)}, session_id)"

    def missed() -> list[str]:
        return [of for of, is_gone in running.query(gone, of="[" + ",".join(f"'{each}'" for each in names) + "]") if is_gone]

    assert [(read.new, read.gone) for read in (each.bring(running.client) for each in (*both, *both))] == [(1, 0), (1, 0), (0, 0), (0, 0)]
    listed = both[0].found()
    listed.listed.clear()
    listed.files.clear()
    assert reading.bring(running.client, listed, SECRET).gone == 0 and missed() == []
    paths[0].unlink()
    assert both[0].bring(running.client).gone == 1 and missed() == [names[0]]


def test_thousands_of_files_can_go_at_once(running, configuration, session, monkeypatch):
    """Their ids are more than an address may hold, so they go in pieces."""
    monkeypatch.setattr(reading, "IDS_AT_ONCE", 3)
    paths = [configuration.session(identifier(session, str(nth)), [answer(session, str(nth), START, FULL)]) for nth in range(10)]
    configuration.bring(running.client)
    for path in paths:
        path.unlink()
    assert configuration.bring(running.client).gone == 10
    assert configuration.bring(running.client).gone == 0


def test_each_line_keeps_its_file(running, configuration, session, monkeypatch):
    """Also where a stream has hundreds of files, and several are read at once: lines have no session's name of their own here."""
    monkeypatch.setattr("sp_telemetry.transcripts.reading.BATCH_BYTES", 100_000)
    names = [identifier(session, str(number)) for number in range(700)]
    for number, of in enumerate(names):
        made = [answer(of, f"{number}.{nth}", START + nth, Usage(input=4, output=number * 10 + nth + 1)) for nth in range(number % 7)]
        configuration.session(of, [{key: value for key, value in each.items() if key != "sessionId"} for each in made])
    assert configuration.bring(running.client).problems == []
    sql = """SELECT session_id, arraySort(groupArray(output_tokens)) FROM telemetry.transcript_requests
        WHERE has({sessions:Array(String)}, session_id) GROUP BY session_id"""
    found = {row[0]: row[1] for row in running.query(sql, sessions="[" + ",".join(f"'{each}'" for each in names) + "]")}
    assert found == {of: [number * 10 + nth + 1 for nth in range(number % 7)] for number, of in enumerate(names) if number % 7}


def test_a_file_is_known_only_when_its_requests_are_stored(running, configuration, session, monkeypatch):
    """The store refuses what it is sent, somewhere in the middle: what was not stored is read the next time."""
    monkeypatch.setattr(reading, "BATCH_BYTES", 5_000)
    monkeypatch.setattr(reading, "SEND_BYTES", 1_000)
    monkeypatch.setattr(reading, "SEND_FILES", 6)
    names = [identifier(session, str(nth)) for nth in range(40)]
    for nth, of in enumerate(names):
        configuration.session(of, [answer(of, f"{nth}.{each}", START + each, Usage(input=4, output=nth + 1)) for each in range(5)])
    client, inserted = running.client, []
    insert = client.insert

    def refused(table: str, *rest: Any) -> None:
        inserted.append(table)
        if len(inserted) == 12:
            raise QueryFailed("The store refused: it is full.")
        insert(table, *rest)

    monkeypatch.setattr(client, "insert", refused)
    with pytest.raises(QueryFailed):
        configuration.bring(client)
    of_ours = "[" + ",".join(f"'{each}'" for each in names) + "]"
    known = "SELECT file_id FROM telemetry.transcript_files WHERE has({of:Array(String)}, session_id)"
    stored = "SELECT uniqExact(file_id) FROM telemetry.transcript_copies WHERE file_id IN ({known})".replace("{known}", known)
    before = len(running.query(known, of=of_ours))
    assert 0 < before < 40 and running.query(stored, of=of_ours)[0][0] == before
    assert configuration.bring(running.client).new == 40 - before
    assert sorted(outputs(running, *names)) == sorted((nth + 1) for nth in range(40) for _ in range(5))


def _audit(running: Server, configuration: Configuration) -> tuple[dict, int]:
    """The command's JSON, and the most memory that its process had, in MiB."""
    program = "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); " \
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, file=sys.stderr)"  # fmt: skip
    command = [sys.executable, "-c", program, sys.executable, "-m", "sp_telemetry.cli.main", "audit", "--from", "2026-11-01", "--json"]
    environ = {**running.environ, **configuration.environ, "SP_TELEMETRY_HOME": str(running.home.path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=110)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), int(done.stderr.split()[-1])


@pytest.mark.parametrize("size", [120 << 20, pytest.param(600 << 20, marks=pytest.mark.long)])
def test_pitfall_09_a_line_of_any_length_takes_no_memory(running, configuration, session, size):
    """A tool result of hundreds of megabytes in one line, and requests before and behind it."""
    path = configuration.session(session, [prompt(session, "p", START), answer(session, "1", START, FULL)])
    piece = b"x" * (1 << 20)
    with path.open("ab") as out:
        out.write(b'{"parentUuid":null,"type":"user","toolUseResult":"')
        for _ in range(size >> 20):
            out.write(piece)
        out.write(b'"}\n' + json.dumps(answer(session, "2", START + 1, FULL)).encode() + b"\n")
    told, memory = _audit(running, configuration)
    path.unlink()
    assert outputs(running, session) == [300, 300]
    assert memory <= MEMORY_MIB
    assert told["transcripts"]["lines_left_out"]["longer than 8 MiB"] == 1


def test_pitfall_09_many_lines_just_below_the_limit_take_no_memory(running, configuration, session):
    """The longest lines that are read, all of them requests: each is parsed whole."""
    text = "y" * (7 << 20)
    path = configuration.session(session, (answer(session, str(number), START + number, FULL, text=text) for number in range(8)))
    _, memory = _audit(running, configuration)
    path.unlink()
    assert outputs(running, session) == [300] * 8
    assert memory <= MEMORY_MIB


def test_pitfall_09_a_session_name_is_no_path(running, configuration, session):
    """What a line or a file calls its session reaches the store as an identifier or as a hash, and no file system at all."""
    evil = "../../../../tmp/" + session
    configuration.session(session, [answer(evil, "1", START, FULL, message_id="", request_id=f"req_{session[:8]}", agentId="../x")])
    configuration.bring(running.client)
    sql = "SELECT session_id FROM telemetry.transcript_requests WHERE request_id = {request:String}"
    [[stored]] = running.query(sql, request=f"req_{session[:8]}")
    assert len(stored) == 64 and "/" not in stored
