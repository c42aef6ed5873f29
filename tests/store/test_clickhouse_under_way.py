"""Queries under way on the ClickHouse HTTP interface: their clients go, read slowly or not, meet a late error; the server stops."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from sp_telemetry.serve import clickhouse_http, listener, peer
from tests.store.clickhouse_server import READER_PASSWORD, WRITER_PASSWORD, Server, ask


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("under way"))
    yield server
    server.close()


def running(server: Server, marker: str) -> int:
    return int(server.owner(f"SELECT count() FROM system.processes WHERE query LIKE '%{marker}%' AND query NOT LIKE '%system.processes%'"))


def until(condition, seconds: float = 5) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        time.sleep(0.02)
    return time.monotonic() - started


def begin(server: Server, sql: str, port: int = 0, **params: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port or server.port))
    query = urllib.parse.urlencode({"query": sql, "user": "telemetry_reader", "password": READER_PASSWORD} | params)
    connection.sendall(f"GET /?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


@pytest.mark.parametrize(
    "sql", ["SELECT count() FROM numbers(1e12) WHERE NOT ignore(sipHash64(number), 'gone-1')", "SELECT number, 'gone-2' FROM numbers(1e12)"]
)
def test_a_query_ends_when_its_client_goes(server: Server, sql: str) -> None:
    connection = begin(server, sql)
    until(lambda: running(server, "gone-"))
    connection.close()
    assert until(lambda: not running(server, "gone-")) < 3


def test_a_query_goes_on_for_a_client_that_says_no_more_and_ends_when_it_goes(server: Server) -> None:
    with begin(server, "SELECT count() FROM numbers(1e12) WHERE NOT ignore(sipHash64(number), 'gone-3')") as connection:
        connection.shutdown(socket.SHUT_WR)
        until(lambda: running(server, "gone-3"))
        time.sleep(1.5)
        assert running(server, "gone-3")
    until(lambda: not running(server, "gone-3"))


def test_many_clients_are_looked_for_seldom_where_to_look_takes_long(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only /proc tells: to look for as many as there may be each second took all of the server's time."""
    owner, looks = peer.owner, []

    def slowly(*ends: peer.Address) -> int | None:
        looks.append(time.sleep(0.02))
        return owner(*ends)

    connections = [begin(server, "SELECT count() FROM numbers(1e12) WHERE NOT ignore(sipHash64(number), 'seldom')") for _ in range(30)]
    until(lambda: running(server, "seldom") == 4)
    monkeypatch.setattr(peer, "owner", slowly)
    for connection in connections:
        connection.shutdown(socket.SHUT_WR)
    time.sleep(3)
    assert len(looks) < 60 and running(server, "seldom") == 4
    monkeypatch.undo()
    for connection in connections:
        connection.close()
    until(lambda: not running(server, "seldom"), 10)


def test_a_slow_reader_holds_no_memory(server: Server) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is read from /proc")
    with contextlib.ExitStack() as connections:
        for _ in range(4):
            connections.enter_context(begin(server, "SELECT number, repeat('x', 200), 'slow' FROM numbers(1e11)"))
        until(lambda: running(server, "slow") == 4)
        time.sleep(1)  # what each has in hand, which is several blocks for each of the engine's threads
        before = resident()
        time.sleep(2)
        assert running(server, "slow") == 4
        assert resident() - before < 100 << 20
    until(lambda: not running(server, "slow"))


def test_who_reads_nothing_of_an_answer_for_long_holds_no_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clickhouse_http, "SLOW_READER_S", 0.5)
    with begin(server, "SELECT number, repeat('x', 200), 'silent' FROM numbers(1e11)") as connection:
        until(lambda: running(server, "silent"))
        until(lambda: peer.owner(connection.getpeername(), connection.getsockname()) == peer.GONE)  # the server's end is nobody's
    until(lambda: not running(server, "silent"))


@pytest.mark.parametrize("reads", [False, True])
def test_what_is_left_of_a_whole_answer_waits_for_who_reads_on(server: Server, monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    monkeypatch.setattr(listener, "KEEP_ALIVE_S", 1.0)  # less, and a kernel that tells of room in larger steps is taken for no reader
    with begin(server, "SELECT repeat('x', 1000) FROM numbers(60000)", wait_end_of_query="1") as connection:
        got = connection.recv(1000)
        if not reads:
            until(lambda: peer.owner(connection.getpeername(), connection.getsockname()) == peer.GONE, 20)
        while reads and (piece := connection.recv(1 << 18)):
            got += piece
            time.sleep(0.01)
        assert not reads or len(got) > 60_000_000


@pytest.mark.parametrize("half", [False, True])
def test_who_goes_before_the_answers_end_is_no_trouble_of_ours(server: Server, half: bool, caplog: pytest.LogCaptureFixture) -> None:
    with begin(server, "SELECT number, repeat('x', 200), 'going' FROM numbers(1e11)") as connection:
        if half:
            connection.shutdown(socket.SHUT_WR)
        connection.recv(1000)
        time.sleep(0.5)
    until(lambda: not running(server, "going"))
    time.sleep(0.1)
    assert not caplog.records


def test_a_late_error_is_marked_and_breaks_off(server: Server) -> None:
    answer_raw = b""
    with begin(server, "SELECT throwIf(number = 500000), repeat('x', 20) FROM numbers(1000000)", max_block_size="10000") as connection:
        connection.settimeout(10)
        while piece := connection.recv(1 << 16):
            answer_raw += piece
    assert answer_raw.startswith(b"HTTP/1.1 200") and b"__exception__" in answer_raw[-2000:] and b"Code: 395" in answer_raw[-2000:]
    assert not answer_raw.endswith(b"0\r\n\r\n")
    client = clickhouse_connect.get_client(host="127.0.0.1", port=server.port, username="telemetry_user", password=WRITER_PASSWORD)
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT throwIf(number = 500000), repeat('x', 20) FROM numbers(1000000) SETTINGS max_block_size = 10000")
    assert "395" in str(caught.value)
    answer = ask(server, "SELECT throwIf(number = 500000), repeat('x', 20) FROM numbers(1000000)", wait_end_of_query="1")
    assert answer.status == 500


def test_queries_run_beside_each_other(server: Server) -> None:
    connection = begin(server, "SELECT count() FROM numbers(1e12) WHERE NOT ignore(sipHash64(number), 'beside') SETTINGS max_threads = 1")
    until(lambda: running(server, "beside"))
    started = time.monotonic()
    assert ask(server, "SELECT 1").text == "1\n"
    assert time.monotonic() - started < 1
    connection.close()


def test_stopping_ends_queries_and_the_engine_closes(tmp_path: Path) -> None:
    """In a process of its own, for one process has one engine. It would crash if a query still ran."""
    script = f"""
import sys, threading, time
sys.path[:0] = {[str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[2] / "src")]!r}
from pathlib import Path
from tests.store import test_clickhouse_under_way as t
server = t.Server(Path({str(tmp_path)!r}))
sqls = ["SELECT number FROM numbers(1e12)", "SELECT count() FROM numbers(1e12) WHERE NOT ignore(sipHash64(number))"]
connections = [t.begin(server, sql) for sql in sqls * 3]
t.until(lambda: int(server.owner("SELECT count() FROM system.processes")) > 4)
started = time.monotonic()
server.close()
print("closed", time.monotonic() - started < 5)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "closed True"), done.stderr[-2000:]


def test_nothing_is_left_running(server: Server) -> None:
    until(lambda: int(server.owner("SELECT count() FROM system.processes")) == 1)
    assert threading.active_count() < 60
