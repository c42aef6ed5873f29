"""Records that nobody takes: they wait within bounds, are sent once, and the server is started once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import pytest

from tests.client import OtlpRecorder
from tests.unit.test_hooks import NOBODY, Session, book, git, otlp, records, session

__all__ = ["otlp", "session"]  # fixtures
T = TypeVar("T")
pytestmark = [pytest.mark.checkout, pytest.mark.needs("sh", "git")]


def waiting(session: Session, number: int, *, at_ns: int = 0, size: int = 0, claim: str = "") -> str:
    """Puts a record into the spool as another hook would have left it; its id."""
    at_ns = at_ns or time.time_ns() - 10**9
    record = {"session_id": f"s{number}", "at_ns": at_ns, "record_id": f"{number:032x}", "feature": "x" * size}
    folder = session.home / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{at_ns:020d}-{number:032x}.json{claim}").write_text(json.dumps(record))
    return record["record_id"]


def listener(answer: bytes | None, delay: float = 0.0) -> tuple[int, list[bytes]]:
    """A port that answers with these bytes, or never; and what it was asked."""
    server = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:
        kept = []
        while True:
            connection, _ = server.accept()
            asked.append(connection.recv(1 << 16))
            kept.append(connection)
            if answer is not None:
                time.sleep(delay)
                connection.sendall(answer)
                connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1], asked


def test_what_waits_is_sent_with_the_next_record_in_order(session: Session, otlp: OtlpRecorder) -> None:
    there, session.port = session.port, NOBODY
    session.start()
    session.edit(session.cwd / "manuscript/05-part/33-agents/text.md")
    assert [one["chapter"] for one in session.spooled()] == ["", "33-agents"]
    assert "waits" in session.log()
    session.port = there
    session.edit(session.cwd / "manuscript/05-part/34-costs/text.md")
    assert [one["chapter"] for one in records(otlp, 3)] == ["", "33-agents", "34-costs"]
    assert [one["at_ns"] for one in records(otlp)] == sorted(one["at_ns"] for one in records(otlp))
    assert session.spooled() == []
    assert session.counters()["delivered"] == 3


def test_what_waits_is_sent_by_a_prompt_though_nothing_changed(session: Session, otlp: OtlpRecorder) -> None:
    there, session.port = session.port, NOBODY
    session.start()
    session.port = there
    session.hook("prompt", prompt="go on")
    assert len(records(otlp, 1)) == 1
    assert session.spooled() == []


def settled(session: Session, seconds: float = 8) -> None:
    """Waits until no record is being sent any more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(file.suffix != ".json" for file in (session.home / "spool").iterdir()):
        time.sleep(0.05)


def soon(ask: Callable[[], T]) -> T:
    """What `ask` says, or will say in a moment: a record is counted, and told of in the log, after it has left its place."""
    end = time.monotonic() + 2
    while not (said := ask()) and time.monotonic() < end:
        time.sleep(0.01)
    return said


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"", None])
def test_a_server_that_does_not_take_a_record_does_not_lose_it(session: Session, answer: bytes | None) -> None:
    session.port, _ = listener(answer)
    begun = time.monotonic()
    session.start()
    assert time.monotonic() - begun < 3.5
    settled(session)
    assert len(session.spooled()) == 1
    assert soon(lambda: "did not take" in session.log())


def test_pitfall_30_a_server_that_commits_slowly_is_not_waited_for(session: Session) -> None:
    session.port, asked = listener(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", delay=4)
    begun = time.monotonic()
    session.start()
    assert time.monotonic() - begun < 3.5
    assert session.spooled() == []  # it is being sent, and nobody else's
    session.hook("prompt", prompt="go on")
    settled(session)
    assert soon(lambda: session.counters().get("delivered")) == 1
    assert sum(b"POST /v1/logs" in one for one in asked) == 1


def test_a_full_backlog_is_bounded_too(session: Session) -> None:
    server = socket.create_server(("127.0.0.1", 0), backlog=0)
    session.port = server.getsockname()[1]
    held = []
    for _ in range(4):
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(server.getsockname())
        held.append(one)
    begun = time.monotonic()
    session.start()
    assert time.monotonic() - begun < 3.5
    assert len(session.spooled()) == 1


def test_ten_sessions_at_once_deliver_each_waiting_record_once(session: Session, otlp: OtlpRecorder) -> None:
    expected = {waiting(session, number) for number in range(120)}
    many = [Session(session.scratch, session.cwd, session.port, id=f"session-{number}", more=session.more) for number in range(10)]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(Session.start, many))
    for _ in range(30):  # a loaded machine's receiver may be too slow for some; what waits is sent by the next
        session.start()
        settled(session)
        if not session.spooled():
            break
    sent = [one["record_id"] for one in records(otlp, 131)]
    assert len(sent) == len(set(sent)) == 131
    assert expected <= set(sent)
    assert session.spooled() == []
    settled(session)
    assert soon(lambda: session.counters().get("delivered") == 131)
    assert session.counters() == {"delivered": 131, "dropped": 0, "delivered_ns": session.counters()["delivered_ns"]}


