"""`sp-telemetry audit` as a command and a report, and what stands of it under other reports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from typing import Any

import pytest

from sp_telemetry.transcripts import backfill, files, reading
from tests.client.script import Usage
from tests.server import JSON, Server, as_json, log_request, server
from tests.store.audited import DAY, NOW, Request, Session, made, of, performed, running, store
from tests.transcripts import Configuration, answer, identifier, line, prompt

__all__ = ["of", "running"]  # fixtures


def _command(running: Server, configuration: Configuration, *arguments: str) -> subprocess.CompletedProcess:
    environ = {**running.environ, **configuration.environ, "SP_TELEMETRY_HOME": str(running.home.path)}
    command = [sys.executable, "-m", "sp_telemetry.cli.main", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)


def test_the_command_its_line_its_json_and_its_exit_code(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 4)
    session.requests[2].in_telemetry = False
    configuration.session(of, session.transcript())
    store(running, session.events())
    done = _command(running, configuration, "audit", "--session", of)
    assert done.returncode == 1, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("3 of 4 requests in both · 1 missing · cost differs by $")
    assert any(line.startswith("only in transcripts: 1 sequence gap") for line in rest)
    told = json.loads(_command(running, configuration, "audit", "--session", of, "--json").stdout)
    assert (told["both"], told["missing"], told["clean"], told["reasons"]["transcript"]) == (3, 1, False, {"sequence gap": 1})
    store(running, Session(of, [Request(**{**session.requests[2].__dict__, "in_telemetry": True})]).events())  # it comes after all
    again = json.loads(_command(running, configuration, "audit", "--session", of, "--json").stdout)
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
    assert _command(running, empty, "audit", "--since", "yesterday").returncode == 2
    assert _command(running, empty, "audit", "--since", "1d", "--from", "2026-01-01").returncode == 2
    backwards = _command(running, empty, "audit", "--from", "2026-02-01", "--to", "2026-01-01")
    assert backwards.returncode == 2 and "before it begins" in backwards.stderr
    assert "--session is empty" in _command(running, empty, "audit", "--session", "").stderr
    assert "--since is empty" in _command(running, empty, "backfill", "--since", "").stderr
    for words in (["backfill"], ["backfill", "--dry-run"]):
        assert _command(running, empty, *words).stdout.startswith("There are no transcripts")  # not that nothing is missing
    nothing = _command(running, empty, "audit", "--session", identifier("nobody"))
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert f"No session {identifier('nobody')!r} is known, neither in telemetry nor in transcripts" in nothing.stderr
    assert "sp-telemetry report sessions" in nothing.stderr
    terminal = _command(running, empty, "report", "audit", "--session", "x\x1b[2J")
    assert terminal.returncode == 2 and "\x1b" not in terminal.stderr
    old = made(identifier("old"), NOW - 50 * DAY, 1)
    store(running, old.events())
    before = _command(running, empty, "audit", "--session", old.id)
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
    _command(running, configuration, "backfill")
    done = _command(running, configuration, *words)
    unread = ["lines left out: 1 cut off in the middle", f"not read: {link} is a link out of the folder of transcripts"]
    assert [line for line in done.stdout.splitlines() if line.startswith(("lines left", "not read"))] == unread, done.stderr
    told = json.loads(_command(running, configuration, *words, "--json").stdout)
    if words == ["audit"]:
        assert told["transcripts"]["not_read"] == [[str(link), "is a link out of the folder of transcripts"]]
    else:
        assert (told["unread"], done.stdout.splitlines()[0]) == (unread, f"Nothing {'is' if words[1:] else 'was'} missing.")


def test_it_is_a_report_as_well_as_a_command(running, configuration, of):
    """So `/telemetry-report audit` is answered in a session: the plugin hands its arguments to `report`."""
    session = made(of, NOW - 5 * DAY, 3)
    configuration.session(of, session.transcript())
    store(running, session.events())
    done = _command(running, configuration, "report", "audit", "--session", of, "--format", "text")
    assert done.stdout.startswith("3 of 3 requests in both · 0 missing"), done.stderr
    assert json.loads(_command(running, configuration, "report", "audit", "--session", of, "--json").stdout)["both"] == 3
    refused = _command(running, configuration, "report", "audit", "--by", "day")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--since" in refused.stderr


def _report(running: Server, configuration: Configuration, name: str, *arguments: str) -> dict[str, Any]:
    done = _command(running, configuration, "report", name, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_an_audit_found_stands_under_reports(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 5)
    for request in session.requests[3:]:  # the last: no number tells that they are missing
        request.in_telemetry = False
    configuration.session(of, session.transcript())
    store(running, session.events())
    before = _report(running, configuration, "cost", "--session", of)["coverage"]
    assert (before["audited_sessions"], before["missing_requests"], before["gaps"]) == (0, 0, 0)
    reports = ("cost", "tokens", "sessions")  # that have something to say of this session
    for report in reports:
        assert " · not audited · " in " ".join(_command(running, configuration, "report", report, "--session", of).stdout.split())
    performed(running, configuration)
    after = _report(running, configuration, "cost", "--session", of)["coverage"]
    assert (after["audited_sessions"], after["audited_requests"], after["missing_requests"]) == (1, 5, 2)
    for report in reports:
        text = " ".join(_command(running, configuration, "report", report, "--session", of).stdout.split())
        assert "2 of 5 requests missing by the audit of 20" in text and "not audited" not in text


def test_what_was_filled_in_is_said_under_reports(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 5)
    for request in session.requests[3:]:
        request.in_telemetry = False
    configuration.session(of, session.transcript())
    store(running, session.events())
    assert _report(running, configuration, "cost", "--session", of)["coverage"]["filled_requests"] == 0
    assert "filled in" not in _command(running, configuration, "report", "cost", "--session", of).stdout
    assert _command(running, configuration, "backfill").returncode == 0
    assert _report(running, configuration, "cost", "--session", of)["coverage"]["filled_requests"] == 2
    text = " ".join(_command(running, configuration, "report", "cost", "--session", of).stdout.split())
    assert "2 requests filled in from transcripts" in text
    store(running, Session(of, [Request(**{**session.requests[4].__dict__, "in_telemetry": True})]).events())  # one comes after all
    assert _report(running, configuration, "cost", "--session", of)["coverage"]["filled_requests"] == 1


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
    assert _command(running, configuration, command).returncode in (0, 1)
    told = _report(running, configuration, "sessions", "--session", of)
    [row] = told["rows"]
    assert (row["session"], row["sessions"], row["requests"], row["prompts"], row["cost_usd"]) == (of, 3, 6, 1, 6)
    assert (row["joined"], row["ended_by"]) == ("1 forked, 1 cleared", "error")
    assert row["joined_sessions"] == [
        {"session": fork, "joined": "forked", "follows": of}, {"session": cleared, "joined": "cleared", "follows": fork},
    ]  # fmt: skip
    assert row["active_ms"] in (6 * 60000, 7 * 60000, 8 * 60000, 9 * 60000)  # of more than two hours
    assert row["elapsed_ms"] > 7200 * 1000
    assert (told["total"]["requests"], told["total"]["cost_usd"], told["total"]["sessions"]) == (6, 6, 3)  # each of its ids is a session
    by_day = _report(running, configuration, "sessions", "--session", of, "--by", "day")["total"]
    assert (by_day["cost_usd"], by_day["sessions"], by_day["joined_sessions"]) == (6, 3, [])
    [alone] = _report(running, configuration, "sessions", "--session", fork)["rows"]
    assert (alone["session"], alone["requests"], alone["cost_usd"], alone["ended_by"]) == (fork, 2, 2, "answer")
    table = _command(running, configuration, "report", "sessions", "--session", of).stdout
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
        coverage = _report(running, configuration, "cost", "--session", of)["coverage"]
        return coverage["missing_requests"], coverage["audited_requests"]

    for since in ((), ("--since", "1d"), ()):
        _command(running, configuration, "audit", *since)
        assert missing() == (1, 3)
    assert _command(running, configuration, "backfill").returncode == 0
    assert missing() == (0, 3)
    _command(running, configuration, "audit", "--since", "1d")
    assert missing() == (0, 3)
    assert _command(running, configuration, "backfill", "--remove").returncode == 0
    assert missing() == (1, 3)


def test_a_dry_run_says_what_is_then_written(tmp_path, configuration, of):
    """Also of what was filled in before: a transcript that says more since, a price that was corrected."""
    at = NOW - 3 * DAY
    first = [prompt(of, "p", at), answer(of, of[:8], at + 1, Usage(input=4, output=1), stop_reason=None)]
    grown = [*first, answer(of, of[:8], at + 2, Usage(input=4, output=300), block=1)]
    with server(tmp_path / "home") as running:
        for lines, prices in ((first, ""), (grown, ""), (grown, "model,input,output\nclaude-sonnet-4-5,1,2\n"), (grown, "")):
            configuration.session(of, lines)
            running.home.path.joinpath("prices.csv").write_text(prices or "model,input,output\n")
            running.restart()
            would, done = (json.loads(_command(running, configuration, "backfill", *dry, "--json").stdout) for dry in (["--dry-run"], []))
            assert would["filled"] == done["filled"] and done["filled"]["requests"] == 1
            again = [json.loads(_command(running, configuration, "backfill", *dry, "--json").stdout) for dry in (["--dry-run"], [])]
            assert [each["filled"]["requests"] for each in again] == [0, 0]


@pytest.mark.parametrize("arrives", ["the prompt's event", "that of its first request", "none, but a later part is filled in again"])
def test_a_prompt_of_what_was_filled_in_is_counted_once(running, configuration, of, arrives):
    at = NOW - 2 * DAY  # between the first request and the others
    requests = [Request(f"{of[:8]}{n}", at + (n or -1) * 3600, Usage(input=n, output=7), number=n + 1) for n in range(3)]
    configuration.session(of, Session(of, requests[:2]).transcript())

    def counted(*since: str) -> tuple[int, int]:
        assert _command(running, configuration, "backfill", *since).returncode == 0
        total = _report(running, configuration, "sessions", "--session", of)["total"]
        return total["prompts"], total["requests"]

    assert counted() == (1, 2)
    if arrives.startswith("none"):
        configuration.session(of, Session(of, requests).transcript())
        assert counted("--since", "48h") == (1, 3)
        return
    told = {"name": "user_prompt", "time_ns": int((at - 3601) * 1e9), "session.id": of, "prompt.id": identifier(of, "p")}
    store(running, [told | {"event.sequence": 0}] if arrives.startswith("the") else Session(of, requests[:1]).events())
    assert counted() == (1, 2)


def test_what_was_deleted_is_filled_in(running, configuration, of):
    """As a dry run says, though no transcript has changed since the last run."""
    session = made(of, NOW - 3 * DAY, 2)
    configuration.session(of, session.transcript())
    store(running, session.events())
    _command(running, configuration, "backfill")
    running.run(f"ALTER TABLE telemetry.telemetry_events DELETE WHERE session_id = '{of}' SETTINGS mutations_sync = 2")
    would, done = (json.loads(_command(running, configuration, "backfill", *dry, "--json").stdout) for dry in (["--dry-run"], []))
    assert would["filled"] == done["filled"] and done["filled"]["requests"] == 2


def test_a_part_of_what_was_filled_in_can_be_taken_back(running, configuration, of):
    """What is from before `--since` stays, and another backfill of the rest fills in as much as was taken."""
    requests = [Request(f"{of[:8]}{n}", NOW - days * DAY, Usage(input=n + 1, output=7)) for n, days in enumerate((6, 5, 1.2, 1))]
    configuration.session(of, Session(of, requests).transcript())
    assert _command(running, configuration, "backfill").returncode == 0

    def stored() -> tuple[int, int, int]:
        """By the events, by the summaries, and by what stands under reports: missing."""
        report = _report(running, configuration, "cost", "--session", of)
        summary = "SELECT requests FROM telemetry.session_summaries FINAL WHERE session_id = {of:String}"
        [[summed]] = running.query(summary, of=of) or [[0]]
        return report["total"]["requests"], summed, report["coverage"]["missing_requests"]

    assert stored() == (4, 4, 0)
    would, done = (
        json.loads(_command(running, configuration, "backfill", "--remove", "--since", "2d", *dry, "--json").stdout)["removed"]
        for dry in (["--dry-run"], [])
    )
    assert would == done and done["requests"] >= 2  # of other tests' sessions too
    assert stored() == (2, 2, 2)
    told = _command(running, configuration, "backfill", "--remove", "--since", "2d")
    assert told.stdout == "Nothing that was filled in is there.\n"
    assert _command(running, configuration, "backfill", "--since", "2d").returncode == 0
    assert stored() == (4, 4, 0)


def test_history_outlives_its_transcripts(running, configuration, of):
    """Claude Code deletes them after 30 days; what was filled in from them stays, whatever runs next, and nothing is missing."""
    session = made(of, NOW - 9 * DAY, 4)
    for request in session.requests[2:]:
        request.in_telemetry = False
    path = configuration.session(of, session.transcript())
    store(running, session.events())
    _command(running, configuration, "backfill")
    before = _report(running, configuration, "cost", "--session", of)
    path.unlink()
    done = performed(running, configuration, session=of)
    assert (done.count("both"), done.filled, done.missing) == (2, 2, 0)
    for words in (["--dry-run"], []):
        told = json.loads(_command(running, configuration, "backfill", *words, "--json").stdout)
        assert told["filled"]["requests"] == 0
    after = _report(running, configuration, "cost", "--session", of)
    assert (after["total"], after["rows"]) == (before["total"], before["rows"]) and after["total"]["requests"] == 4
    assert (after["coverage"]["filled_requests"], after["coverage"]["missing_requests"]) == (2, 0)
    late = [Request(**{**each.__dict__, "in_telemetry": True}) for each in session.requests[2:]]
    store(running, Session(of, late).events())  # which still take their rows' places
    done = performed(running, configuration, session=of)
    assert (done.count("both"), done.filled, done.missing) == (4, 0, 0)


def test_what_one_machine_fills_in_is_not_of_whom_another_one_sends_events(tmp_path, of):
    """Two homes at one server: only the first sends events, and nobody has told a name."""
    mine, other = Configuration(tmp_path / "mine"), Configuration(tmp_path / "other")
    sessions = [made(identifier(of, each), NOW - 3 * DAY, 2) for each in ("mine", "mine too", "other")]
    for session, place in zip(sessions, (mine, mine, other), strict=True):
        place.session(session.id, session.transcript())
    with server(tmp_path / "home") as running:
        running.stored("logs", as_json(log_request(sessions[0].events(), {"user.id": "a" * 64})), JSON)
        for place, secret in ((other, "of the other"), (mine, "of mine")):
            read = reading.bring(running.client, files.find(place.environ, secret), secret)
            assert read.new and backfill.fill(running.client, files.machine(secret), 0, "", 0).requests == 2
        found = running.query("SELECT DISTINCT session_id, user_id FROM telemetry.telemetry_events FINAL WHERE source = 'transcript'")
        assert dict(found) == {sessions[1].id: "a" * 64, sessions[2].id: ""}


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
        done = _command(running, configuration, command)
        assert _report(running, configuration, "cost")["coverage"]["missing_requests"] == 0
    if command == "audit":
        assert done.stdout.startswith("2 of 2 requests in both · 0 missing"), done.stdout
        assert "kept for 14 days" in done.stderr


def test_a_fork_of_an_old_session_is_under_reports(running, configuration, of):
    """The history that it copies is from before the range, and is not its own."""
    old = identifier(of, "old")
    history = [prompt(old, "p", NOW - 40 * DAY), answer(old, f"{of[:8]}0", NOW - 40 * DAY + 1)]
    requests = [Request(f"{of[:8]}{n}", NOW - 5 * DAY + n * 60, Usage(input=n, output=7), in_telemetry=n < 3, number=n) for n in (1, 2, 3)]
    session = Session(of, requests)
    configuration.session(old, history)
    configuration.session(of, [each | {"sessionId": of} for each in history] + session.transcript())
    store(running, session.events())
    assert _command(running, configuration, "audit").returncode == 1
    coverage = _report(running, configuration, "cost", "--session", of)["coverage"]
    assert (coverage["missing_requests"], coverage["audited_requests"]) == (1, 3)


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_was_filled_in_costs_the_same_by_either_source(running, configuration, of, attempts):
    """Also where only the transcript says what its price hangs on, and telemetry could not tell: no id, several attempts."""
    usage = {"input_tokens": 100_000, "output_tokens": 100_000, "inference_geo": "us", "service_tier": "batch",
             "server_tool_use": {"web_search_requests": 100}}  # fmt: skip
    if attempts > 1:
        usage["iterations"] = [{"input_tokens": 50_000, "output_tokens": 50_000}] * attempts
    at = NOW - 6 * DAY
    configuration.session(of, [prompt(of, "p", at), answer(of, of[:8], at + 1, usage, request_id="" if attempts == 1 else None)])
    assert _command(running, configuration, "backfill").returncode == 0
    reports = [_report(running, configuration, "cost", "--session", of, "--cost", each) for each in ("reported", "computed")]
    totals = [each["total"]["cost_usd"] for each in reports]
    assert totals[0] == pytest.approx(totals[1]) and totals[0] > 1.9


def test_reported_and_computed_stand_beside_one_another(running, configuration, of):
    """Nothing is a difference where the list has no price; the tokens of that are said."""
    requests = [Request(f"{of[:8]}{n}", NOW - DAY + n, Usage(input=100_000), number=n) for n in range(2)]
    priced, unknown = Session(of, requests).events()  # 1 USD each, by Claude Code
    store(running, [priced, unknown | {"model": "claude-nobody-knows-9"}])
    asked = ("--session", of, "--by", "model", "--cost", "both")
    told = _report(running, configuration, "cost", *asked)
    names = ("reported_usd", "cost_usd", "difference_usd", "unpriced_requests", "unpriced_tokens")
    assert [told["total"][name] for name in names] == pytest.approx([2, 0.3, 0.7, 1, 100_000])
    assert {row["model"]: [row[name] for name in names] for row in told["rows"]} == {
        "claude-sonnet-4-5": pytest.approx([1, 0.3, 0.7, 0, 0]), "claude-nobody-knows-9": pytest.approx([1, 0, 0, 1, 100_000]),
    }  # fmt: skip
    head, _, first, *_ = _command(running, configuration, "report", "cost", *asked).stdout.splitlines()
    assert re.split("  +", head)[:5] == ["model", "reported", "computed", "reported more", "requests"]
    assert first.split()[:4] == ["claude-sonnet-4-5", "$1.00", "$0.30", "$0.70"]


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
    assert _command(running, configuration, "backfill").returncode == 0
    [row] = _report(running, configuration, "sessions", "--session", of)["rows"]
    assert (row["session"], row["joined"], row["requests"], row["active_ms"]) == (of, "1 forked, 1 compacted", 22, 12 * 60000)
    assert row["prompts"] == 1
    [alone] = _report(running, configuration, "sessions", "--session", fork)["rows"]
    assert (alone["session"], alone["requests"]) == (fork, 10)
