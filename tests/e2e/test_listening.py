"""Clients that speak HTTP as it should not be, slowly, or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve import bodies, clickhouse_http, listener
from sp_telemetry.setup.replay import GRPC_METHODS
from tests.e2e.listening import HEAD, HIDDEN, events, log_of, raw, request, resident_mib, running, statuses
from tests.server import Server, as_json, as_protobuf

__all__ = ["running"]  # a fixture

SMUGGLED = {
    "length and chunks": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
    "two lengths in one": HEAD + b"Content-Length: 0, 5\r\n\r\n" + HIDDEN,
    "a signed length": HEAD + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a hexadecimal length": HEAD + b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "an endless length": HEAD + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n" + HIDDEN,
    "a name with a blank": HEAD + b"Content-Length : 0\r\n\r\n" + HIDDEN,
    "a folded header": HEAD + b"X: a\r\n Content-Length: 0\r\n\r\n" + HIDDEN,
    "another coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunked, identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "a chunk's size with a sign": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+0\r\n\r\n" + HIDDEN,
    "a chunk's size without end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20_000 + b"\r\n\r\n" + HIDDEN,
    "a null in a header": HEAD + b"X: a\0b\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a line feed alone": b"POST /v1/logs HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n" + HIDDEN,
    "a return alone": b"POST /v1/logs HTTP/1.1\rHost: localhost\rContent-Length: 0\r\r" + HIDDEN,
    "HTTP/0.9": b"POST /v1/logs\r\n\r\n" + HIDDEN,
    "HTTP/3.0": HEAD.replace(b"1.1", b"3.0") + b"Content-Length: 0\r\n\r\n" + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "an upgrade to HTTP/2": HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "TLS": bytes.fromhex("1603010200010001fc0303") + b"\0" * 200 + HIDDEN,
    "a line of 10 MB": b"GET /" + b"a" * (10 << 20) + b" HTTP/1.1\r\n\r\n",
    "a header of 10 MB": HEAD + b"X: " + b"a" * (10 << 20) + b"\r\n\r\n",
    "100,000 headers": HEAD + b"X: a\r\n" * 100_000 + b"\r\n",
}  # fmt: skip


HTTP = ("otlp_http", "clickhouse", "health", "metrics")


@pytest.mark.parametrize("way", SMUGGLED)
def test_smuggling(running: Server, way: str) -> None:
    """Whatever one reader takes for the end of a request and another doesn't: refused on each listener, and nothing after it is read."""
    with ThreadPoolExecutor(len(HTTP)) as pool:
        answers = list(pool.map(lambda port: raw(running, SMUGGLED[way], port), HTTP))
    for port, answer in zip(HTTP, answers, strict=True):
        assert len(statuses(answer)) <= 1 and not {200, 500} & set(statuses(answer)), (port, answer[:600])
    assert events(running, "smuggled") == 0
    assert running.post("logs", as_protobuf(request("after")))[0] == 200


@pytest.mark.parametrize("port", HTTP[1:])
def test_two_whole_requests_are_two(running: Server, port: str) -> None:
    """So that one answer above means that what follows was not read."""
    assert len(statuses(raw(running, HEAD + b"Content-Length: 0\r\n\r\n" + HIDDEN, port))) == 2


def test_requests_one_after_another_on_one_connection_are_each_answered(running: Server) -> None:
    bodies = [as_json(request("pipelined", number)) for number in range(20)]
    text = b"".join(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies)
    got = b""
    with socket.create_connection(("127.0.0.1", running.ports["otlp_http"]), timeout=60) as connection:
        connection.sendall(text)
        while len(statuses(got)) < 20 and (piece := connection.recv(1 << 16)):
            got += piece
    assert statuses(got) == [200] * 20
    assert events(running, "pipelined") == 20


@pytest.mark.parametrize("port", HTTP)
def test_private_network_access_is_not_granted(running: Server, port: str) -> None:
    asked = b"OPTIONS /v1/logs HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n"
    answer = raw(
        running, asked + b"Access-Control-Request-Private-Network: true\r\nAccess-Control-Request-Local-Network: true\r\n\r\n", port
    )
    assert statuses(answer) == [403] and b"access-control" not in answer.lower()


TWICE = [
    "Origin: http://localhost\r\nOrigin: https://evil.example",
    "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
]


@pytest.mark.parametrize("twice", TWICE)
def test_a_web_page_is_not_overlooked_behind_a_header_of_our_own(running: Server, twice: str) -> None:
    assert statuses(raw(running, HEAD + twice.encode() + b"\r\nContent-Length: 0\r\n\r\n")) == [403]


def half_closed(started: Server, text: bytes, port: str) -> bytes:
    """What is answered to a client that sends this and says that no more comes."""
    with socket.create_connection(("127.0.0.1", started.ports[port]), timeout=20) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))
        return b""


