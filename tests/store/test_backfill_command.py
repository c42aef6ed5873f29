"""`sp-telemetry backfill` as a command, and what it leaves under reports, in audits and when it is taken back."""

from __future__ import annotations

import json
import re
import time

import pytest

from sp_telemetry.serve import health
from sp_telemetry.transcripts import backfill, files, reading
from tests.client.script import Usage
from tests.server import JSON, as_json, log_request, server
from tests.store.audited import DAY, NOW, Request, Session, called, made, of, performed, reported, running, store
from tests.transcripts import Configuration, answer, identifier, prompt

__all__ = ["of", "running"]  # fixtures


def test_what_was_filled_in_has_not_arrived(tmp_path, configuration, of):
    """It is written now, and of long ago: no clock is wrong, nothing came twice, and whoever switched telemetry off sends nothing."""
    sent, missed = made(of, time.time() - 300, 3), made(identifier(f"{of}, missed"), NOW - 9 * DAY, 9)
    configuration.session(missed.id, missed.transcript())
    with server(tmp_path / "home") as running:
        store(running, sent.events())
        store(running, sent.events())

        def examined() -> dict[str, dict]:
            return {found["code"]: found for found in json.loads(called(running, configuration, "doctor", "--json").stdout)["findings"]}

        before = examined()
        assert json.loads(called(running, configuration, "backfill", "--json").stdout)["filled"]["requests"] == 9
        after = examined()
        assert before["events"]["facts"]["requests"] == after["events"]["facts"]["requests"] == 3
        assert "clock" in before and "clock" in after
        time.sleep(health.FIGURES_FRESH_S)
        assert running.metrics()["sp_telemetry_events_duplicate"] == 3


def test_what_was_filled_in_is_said_under_reports(running, configuration, of):
    session = made(of, NOW - 5 * DAY, 5)
    for request in session.requests[3:]:
        request.in_telemetry = False
    configuration.session(of, session.transcript())
    store(running, session.events())
    assert reported(running, configuration, "cost", "--session", of)["coverage"]["filled_requests"] == 0
    assert "filled in" not in called(running, configuration, "report", "cost", "--session", of).stdout
    assert called(running, configuration, "backfill").returncode == 0
    assert reported(running, configuration, "cost", "--session", of)["coverage"]["filled_requests"] == 2
    text = " ".join(called(running, configuration, "report", "cost", "--session", of).stdout.split())
    assert "2 requests filled in from transcripts" in text
    store(running, Session(of, [Request(**{**session.requests[4].__dict__, "in_telemetry": True})]).events())  # one comes after all
    assert reported(running, configuration, "cost", "--session", of)["coverage"]["filled_requests"] == 1


def test_what_was_filled_in_is_under_the_plan_of_its_session(running, configuration, of):
    """No transcript tells of one; the session's own events do."""
    session = made(of, NOW - 5 * DAY, 3)
    session.requests[1].in_telemetry = False
    configuration.session(of, session.transcript())
    store(running, [event | {"anthropic.plan": "team", "anthropic.seat_type": "premium"} for event in session.events()])
    assert called(running, configuration, "backfill").returncode == 0
    told = "SELECT source, plan, seat_type, count() FROM telemetry.telemetry_events FINAL WHERE session_id = {of:String}"
    said = running.query(f"{told} GROUP BY ALL ORDER BY ALL", of=of)
    assert said == [["otlp", "team", "premium", 2], ["transcript", "team", "premium", 1]]


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
            would, done = (json.loads(called(running, configuration, "backfill", *dry, "--json").stdout) for dry in (["--dry-run"], []))
            assert would["filled"] == done["filled"] and done["filled"]["requests"] == 1
            again = [json.loads(called(running, configuration, "backfill", *dry, "--json").stdout) for dry in (["--dry-run"], [])]
            assert [each["filled"]["requests"] for each in again] == [0, 0]


@pytest.mark.parametrize("arrives", ["the prompt's event", "that of its first request", "none, but a later part is filled in again"])
def test_a_prompt_of_what_was_filled_in_is_counted_once(running, configuration, of, arrives):
    at = NOW - 2 * DAY  # between the first request and the others
    requests = [Request(f"{of[:8]}{n}", at + (n or -1) * 3600, Usage(input=n, output=7), number=n + 1) for n in range(3)]
    configuration.session(of, Session(of, requests[:2]).transcript())

    def counted(*since: str) -> tuple[int, int]:
        assert called(running, configuration, "backfill", *since).returncode == 0
        total = reported(running, configuration, "sessions", "--session", of)["total"]
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
    called(running, configuration, "backfill")
    running.run(f"ALTER TABLE telemetry.telemetry_events DELETE WHERE session_id = '{of}' SETTINGS mutations_sync = 2")
    would, done = (json.loads(called(running, configuration, "backfill", *dry, "--json").stdout) for dry in (["--dry-run"], []))
    assert would["filled"] == done["filled"] and done["filled"]["requests"] == 2