def test_the_spool_is_bounded_in_number_size_and_age(session: Session) -> None:
    session.port = NOBODY
    waiting(session, 1, at_ns=time.time_ns() - 40 * 86_400 * 10**9)
    for number in range(2, 1200):
        waiting(session, number)
    session.start()
    assert len(session.spooled()) == 1000
    assert session.spooled()[-1]["session_id"] == session.id  # the oldest go
    assert session.counters()["dropped"] == 200
    for number in range(2000, 2100):
        waiting(session, number, size=50_000)
    session.hook("prompt", prompt="/plan")
    assert sum(file.stat().st_size for file in (session.home / "spool").iterdir()) <= 2 << 20


def test_a_record_older_than_a_month_is_dropped_alone(session: Session) -> None:
    session.port = NOBODY
    waiting(session, 1, at_ns=time.time_ns() - 40 * 86_400 * 10**9)
    waiting(session, 2)
    session.start()
    assert [one["session_id"] for one in session.spooled()] == ["s2", session.id]
    assert session.counters()["dropped"] == 1


def test_the_claim_of_a_dead_hook_is_taken_over_and_a_fresh_one_respected(session: Session, otlp: OtlpRecorder) -> None:
    stale = waiting(session, 1, claim=f".{int(time.time()) - 120}.99999")
    fresh = waiting(session, 2, claim=f".{int(time.time())}.99999")
    session.start()
    sent = {one["record_id"] for one in records(otlp, 2)}
    assert stale in sent
    assert fresh not in sent


def test_a_claim_made_before_the_clock_was_set_back_is_taken_over(session: Session, otlp: OtlpRecorder) -> None:
    ahead = waiting(session, 1, claim=f".{int(time.time()) + 86_400}.99999")
    session.start()
    assert ahead in {one["record_id"] for one in records(otlp, 2)}


def test_half_a_record_in_the_spool_harms_nobody(session: Session, otlp: OtlpRecorder) -> None:
    waiting(session, 1)
    (session.home / "spool" / f"{time.time_ns():020d}-half.json").write_text('{"session_id": "s')
    (session.home / "spool" / "notes.txt").write_text("not ours")
    session.start()
    assert len(records(otlp, 2)) == 2
    assert [path.name for path in (session.home / "spool").iterdir()] == ["notes.txt"]
    assert session.counters()["dropped"] == 1


@pytest.mark.parametrize("at_ns", ['"soon"', "-5", "null", "[1]", "1.5"])
def test_a_record_of_no_moment_does_not_hold_up_the_others(session: Session, otlp: OtlpRecorder, at_ns: str) -> None:
    """The server refuses a request with such a one, and so all records, those of now too, for as long as it lay there."""
    waiting(session, 1)
    spoilt = f'{{"session_id": "s", "record_id": "{"0" * 32}", "at_ns": {at_ns}}}'
    (session.home / "spool" / f"{time.time_ns():020d}-{'0' * 32}.json").write_text(spoilt)
    session.start()
    assert len(records(otlp, 2)) == 2 and session.counters()["dropped"] == 1


def stand_in(session: Session, text: str) -> Path:
    cli = session.scratch / "stand in"
    cli.write_text("#!/bin/sh\n" + text)
    cli.chmod(0o755)
    session.more["SP_TELEMETRY_CLI"] = str(cli)
    return cli


def configured(session: Session, text: str = "") -> None:
    session.home.mkdir(exist_ok=True)
    (session.home / "config.toml").write_text(text)


def lines_of(file: Path, number: int) -> list[str]:
    for _ in range(40):
        if file.exists() and len(file.read_text().splitlines()) >= number:
            break
        time.sleep(0.05)
    time.sleep(0.2)  # and no more than that
    return file.read_text().splitlines() if file.exists() else []


def test_the_server_is_started_once_for_ten_sessions_and_not_waited_for(session: Session) -> None:
    session.port = NOBODY
    configured(session)
    started = session.scratch / "started"
    stand_in(session, f"echo \"$@\" >>'{started}'\nsleep 8\n")
    many = [Session(session.scratch, session.cwd, NOBODY, id=f"session-{n}", more=session.more) for n in range(10)]
    begun = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(Session.start, many))
    assert time.monotonic() - begun < 7
    assert lines_of(started, 1) == ["up --quiet"]


@pytest.mark.parametrize("config", [None, "autostart = false\n", 'backend = "compose"\n'])
def test_the_server_is_not_started_before_set_up_nor_against_the_setting(session: Session, config: str | None) -> None:
    session.port = NOBODY
    if config is not None:
        configured(session, config)
    started = session.scratch / "started"
    stand_in(session, f"echo x >>'{started}'\n")
    session.start()
    assert lines_of(started, 1) == []


def test_a_server_that_runs_is_not_started(session: Session, otlp: OtlpRecorder) -> None:
    configured(session)
    started = session.scratch / "started"
    stand_in(session, f"echo x >>'{started}'\n")
    session.start()
    session.start("compact")
    assert lines_of(started, 1) == []