def test_who_says_that_no_more_comes_is_answered(running: Server) -> None:
    """As `nc -N` does. All that arrived whole is answered, then the connection is closed; of what did not arrive whole nothing is taken."""
    bodies = [as_json(request("half closed", number)) for number in range(3)]
    asked = [HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body) for body in bodies]
    assert statuses(half_closed(running, asked[0], "otlp_http")) == [200]
    assert statuses(half_closed(running, b"".join(asked), "otlp_http")) == [200] * 3
    assert events(running, "half closed") == 3
    question = b"SELECT 'half', count() FROM numbers(3e8) WHERE NOT ignore(sipHash64(number))"
    answer = half_closed(running, query_of(READER, running, len(question)) + question, "clickhouse")
    assert statuses(answer) == [200] and answer.endswith(b"half\t300000000\n")
    begun = time.monotonic()
    for text in (b"", HEAD, asked[0][:-1]):
        assert 200 not in statuses(half_closed(running, text, "otlp_http"))
    assert time.monotonic() - begun < 2


# ---- slowly


def trickle(started: Server, text: bytes, port: str, every: float = 0.5, limit: float = 60) -> tuple[float, bytes]:
    """Send byte for byte; how long that was borne, in seconds, and the answer."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", started.ports[port]), timeout=5) as connection:
        connection.settimeout(every)
        got = b""
        for byte in text:
            try:
                connection.send(bytes((byte,)))
                piece = connection.recv(4096)
                got += piece
                if not piece:
                    break
            except TimeoutError:
                pass
            except OSError:
                break
            if time.monotonic() - began > limit:
                break
        return time.monotonic() - began, got


def drained(connection: socket.socket) -> None:
    """Returns when the server has closed it."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass


@contextlib.contextmanager
def idle_to_grpc(started: Server) -> Iterator[list[socket.socket]]:
    """300 connections that say nothing; broken ones have come and gone, and a request has gone through beside them."""
    address = ("127.0.0.1", started.ports["otlp_grpc"])
    idle = [socket.create_connection(address, timeout=40) for _ in range(300)]
    try:
        for text in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500, b"\0" * 100_000, HIDDEN):
            with socket.create_connection(address, timeout=10) as connection:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(text)
                drained(connection)
        with grpc.insecure_channel(f"127.0.0.1:{address[1]}") as channel:
            assert channel.unary_unary(GRPC_METHODS["logs"])(as_protobuf(request("through grpc")), timeout=30) == b""
        yield idle
    finally:
        for connection in idle:
            connection.close()


def test_slow_and_idle_clients_are_given_up_and_others_served_meanwhile(running: Server) -> None:
    """Heads byte for byte on each listener: within seconds each is told so and its connection closed. To gRPC, connections that say
    nothing, or what it does not understand."""
    head = b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 100
    with ThreadPoolExecutor(8) as pool, idle_to_grpc(running) as idle:
        heads = [pool.submit(trickle, running, head, port) for port in HTTP]
        for number in range(5):
            assert running.post("logs", as_protobuf(request("meanwhile", number)))[0] == 200
        for borne, answer in (each.result() for each in heads):
            assert 5 < borne < 50 and statuses(answer) == [408], (borne, answer)
        for connection in idle:
            drained(connection)
    assert events(running, "meanwhile") == 5
    assert events(running, "through grpc") == 1


def test_what_arrives_while_the_server_stands_still_is_not_late(running: Server) -> None:
    """Suspended, say: when it goes on, its clocks have run out and all is there. 408 would make an exporter throw its events away."""
    body = as_json(request("meanwhile all stood still"))
    with socket.create_connection(("127.0.0.1", running.ports["otlp_http"]), timeout=60) as connection:
        time.sleep(0.5)  # it is accepted
        os.kill(running.running.pid, signal.SIGSTOP)
        try:
            connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            time.sleep(listener.REQUEST_S + 0.5)
        finally:
            os.kill(running.running.pid, signal.SIGCONT)
        assert statuses(connection.recv(1 << 16)) == [200]
    assert events(running, "meanwhile all stood still") == 1


@pytest.mark.long
def test_slow_bodies_are_given_up(running: Server) -> None:
    begun = HEAD + b"Content-Length: 1000000\r\n\r\n"
    slow_body = (b"POST /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\nX-ClickHouse-User: telemetry_user\r\n"
                 b"X-ClickHouse-Key: %s\r\nContent-Length: 1000000\r\n\r\n" % running.home.secret(WRITER).encode())  # fmt: skip

    def body(begun: bytes, port: str) -> bytes:
        with socket.create_connection(("127.0.0.1", running.ports[port]), timeout=60) as connection:
            connection.sendall(begun + b"x")
            return connection.recv(4096)

    with ThreadPoolExecutor(2) as pool:
        answers = pool.map(body, [begun, slow_body], ["otlp_http", "clickhouse"])
        assert [statuses(answer) for answer in answers] == [[503], [503]]


def query_of(user: str, started: Server, size: int) -> bytes:
    """The head of one that has such a body."""
    key = started.home.secret(user)
    return (f"POST / HTTP/1.1\r\nHost: localhost\r\nX-ClickHouse-User: {user}\r\nX-ClickHouse-Key: {key}\r\n"
            f"Content-Length: {size}\r\n\r\n").encode()  # fmt: skip


