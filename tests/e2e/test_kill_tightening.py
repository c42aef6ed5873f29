"""`kill -9` of the server while stored rows are brought down to a tighter policy: asked again, no byte of what it forbids is left, and no
event is lost."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from sp_telemetry.errors import SpTelemetryError
from sp_telemetry.store.tightening import REQUEST
from tests.e2e.kills import assert_no_part_was_given_up, kill
from tests.secrets_search import columns, files, search
from tests.server import Server, as_protobuf, context, log_request, pairs, wait_for

START = 1_790_000_000 * 10**9
SESSIONS = [str(UUID(int=number)) for number in range(40, 48)]
KILLS = 3  # in a turn
BEGUN = "SELECT count() FROM telemetry.privacy_history WHERE what = 'tightening'"
NUMBERS = "SELECT count(), sum(cost_usd), uniq(session_id), sum(event_sequence), uniq(event_id) FROM telemetry.telemetry_events FINAL"


def tell(server: Server, mark: str, turn: int) -> None:
    """Events, spans, contexts and what is made of them, with the mark in each place that `full` keeps it in."""
    at = START + turn * 10**12
    told = {"prompt": f"say {mark}", "error": f"no {mark}", "tool_name": f"mcp__{mark}", "cost_usd": 0.5, "input_tokens": 3}
    events, spans = [], []
    for number, session in enumerate(SESSIONS):
        own = {"session.id": session, **told}
        events += [{"name": name, "time_ns": at + n, "event.sequence": turn * 1000 + n, **own}
                   for n, name in enumerate(["user_prompt", "api_request", "api_error", "tool_result", mark] * 200)]  # fmt: skip
        events.append(context(session, at - 1, branch=f"017-{mark}", chapter=f"33-{mark}", project="book"))
        spans.append({"name": mark, "startTimeUnixNano": str(at + number), "endTimeUnixNano": str(at + number + 5),
                      "status": {"message": mark}, "attributes": pairs(own | {"user_prompt": mark})})  # fmt: skip
    server.stored("logs", as_protobuf(log_request(events)))
    server.stored("traces", as_protobuf({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}, "traces"))
    server.restart()  # summaries and sums


def tighten_and_kill(folder: Path, turns: int) -> None:
    moments = random.Random(20261130)
    server = Server(folder / "home").up()
    asked = ("privacy", "apply", "--level", "strict", "--to-stored", "--yes")
    request, shown, marks = server.home.path / REQUEST, 0, []
    try:
        for turn in range(3 * turns):  # as often as it takes: a quick machine may be done before it is killed
            if shown >= turns:
                break
            mark = f"zebra{turn}stripes9quagga"
            marks.append(mark)
            (server.home.path / "privacy.toml").unlink(missing_ok=True)
            assert server.command("privacy", "apply", "--level", "full").returncode == 0
            tell(server, mark, turn)
            before = server.query(NUMBERS)
            rule = f"[patterns.animal]\nregex = 'zebra[0-9]+stripes[0-9]quagga'\nlike = ['{mark}']\n"
            (server.home.path / "privacy.toml").write_text(rule)
            began = subprocess.Popen(
                [sys.executable, "-m", "sp_telemetry.cli.main", *asked],
                env={**server.environ, "SP_TELEMETRY_HOME": str(server.home.path)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            try:
                for _ in range(KILLS):  # the server that comes next goes on with it
                    earlier = _count(server)
                    assert wait_for(lambda: _count(server) > earlier or (shown and not request.exists()), 60, 0.005), server.says()  # noqa: B023
                    time.sleep(moments.random() ** 3 / 2)  # mostly at once: it may take no longer than that
                    unfinished = request.exists()
                    kill(server)
                    server.up()
                    shown += unfinished
                    if not unfinished:
                        break
            finally:
                began.kill()
                began.wait()
            if turn % 2:  # the server goes on by itself, or is asked before it could
                assert wait_for(lambda: not request.exists(), 60), server.says()
            done = server.command(*asked, timeout=120)
            assert done.returncode == 0, done.stdout + done.stderr + server.says()
            assert search({"the mark": mark}, files(server.home.store)) == []
            assert server.query(NUMBERS) == before
            assert_no_part_was_given_up(server)
    finally:
        server.down()
    assert shown >= turns, "nothing was under way when it was killed"
    assert search({mark: mark for mark in marks}, [*files(server.home.store), *columns(server.home.store)]) == []


def _count(server: Server) -> int:
    with suppress(SpTelemetryError):
        return server.query(BEGUN)[0][0]
    return 0


def test_killed_while_what_is_stored_comes_down_to_a_tighter_policy(tmp_path: Path) -> None:
    tighten_and_kill(tmp_path, 1)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_often_while_what_is_stored_comes_down_to_a_tighter_policy(tmp_path: Path) -> None:
    tighten_and_kill(tmp_path, 30)