def test_a_part_of_what_was_filled_in_can_be_taken_back(running, configuration, of):
    """What is from before `--since` stays, and another backfill of the rest fills in as much as was taken."""
    requests = [Request(f"{of[:8]}{n}", NOW - days * DAY, Usage(input=n + 1, output=7)) for n, days in enumerate((6, 5, 1.2, 1))]
    configuration.session(of, Session(of, requests).transcript())
    assert called(running, configuration, "backfill").returncode == 0

    def stored() -> tuple[int, int, int]:
        """By the events, by the summaries, and by what stands under reports: missing."""
        report = reported(running, configuration, "cost", "--session", of)
        summary = "SELECT requests FROM telemetry.session_summaries FINAL WHERE session_id = {of:String}"
        [[summed]] = running.query(summary, of=of) or [[0]]
        return report["total"]["requests"], summed, report["coverage"]["missing_requests"]

    assert stored() == (4, 4, 0)
    would, done = (
        json.loads(called(running, configuration, "backfill", "--remove", "--since", "2d", *dry, "--json").stdout)["removed"]
        for dry in (["--dry-run"], [])
    )
    assert would == done and done["requests"] >= 2  # of other tests' sessions too
    assert stored() == (2, 2, 2)
    told = called(running, configuration, "backfill", "--remove", "--since", "2d")
    assert told.stdout == "Nothing that was filled in is there.\n"
    assert called(running, configuration, "backfill", "--since", "2d").returncode == 0
    assert stored() == (4, 4, 0)


def test_history_outlives_its_transcripts(running, configuration, of):
    """Claude Code deletes them after 30 days; what was filled in from them stays, whatever runs next, and nothing is missing."""
    session = made(of, NOW - 9 * DAY, 4)
    for request in session.requests[2:]:
        request.in_telemetry = False
    path = configuration.session(of, session.transcript())
    store(running, session.events())
    called(running, configuration, "backfill")
    before = reported(running, configuration, "cost", "--session", of)
    path.unlink()
    done = performed(running, configuration, session=of)
    assert (done.count("both"), done.filled, done.missing) == (2, 2, 0)
    for words in (["--dry-run"], []):
        told = json.loads(called(running, configuration, "backfill", *words, "--json").stdout)
        assert told["filled"]["requests"] == 0
    after = reported(running, configuration, "cost", "--session", of)
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
            assert read.new and backfill.fill(running.client, files.machine(secret), 0, "").requests == 2
        found = running.query("SELECT DISTINCT session_id, user_id FROM telemetry.telemetry_events FINAL WHERE source = 'transcript'")
        assert dict(found) == {sessions[1].id: "a" * 64, sessions[2].id: ""}


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_was_filled_in_costs_the_same_by_either_source(running, configuration, of, attempts):
    """Also where only the transcript says what its price hangs on, and telemetry could not tell: no id, several attempts."""
    usage = {"input_tokens": 100_000, "output_tokens": 100_000, "inference_geo": "us", "service_tier": "batch",
             "server_tool_use": {"web_search_requests": 100}}  # fmt: skip
    if attempts > 1:
        usage["iterations"] = [{"input_tokens": 50_000, "output_tokens": 50_000}] * attempts
    at = NOW - 6 * DAY
    configuration.session(of, [prompt(of, "p", at), answer(of, of[:8], at + 1, usage, request_id="" if attempts == 1 else None)])
    assert called(running, configuration, "backfill").returncode == 0
    reports = [reported(running, configuration, "cost", "--session", of, "--cost", each) for each in ("reported", "computed")]
    totals = [each["total"]["cost_usd"] for each in reports]
    assert totals[0] == pytest.approx(totals[1]) and totals[0] > 1.9


def test_reported_and_computed_stand_beside_one_another(running, configuration, of):
    """Nothing is a difference where the list has no price; the tokens of that are said."""
    requests = [Request(f"{of[:8]}{n}", NOW - DAY + n, Usage(input=100_000), number=n) for n in range(2)]
    priced, unknown = Session(of, requests).events()  # 1 USD each, by Claude Code
    store(running, [priced, unknown | {"model": "claude-nobody-knows-9"}])
    asked = ("--session", of, "--by", "model", "--cost", "both")
    told = reported(running, configuration, "cost", *asked)
    names = ("reported_usd", "cost_usd", "difference_usd", "unpriced_requests", "unpriced_tokens")
    assert [told["total"][name] for name in names] == pytest.approx([2, 0.3, 0.7, 1, 100_000])
    assert {row["model"]: [row[name] for name in names] for row in told["rows"]} == {
        "claude-sonnet-4-5": pytest.approx([1, 0.3, 0.7, 0, 0]), "claude-nobody-knows-9": pytest.approx([1, 0, 0, 1, 100_000]),
    }  # fmt: skip
    head, _, first, *_ = called(running, configuration, "report", "cost", *asked).stdout.splitlines()
    assert re.split("  +", head)[:5] == ["model", "reported", "computed", "reported more", "requests"]
    assert first.split()[:4] == ["claude-sonnet-4-5", "$1.00", "$0.30", "$0.70"]