def sockets(of: Server) -> int:
    """How many the server has open; the engine opens files as it likes."""
    number = 0
    for descriptor in Path(f"/proc/{of.running.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it has been closed
            number += os.readlink(descriptor).startswith("socket:")
    return number


@pytest.mark.parametrize("port", ["otlp_http", "clickhouse"])
def test_slow_bodies_shut_nobody_out(running: Server, port: str) -> None:
    """More than there may be connections, each with a part of a request: those that came first make room, and it is said once."""
    begun = query_of(READER, running, 1000) if port == "clickhouse" else HEAD + b"Content-Length: 1000\r\n\r\n"
    before, had = log_of(running), sockets(running)
    opened = []
    try:
        for _ in range(listener.CONNECTIONS + 50):
            connection = socket.create_connection(("127.0.0.1", running.ports[port]), timeout=10)
            connection.sendall(begun + b"x")
            opened.append(connection)
        time.sleep(0.5)
        for number in range(10):
            assert running.query("SELECT 1") == [[1]]
            assert running.post("logs", as_protobuf(request(f"through slow {port}", number)))[0] == 200
        assert sockets(running) - had <= listener.CONNECTIONS + 5
        with contextlib.suppress(ConnectionResetError):  # what it has sent last was not read any more
            assert statuses(opened[0].recv(4096)) == [503]
        opened[-1].sendall(b"x")
        opened[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):  # the last is still heard
            opened[-1].recv(1)
    finally:
        for connection in opened:
            connection.close()
    assert events(running, f"through slow {port}") == 10
    assert log_of(running).removeprefix(before).count("Too many connections") <= 1
    assert log_of(running).count("Too many connections") >= 1


def test_who_makes_room_is_told_to_come_again(running: Server) -> None:
    """More connections at once than there may be, each with a whole request: some are not looked at yet. After a 408 senders throw away."""
    body = as_json(request("burst"))
    asked = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    told: Counter[int] = Counter()
    for _ in range(10):
        opened = []
        for _ in range(listener.CONNECTIONS + 50):
            opened.append(socket.create_connection(("127.0.0.1", running.ports["otlp_http"]), timeout=10))
            opened[-1].sendall(asked)
        for connection in opened:
            with connection, contextlib.suppress(ConnectionError):
                told.update(statuses(connection.recv(4096)))
    assert told[200] > 1000 and not told.keys() - {200, 503}, told


def test_half_bodies_of_readers_take_bounded_memory(running: Server) -> None:
    """And what came first makes room for a question that is asked now."""
    size = clickhouse_http.MAX_QUESTION
    begun = query_of(READER, running, size) + b"SELECT 1 -- " + b"x" * (size - 100)
    before = resident_mib(running)
    opened = []
    try:
        for _ in range(60):
            connection = socket.create_connection(("127.0.0.1", running.ports["clickhouse"]), timeout=10)
            with contextlib.suppress(ConnectionError):  # it is refused
                connection.sendall(begun)
            opened.append(connection)
        assert resident_mib(running) - before < 3 * clickhouse_http.ROOM[READER] >> 20
        time.sleep(bodies.SLOW_S)
        question = b"SELECT 1 -- " + b"x" * 200_000
        answer = raw(running, query_of(READER, running, len(question)) + question, "clickhouse")
        assert statuses(answer) == [200], answer
    finally:
        for connection in opened:
            connection.close()


@pytest.mark.parametrize("port", HTTP)
def test_a_thousand_idle_connections_cost_little_and_shut_nobody_out(running: Server, port: str) -> None:
    running.stored("logs", as_protobuf(request("before")))
    before = resident_mib(running)
    descriptors = Path(f"/proc/{running.running.pid}/fd")
    opened = []
    try:
        for number in range(1000):
            connection = socket.create_connection(("127.0.0.1", running.ports[port]), timeout=10)
            opened.append(connection)
            if number % 2:
                connection.sendall(b"POST /v1/logs HTTP/1.1\r\n")
        for number in range(10):
            assert running.post("logs", as_protobuf(request(f"through {port}", number)))[0] == 200
        assert running.query("SELECT 1") == [[1]]
        assert [running.get("health", "/")[0], running.get("metrics", "/metrics")[0]] == [200, 200]
        assert len(list(descriptors.iterdir())) < 500
        assert resident_mib(running) - before < 60
    finally:
        for connection in opened:
            connection.close()
    assert events(running, f"through {port}") == 10


def test_connections_that_are_at_work_are_not_closed_for_others(running: Server) -> None:
    """Requests half arrived stay, while idle connections come and go."""
    body = as_json(request("kept"))
    half = []
    for _ in range(20):
        connection = socket.create_connection(("127.0.0.1", running.ports["otlp_http"]), timeout=20)
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body[:10]))
        half.append(connection)
    time.sleep(0.3)
    idle = [socket.create_connection(("127.0.0.1", running.ports["otlp_http"]), timeout=10) for _ in range(300)]
    for connection in half:
        connection.sendall(body[10:])
        assert statuses(connection.recv(4096)) == [200]
        connection.close()
    for connection in idle:
        connection.close()
