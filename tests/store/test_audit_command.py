"""`sp-telemetry audit` as a command and a report, and what stands of it under other reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tests.client.script import Usage
from tests.server import server
from tests.store.audited import DAY, NOW, Request, Session, called, made, of, performed, reported, running, store
from tests.transcripts import Configuration, answer, identifier, line, prompt

__all__ = ["of", "running"]  # fixtures


def test_the_command_its_line_its_json_and_its_exit_code(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 4)
    session.requests[2].in_telemetry = False
    configuration.session(of, session.transcript())
    store(running, session.events())
    done = called(running, configuration, "audit", "--session", of)
    assert done.returncode == 1, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("3 of 4 requests in both · 1 missing · cost differs by $")
    assert any(line.startswith("only in transcripts: 1 sequence gap") for line in rest)
    told = json.loads(called(running, configuration, "audit", "--session", of, "--json").stdout)
    assert (told["both"], told["missing"], told["clean"], told["reasons"]["transcript"]) == (3, 1, False, {"sequence gap": 1})
    store(running, Session(of, [Request(**{**session.requests[2].__dict__, "in_telemetry": True})]).events())  # it comes after all
    again = json.loads(called(running, configuration, "audit", "--session", of, "--json").stdout)
    assert (again["both"], again["missing"], again["sequence"]["gaps"]) == (4, 0, 0)
    assert again["transcripts"]["read"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
@pytest.mark.parametrize("words", [["audit"], ["backfill", "--dry-run"], ["backfill"], ["backfill", "--quiet"]], ids=" ".join)
def test_in_a_terminal_reading_is_shown(running, configuration, of, words):
    configuration.session(of, made(of, NOW - 5 * DAY, 3).transcript())
    environ = {**running.environ, **configuration.environ, "SP_TELEMETRY_HOME": str(running.home.path)}
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "sp_telemetry.cli.main", *words]
    subprocess.run(command, env=environ, stdout=subprocess.DEVNULL, stderr=theirs, timeout=60)
    os.write(theirs, b".")  # the end of what is there to read
    shown = b""
    while not shown.endswith(b"."):
        shown += os.read(ours, 1 << 16)
    os.close(ours)
    os.close(theirs)
    if "--quiet" in words:
        assert shown == b"."
    else:
        assert b"reading transcripts: " in shown and shown.endswith(b"\r\x1b[K.")


def test_what_the_command_refuses(running, configuration, tmp_path):
    empty = Configuration(tmp_path / "empty")
    assert called(running, empty, "audit", "--since", "yesterday").returncode == 2
    assert called(running, empty, "audit", "--since", "1d", "--from", "2026-01-01").returncode == 2
    backwards = called(running, empty, "audit", "--from", "2026-02-01", "--to", "2026-01-01")
    assert backwards.returncode == 2 and "before it begins" in backwards.stderr
    assert "--session is empty" in called(running, empty, "audit", "--session", "").stderr
    assert "--since is empty" in called(running, empty, "backfill", "--since", "").stderr
    for words in (["backfill"], ["backfill", "--dry-run"]):
        assert called(running, empty, *words).stdout.startswith("There are no transcripts")  # not that nothing is missing
    nothing = called(running, empty, "audit", "--session", identifier("nobody"))
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert f"No session {identifier('nobody')!r} is known, neither in telemetry nor in transcripts" in nothing.stderr
    assert "sp-telemetry report sessions" in nothing.stderr
    terminal = called(running, empty, "report", "audit", "--session", "x\x1b[2J")
    assert terminal.returncode == 2 and "\x1b" not in terminal.stderr
    old = made(identifier("old"), NOW - 50 * DAY, 1)
    store(running, old.events())
    before = called(running, empty, "audit", "--session", old.id)
    assert (before.returncode, before.stdout) == (6, "")
    assert f"no request of session {old.id} since" in before.stderr
    away = subprocess.run(
        [sys.executable, "-m", "sp_telemetry.cli.main", "audit"],
        env={**running.environ, **empty.environ, "SP_TELEMETRY_HOME": str(tmp_path / "home"), "SP_TELEMETRY_URL": "http://127.0.0.1:9"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert away.returncode == 3


@pytest.mark.parametrize("words", [["audit"], ["backfill", "--dry-run"], ["backfill"]], ids=" ".join)
def test_what_can_not_be_read_is_named_by_who_reads(running, configuration, of, tmp_path, words):
    """It may be what is missing: "nothing was missing" is half of the truth then."""
    path = configuration.session(of, made(of, NOW - 5 * DAY, 1).transcript())
    with path.open("ab") as file:
        file.write(b'{"type":"assistant","cut')
    (tmp_path / "elsewhere.jsonl").write_text("")
    link = path.with_name(f"{identifier(of)}.jsonl")
    link.symlink_to(tmp_path / "elsewhere.jsonl")
    called(running, configuration, "backfill")
    done = called(running, configuration, *words)
    unread = ["lines left out: 1 cut off in the middle", f"not read: {link} is a link out of the folder of transcripts"]
    assert [line for line in done.stdout.splitlines() if line.startswith(("lines left", "not read"))] == unread, done.stderr
    told = json.loads(called(running, configuration, *words, "--json").stdout)
    assert told["transcripts"]["lines_left_out"]["cut off in the middle"] == 1
    assert told["transcripts"]["not_read"] == [[str(link), "is a link out of the folder of transcripts"]]
    if words != ["audit"]:
        assert done.stdout.splitlines()[0] == f"Nothing {'is' if words[1:] else 'was'} missing."


def test_it_is_a_report_as_well_as_a_command(running, configuration, of):
    """So `/telemetry-report audit` is answered in a session: the plugin hands its arguments to `report`."""
    session = made(of, NOW - 5 * DAY, 3)
    configuration.session(of, session.transcript())
    store(running, session.events())
    done = called(running, configuration, "report", "audit", "--session", of, "--format", "text")
    assert done.stdout.startswith("3 of 3 requests in both · 0 missing"), done.stderr
    assert json.loads(called(running, configuration, "report", "audit", "--session", of, "--json").stdout)["both"] == 3
    refused = called(running, configuration, "report", "audit", "--by", "day")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--since" in refused.stderr


def test_what_an_audit_found_stands_under_reports(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 5)
    for request in session.requests[3:]:  # the last: no number tells that they are missing
        request.in_telemetry = False
    configuration.session(of, session.transcript())
    store(running, session.events())
    before = reported(running, configuration, "cost", "--session", of)["coverage"]
    assert (before["audited_sessions"], before["missing_requests"], before["gaps"]) == (0, 0, 0)
    reports = ("cost", "tokens", "sessions")  # that have something to say of this session
    for report in reports:
        assert " · not audited · " in " ".join(called(running, configuration, "report", report, "--session", of).stdout.split())
    performed(running, configuration)
    after = reported(running, configuration, "cost", "--session", of)["coverage"]
    assert (after["audited_sessions"], after["audited_requests"], after["missing_requests"]) == (1, 5, 2)
    for report in reports:
        text = " ".join(called(running, configuration, "report", report, "--session", of).stdout.split())
        assert "2 of 5 requests missing by the audit of 20" in text and "not audited" not in text


@pytest.mark.parametrize("command", ["audit", "backfill"])
def test_sessions_that_go_on_from_one_another_are_one_piece_of_work(running, configuration, of, command):
    """Counted once, under the first one's id, with the link shown; turns, cost, time active and what ended it. Whatever read them: backfill
    runs by itself, an audit when somebody asks for one."""
    fork, cleared, folder = identifier(of, "fork"), identifier(of, "cleared"), f"-home-ada-{of[:8]}"
    first, second, third = made(of, NOW - 5 * DAY, 3), made(fork, NOW - 5 * DAY + 3600, 2), made(cleared, NOW - 5 * DAY + 7200, 1)
    lines = first.transcript()
    queued = {"type": "queue-operation", "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(NOW - 5 * DAY + 3599))}
    typed = {"role": "user", "content": "<command-name>/clear</command-name>\n <command-message>clear</command-message>"}
    configuration.session(of, lines, folder)
    configuration.session(fork, [queued, *(line | {"sessionId": fork} for line in lines), *second.transcript()], folder)
    configuration.session(cleared, [line("user", cleared, NOW - 5 * DAY + 7198, message=typed), *third.transcript()], folder)
    asked = {"name": "user_prompt", "time_ns": int(NOW - 5 * DAY - 1) * 10**9, "session.id": of, "event.sequence": 9}
    failed = {"name": "api_error", "time_ns": int(NOW - 5 * DAY + 7300) * 10**9, "session.id": cleared, "event.sequence": 9}
    store(running, [*first.events(), *second.events(), *third.events(), asked, failed])
    assert called(running, configuration, command).returncode in (0, 1)
    told = reported(running, configuration, "sessions", "--session", of)
    [row] = told["rows"]
    assert (row["session"], row["sessions"], row["requests"], row["prompts"], row["cost_usd"]) == (of, 3, 6, 1, 6)
    assert (row["joined"], row["ended_by"]) == ("1 forked, 1 cleared", "error")
    assert row["joined_sessions"] == [
        {"session": fork, "joined": "forked", "follows": of}, {"session": cleared, "joined": "cleared", "follows": fork},
    ]  # fmt: skip
    assert row["active_ms"] in (6 * 60000, 7 * 60000, 8 * 60000, 9 * 60000)  # of more than two hours
    assert row["elapsed_ms"] > 7200 * 1000
    assert (told["total"]["requests"], told["total"]["cost_usd"], told["total"]["sessions"]) == (6, 6, 3)  # each of its ids is a session
    by_day = reported(running, configuration, "sessions", "--session", of, "--by", "day")["total"]
    assert (by_day["cost_usd"], by_day["sessions"], by_day["joined_sessions"]) == (6, 3, [])
    [alone] = reported(running, configuration, "sessions", "--session", fork)["rows"]
    assert (alone["session"], alone["requests"], alone["cost_usd"], alone["ended_by"]) == (fork, 2, 2, "answer")
    table = called(running, configuration, "report", "sessions", "--session", of).stdout
    assert all(word in table.splitlines()[0] for word in ("cost", "prompts", "active", "ended by"))


def test_coverage_stays_that_of_whole_sessions_whatever_was_audited_last(running, configuration, of):
    """An audit of a day says nothing of what is missing before it; what was filled in is no longer missing, by itself."""
    requests = [
        Request(f"{of[:8]}{nth}", at, Usage(input=nth + 1, output=7), in_telemetry=nth > 0, number=nth)
        for nth, at in enumerate((NOW - 5 * DAY, NOW - 5 * DAY + 60, NOW - 3600))
    ]
    session = Session(of, requests)
    configuration.session(of, session.transcript())
    store(running, session.events())

    def missing() -> tuple[int, int]:
        coverage = reported(running, configuration, "cost", "--session", of)["coverage"]
        return coverage["missing_requests"], coverage["audited_requests"]

    for since in ((), ("--since", "1d"), ()):
        called(running, configuration, "audit", *since)
        assert missing() == (1, 3)
    assert called(running, configuration, "backfill").returncode == 0
    assert missing() == (0, 3)
    called(running, configuration, "audit", "--since", "1d")
    assert missing() == (0, 3)
    assert called(running, configuration, "backfill", "--remove").returncode == 0
    assert missing() == (1, 3)


@pytest.mark.parametrize("command", ["audit", "backfill"])
def test_what_events_have_lost_to_their_retention_is_not_missing(tmp_path, configuration, of, command):
    """Transcripts are remembered for longer, and a backfill would not bring it back."""
    with server(tmp_path / "home", SP_TELEMETRY_RETENTION_EVENTS_DAYS="14") as running:
        old, new = made(of, NOW - 20 * DAY, 2), made(identifier(of, "new"), NOW - 3 * DAY, 2)
        for session in (old, new):
            configuration.session(session.id, session.transcript())
            store(running, session.events())
        running.run("OPTIMIZE TABLE telemetry.telemetry_events FINAL")
        assert running.query("SELECT count() FROM telemetry.telemetry_events") == [[2]]
        done = called(running, configuration, command)
        assert reported(running, configuration, "cost")["coverage"]["missing_requests"] == 0
    if command == "audit":
        assert done.stdout.startswith("2 of 2 requests in both · 0 missing"), done.stdout
        assert "no longer kept in full" in done.stderr


def test_a_fork_of_an_old_session_is_under_reports(running, configuration, of):
    """The history that it copies is from before the range, and is not its own."""
    old = identifier(of, "old")
    history = [prompt(old, "p", NOW - 40 * DAY), answer(old, f"{of[:8]}0", NOW - 40 * DAY + 1)]
    requests = [Request(f"{of[:8]}{n}", NOW - 5 * DAY + n * 60, Usage(input=n, output=7), in_telemetry=n < 3, number=n) for n in (1, 2, 3)]
    session = Session(of, requests)
    configuration.session(old, history)
    configuration.session(of, [each | {"sessionId": of} for each in history] + session.transcript())
    store(running, session.events())
    assert called(running, configuration, "audit").returncode == 1
    coverage = reported(running, configuration, "cost", "--session", of)["coverage"]
    assert (coverage["missing_requests"], coverage["audited_requests"]) == (1, 3)


def test_forks_share_their_compactions_and_their_minutes(running, configuration, of):
    """What a fork copied was once; and where it and its original were at work at the same time, that is one time."""
    fork, began = identifier(of, "fork"), (NOW - 7 * DAY) // 3600 * 3600
    boundary = line("system", of, began + 61, subtype="compact_boundary", content="Conversation compacted")
    history = [prompt(of, "p", began), answer(of, f"{of[:8]}a", began + 1), boundary, answer(of, f"{of[:8]}b", began + 62)]
    notes = [{"type": "last-prompt", "sessionId": of}]
    later = [answer(of, f"{of[:8]}c{minute}", began + 600 + 60 * minute) for minute in range(10)]
    forked = [answer(fork, f"{of[:8]}d{minute}", began + 602 + 60 * minute) for minute in range(10)]
    configuration.session(of, [*history[:2], *notes, *history[2:], *later])
    configuration.session(fork, [*(each | {"sessionId": fork} for each in history), *forked])
    assert called(running, configuration, "backfill").returncode == 0
    [row] = reported(running, configuration, "sessions", "--session", of)["rows"]
    assert (row["session"], row["joined"], row["requests"], row["active_ms"]) == (of, "1 forked, 1 compacted", 22, 12 * 60000)
    assert row["prompts"] == 1
    [alone] = reported(running, configuration, "sessions", "--session", fork)["rows"]
    assert (alone["session"], alone["requests"]) == (fork, 10)