@pytest.mark.parametrize(
    ("config", "version", "wanted"),
    [("", "0.0.9", ["up --quiet"]), ("", "1000.0", []), ("", "", []), ("autostart = false\n", "0.0.9", [])],
)
def test_a_server_of_an_older_version_is_replaced_when_a_session_starts(
    session: Session, otlp: OtlpRecorder, config: str, version: str, wanted: list[str]
) -> None:
    configured(session, config)
    (session.home / "server.json").write_text(json.dumps({"version": version, "ports": {"otlp_http": session.port}}))
    started = session.scratch / "started"
    stand_in(session, f"echo \"$@\" >>'{started}'\n")
    session.start()
    session.start("compact")
    assert lines_of(started, 1) == wanted


class Store:
    """Answers a query as the ClickHouse interface does, after a while."""

    def __init__(self, answer: str, delay: float = 0.0) -> None:
        self.asked: list[tuple[str, str, str]] = []
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                sql = self.rfile.read(int(self.headers["content-length"])).decode()
                store.asked.append((sql, self.headers.get("X-ClickHouse-User", ""), self.headers.get("X-ClickHouse-Key", "")))
                time.sleep(delay)
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self.wfile.write(f"{len(answer):x}\r\n{answer}\r\n0\r\n\r\n".encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.port = str(self._server.server_address[1])


def test_a_session_opens_with_a_line_for_the_model_and_one_for_the_person(session: Session) -> None:
    (session.home / "secrets").mkdir(parents=True)
    (session.home / "secrets" / "telemetry_reader").write_text("hush\n")
    store = Store("12\t1.234\n")
    session.more["SP_TELEMETRY_CLICKHOUSE_PORT"] = store.port
    session.cwd = session.cwd / "manuscript/05-part/33-agents"
    told = session.start()
    assert told == {
        "systemMessage": "017 usage-data-collection · chapter 33 · today $1.23",
        "hookSpecificOutput": {
            "hookEventName": "SessionStart",
            "additionalContext": "sp-telemetry counts this session under feature 017-usage-data-collection "
            "(specs/017-usage-data-collection), chapter 33-agents.",
        },
    }
    ((sql, user, key),) = store.asked
    assert (user, key) == ("telemetry_reader", "hush")
    assert "api_request" in sql


def test_a_cost_that_is_not_there_in_time_is_left_out(session: Session) -> None:
    session.more["SP_TELEMETRY_CLICKHOUSE_PORT"] = Store("12\t1.23\n", delay=4).port
    begun = time.monotonic()
    assert session.start()["systemMessage"] == "017 usage-data-collection"
    assert time.monotonic() - begun < 3.5


@pytest.mark.parametrize("answer", ["0\t0\n", "Code: 516. DB::Exception", ""])
def test_a_store_without_an_answer_shows_no_cost(session: Session, answer: str) -> None:
    session.more["SP_TELEMETRY_CLICKHOUSE_PORT"] = Store(answer).port
    assert session.start()["systemMessage"] == "017 usage-data-collection"


def test_the_line_can_be_switched_off_and_is_not_repeated_when_compacting(session: Session) -> None:
    assert "systemMessage" not in session.start("compact")
    session.more["SP_TELEMETRY_SESSION_LINE"] = "0"
    assert "systemMessage" not in session.start()
    del session.more["SP_TELEMETRY_SESSION_LINE"]
    configured(session, "session_line = false\nautostart = false\n")
    assert set(session.start()) == {"hookSpecificOutput"}


def test_where_nothing_is_known_nothing_is_said(session: Session, tmp_path: Path) -> None:
    session.cwd = book(tmp_path / "other")
    git(session.cwd, "switch", "-q", "main")
    assert session.start() == {}


def test_states_of_old_sessions_go(session: Session) -> None:
    session.start()
    old = session.home / "hooks" / "old.json"
    old.write_text("{}")
    subprocess.run(["touch", "-d", "40 days ago", str(old)], check=True)
    session.start()
    assert not old.exists()
    assert (session.home / "hooks" / f"{session.id}.json").exists()


@pytest.mark.parametrize(("config", "expected"), [("", []), ("backfill = false\n", []), ("backfill = true\n", ["backfill --quiet"])])
def test_gaps_are_filled_in_once_an_hour_where_somebody_agreed(session: Session, otlp: OtlpRecorder, config: str, expected: list) -> None:
    configured(session, config)
    started = session.scratch / "started"
    stand_in(session, f"echo \"$@\" >>'{started}'; sleep 5\n")
    begun = time.monotonic()
    session.start()
    session.start("resume")
    assert time.monotonic() - begun < 4  # it is not waited for
    assert lines_of(started, len(expected)) == expected
    if expected:
        an_hour_ago = time.time() - 3601
        os.utime(session.home / "hooks" / "backfill", (an_hour_ago, an_hour_ago))
        session.start()
        assert lines_of(started, 2) == expected * 2


def test_nothing_is_filled_in_before_set_up(session: Session, otlp: OtlpRecorder) -> None:
    started = session.scratch / "started"
    stand_in(session, f"echo \"$@\" >>'{started}'\n")
    session.more["SP_TELEMETRY_BACKFILL"] = "1"
    session.start()
    assert lines_of(started, 1) == []
