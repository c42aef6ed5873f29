"""Requests that are too much, too deep or broken: answered rightly, bounded in memory and in the log."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve import clickhouse_http, commit, intake, messages
from sp_telemetry.setup.replay import GRPC_METHODS
from tests.e2e import http2
from tests.e2e.listening import HEAD, HIDDEN, LARGEST_MIB, events, log_of, request, resident_mib, running, session
from tests.server import JSON, PROTOBUF, Server, as_json, as_protobuf, log_request

__all__ = ["running"]  # a fixture


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


def field(number: int, content: bytes) -> bytes:
    size, out = len(content), bytes((number << 3 | 2,))
    while size > 0x7F:
        out += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return out + bytes((size,)) + content


def deep_protobuf(depth: int) -> bytes:
    """A log record with one attribute, an array of an array of … `depth` of them."""
    value = field(1, b"x")
    for _ in range(depth):
        value = field(5, field(1, value))
    attribute = field(1, b"deep") + field(2, value)
    return field(1, field(2, field(2, field(6, attribute))))


def record(of: str, **more: Any) -> dict[str, Any]:
    told = request(of)
    told["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0].update(more)
    return told


def pairs_of(of: str, number: int, value: Any = None) -> list[dict[str, Any]]:
    named = [{"key": f"a{i}", "value": value or {"stringValue": "x"}} for i in range(number)]
    return [
        {"key": "event.name", "value": {"stringValue": "api_request"}},
        {"key": "session.id", "value": {"stringValue": session(of)}},
        *named,
    ]


HOSTILE: dict[str, tuple[bytes, str, set[int]]] = {
    "100,000 attributes, protobuf": (as_protobuf(record("wide-1", attributes=pairs_of("wide-1", 100_000))), PROTOBUF, {200}),
    "100,000 attributes, JSON": (as_json(record("wide-2", attributes=pairs_of("wide-2", 100_000))), JSON, {200}),
    "one attribute 100,000 times": (
        as_json(record("wide-3", attributes=pairs_of("wide-3", 0) + [{"key": "a", "value": {}}] * 100_000)), JSON, {200}),
    "a value of 10 MB": (as_protobuf(request("long-1", prompt="x" * (10 << 20))), PROTOBUF, {200}),
    "a line of 10 MB": (as_json(request("long-2", prompt="x" * (10 << 20))), JSON, {200}),
    "a name of 10 MB": (as_json(request("long-3", **{"n" * (10 << 20): 1})), JSON, {200}),
    "an event's name of 4 MB": (as_json(log_request([{"name": "x" * (4 << 20), "time_ns": 1}])), JSON, {200}),
    "an identity of 10 MB": (as_json(request("long-5" + "x" * (10 << 20))), JSON, {200}),
    "90 deep, JSON": (as_json(record("deep-1", attributes=pairs_of("deep-1", 1, nested(90)))), JSON, {200}),
    "500 deep, JSON": (as_json(record("deep-2", attributes=pairs_of("deep-2", 1, nested(200)))), JSON, {200, 400}),
    "100,000 deep, JSON": (b'{"resourceLogs":' + b"[" * 100_000 + b"]" * 100_000 + b"}", JSON, {400}),
    "100,000 objects deep, JSON": (b'{"resourceLogs":[' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]}", JSON, {400, 200}),
    "90 deep, protobuf": (deep_protobuf(45), PROTOBUF, {200}),
    "100,000 deep, protobuf": (deep_protobuf(20_000), PROTOBUF, {200, 400}),
    "a length beyond the end": (b"\x0a\xff\xff\xff\xff\x07" + b"x" * 100, PROTOBUF, {400}),
    "a length without end": (b"\x0a" + b"\xff" * 100, PROTOBUF, {400}),
    "a negative length": (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", PROTOBUF, {400}),
    "a group without end": (b"\x0b" * 1000, PROTOBUF, {200, 400}),
    "field 0": (b"\x02\x01x", PROTOBUF, {200, 400}),
    "another wire type": (b"\x08\x01", PROTOBUF, {200, 400}),
    "not UTF-8": (as_protobuf(request("utf8", odd="?ODD?")).replace(b"?ODD?", b"\xff\xfe\xc0\x80\0"), PROTOBUF, {200}),
    "half of a surrogate pair": (as_json(request("surrogate", odd="?")).replace(b'"?"', b'"\\ud800"'), JSON, {200, 400}),
    "a time of 2262 and more": (as_json(record("time-1", timeUnixNano="18446744073709551615")), JSON, {200}),
    "no time": (as_json(record("time-2", timeUnixNano="0")), JSON, {200}),
    "a negative time": (as_json(record("time-3", timeUnixNano="-5")), JSON, {200, 400}),
    "a number beyond all": (as_json(request("number", cost_usd=1e308, input_tokens=2**63 - 1)), JSON, {200}),
    "NaN": (as_json(request("nan", cost_usd=float("nan"))), JSON, {200, 400}),
    "a string for a number": (as_json(request("kind", cost_usd="much", input_tokens="-", success="maybe")), JSON, {200}),
    "a key twice": (b'{"resourceLogs":[],"resourceLogs":[]}', JSON, {200, 400}),
    "UTF-16": (as_json(request("utf16")).decode().encode("utf-16"), JSON, {400}),
    "two requests in one": (as_json(request("two")) + b"\n" + as_json(request("two", 2)), JSON, {400}),
    "a comment": (b'{"resourceLogs":[]} -- x', JSON, {400}),
}  # fmt: skip


@pytest.mark.parametrize("way", HOSTILE)
def test_hostile_bodies_are_answered_rightly(running: Server, way: str) -> None:
    """200 where it could be stored, 400 where it never can: nothing is to be sent again and again. The server lives, and its memory
    and its log stay small."""
    body, content_type, allowed = HOSTILE[way]
    before, logged = resident_mib(running), len(log_of(running))
    status, _, answer = running.post("logs", body, content_type)
    assert status in allowed, (status, answer[:500])
    assert len(answer) < 20_000
    assert resident_mib(running) - before < 700
    assert len(log_of(running)) - logged < 20_000
    assert running.post("logs", as_protobuf(request("still there")))[0] == 200


@contextmanager
def most_memory(running: Server) -> Iterator[list[int]]:
    """What the server has in MiB, from before the block until its end, looked at all the time."""
    seen, done = [resident_mib(running)], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(resident_mib(running))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def test_a_request_that_takes_too_much_memory_is_rejected(running: Server) -> None:
    """4 kB, 2 million log records with nothing in them: to be sent again it would take as much again."""
    records = b"\x12\x00" * 2_000_000
    body = field(1, field(2, records))
    with most_memory(running) as seen:
        status, headers, answer = running.post("logs", gzip.compress(body), PROTOBUF, Content_Encoding="gzip")
    assert (status, headers.get("retry-after")) == (400, None) and commit.TOO_MUCH.encode() in answer, answer
    assert max(seen) - seen[0] < 2 * (intake.MEMORY >> 20) + 300  # it is tried by two ways, and what the first took is given back later
    assert running.get("health", "/")[0] == 200
    assert running.post("logs", as_protobuf(request("after too much")))[0] == 200
    assert events(running, "after too much") == 1


@pytest.mark.parametrize("ratio", [1000])
def test_gzip_bombs_at_once_take_bounded_memory(running: Server, ratio: int) -> None:
    bomb = gzip.compress(b"\0" * (256 << 20), 9)
    twice = gzip.compress(gzip.compress(b"\0" * (64 << 20), 9), 9)
    with most_memory(running) as seen, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: running.post("logs", bomb, PROTOBUF, Content_Encoding="gzip")[0], range(8)))
        assert running.post("logs", twice, PROTOBUF, Content_Encoding="gzip, gzip")[0] in (400, 413, 415)
    assert set(answers) <= {413, 429, 408} and answers
    assert max(seen) - seen[0] < 16 * LARGEST_MIB + 200


def zipped_over_grpc(running: Server, body: bytes) -> bytes:
    connection = http2.Connection(running.ports["otlp_grpc"])
    try:
        stream = connection.call(gzipped=True)
        whole = http2.message(body, compressed=True)
        assert connection.send(stream, whole, end=True, patience=10) == len(whole)
        ends = time.monotonic() + 20
        while stream not in connection.ended and time.monotonic() < ends:
            connection.listen(1)
        return connection.ended[stream]
    finally:
        connection.close()


def test_gzip_bombs_over_grpc_are_refused_in_bounded_memory(running: Server) -> None:
    """256 MB of zeros, and one more of them than a request may have."""
    bomb, over = (gzip.compress(b"\0" * size, 9) for size in (256 << 20, (LARGEST_MIB << 20) + 1))

    def send(body: bytes) -> bytes:
        return zipped_over_grpc(running, body)

    with most_memory(running) as seen, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, [bomb] * 8 + [over] * 2))
    assert all(b"grpc-status" in answer and b"larger than" in answer.lower() for answer in answers), answers
    assert max(seen) - seen[0] < 16 * LARGEST_MIB + 200, (seen[0], max(seen))
    assert b"grpc-status" in send(gzip.compress(as_protobuf(request("gzip over grpc")))) and events(running, "gzip over grpc") == 1


def test_bombs_and_large_bodies_on_every_listener_at_once_take_bounded_memory(running: Server) -> None:
    """Four of each, and whoever comes meanwhile is answered."""
    bomb = gzip.compress(b"\0" * (256 << 20), 9)

    def post(number: int) -> int:
        body = as_protobuf(request("large", number, prompt="x" * ((LARGEST_MIB - 1) << 20)))
        return running.post("logs", body)[0]

    def ask(user: str, query: str) -> int:
        connection = running.http("clickhouse")
        try:
            named = {"X-ClickHouse-User": user, "X-ClickHouse-Key": running.home.secret(user), "Content-Encoding": "gzip"}
            connection.request("POST", query, bomb, named)
            return connection.getresponse().status
        finally:
            connection.close()

    with most_memory(running) as seen, ThreadPoolExecutor(20) as pool:
        bombs = [pool.submit(lambda: running.post("logs", bomb, PROTOBUF, Content_Encoding="gzip")[0]) for _ in range(4)]
        bombs += [pool.submit(ask, READER, "/") for _ in range(4)]
        bombs += [pool.submit(ask, WRITER, "/?query=INSERT+INTO+session_context+FORMAT+RowBinary") for _ in range(4)]
        calls = [pool.submit(zipped_over_grpc, running, bomb) for _ in range(4)]
        large = [pool.submit(post, number) for number in range(4)]
        honest = 0
        while not all(one.done() for one in [*bombs, *calls, *large]) or not honest:
            honest += 1
            assert running.post("logs", as_protobuf(request("beside bombs", honest)))[0] == 200
            assert running.query("SELECT 1") == [[1]] and running.get("health", "/")[0] == 200
        told = [[one.result() for one in some] for some in (bombs, large)]
    assert told == [[413] * 12, [200] * 4], told
    assert all(b"grpc-status" in one.result() and b"larger than" in one.result().lower() for one in calls)
    assert events(running, "beside bombs") == honest and events(running, "large") == 4
    rooms = sum(clickhouse_http.ROOM.values()) >> 20  # which each of the two users may fill
    assert max(seen) - seen[0] < 16 * LARGEST_MIB + 200 + rooms, (seen[0], max(seen))


def test_unfinished_messages_over_grpc_take_bounded_memory_and_shut_nobody_out(running: Server) -> None:
    """30 connections with 32 calls each, of which each has sent all of a large message but its end. What comes meanwhile goes through."""
    port, logged = running.ports["otlp_grpc"], log_of(running)
    almost = http2.message(b"\x0a" * (LARGEST_MIB * 1_000_000))[:-1]
    # The messages that may be read; 88 kB each that waits, 50 kB a connection, what else is served.
    bound = messages.AT_ONCE * LARGEST_MIB + messages.MOST_WAITING // 8 + 300
    connections: list[http2.Connection] = []
    told: Counter[tuple[int, int]] = Counter()  # by connection and stream: how much of its message
    done = threading.Event()

    def push() -> None:
        """As much as the server lets in, all the time; no more than shows that it is too much."""
        while not done.wait(0.01):
            for number, connection in enumerate(connections):
                for stream in list(connection.windows):
                    if seen[-1] - seen[0] < bound:
                        told[number, stream] += connection.send(stream, almost[told[number, stream] :])

    def almost_whole() -> int:
        return sum(size == len(almost) for size in list(told.values()))

    with most_memory(running) as seen, ThreadPoolExecutor(1) as pool:
        try:
            for _ in range(30):
                connections.append(http2.Connection(port))
                for _ in range(32):
                    connections[-1].call()
            pushing = pool.submit(push)
            time.sleep(1)
            assert max(seen) - seen[0] < bound, (seen[0], max(seen))
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                for number in range(3):
                    begun = time.monotonic()
                    body = as_protobuf(request("beside unfinished ones", number, prompt="x" * 100_000))
                    assert channel.unary_unary(GRPC_METHODS["logs"])(body, timeout=10) == b""  # an exporter's own patience
                    assert time.monotonic() - begun < 5
            patience = time.monotonic() + 60  # of a busy machine
            while almost_whole() <= messages.AT_ONCE and time.monotonic() < patience:
                time.sleep(0.1)
        finally:
            done.set()
            pushing.result()
            for connection in connections:
                connection.close()
        assert running.post("logs", as_protobuf(request("beside unfinished ones", 3)))[0] == 200
    assert max(seen) - seen[0] < bound, (seen[0], max(seen))
    assert almost_whole() > messages.AT_ONCE, "without those that take the places this shows nothing"
    assert sum(len(one.ended) for one in connections) >= 30 * 32 - messages.AT_ONCE - messages.MOST_WAITING
    assert events(running, "beside unfinished ones") == 4
    assert log_of(running).removeprefix(logged).count("Too many messages") == 1


def test_a_message_over_grpc_may_take_its_time_where_nobody_waits(running: Server) -> None:
    whole = http2.message(as_protobuf(request("slowly", 1, prompt="x" * 200_000)))
    connection = http2.Connection(running.ports["otlp_grpc"])
    try:
        stream, pieces = connection.call(), 6
        for number in range(pieces):
            piece = whole[number * len(whole) // pieces : (number + 1) * len(whole) // pieces]
            assert connection.send(stream, piece, number == pieces - 1, patience=5) == len(piece)
            time.sleep(0.6)
        connection.listen(10)
        assert b"grpc-status" in connection.ended[stream] and events(running, "slowly") == 1
        empty = connection.call()
        connection.end(empty)
        connection.listen(10)
        assert b"the call has no message" in connection.ended[empty]
    finally:
        connection.close()


def test_what_is_refused_over_and_over_is_logged_seldom(running: Server) -> None:
    before = len(log_of(running))
    for text in (
        b"garbage\r\n\r\n",
        HEAD + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + HIDDEN,
        HEAD + b"Content-Length: 5\r\n\r\nxxxxx",
    ):
        for _ in range(100):
            raw_quick(running, text)
    for _ in range(100):
        with socket.create_connection(("127.0.0.1", running.ports["otlp_http"])) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(HEAD + b"Content-Length: 50\r\n\r\n{")
    assert running.post("logs", as_protobuf(request("after")))[0] == 200
    assert len(log_of(running)) - before < 20_000


def raw_quick(started: Server, text: bytes) -> None:
    with socket.create_connection(("127.0.0.1", started.ports["otlp_http"]), timeout=10) as connection:
        connection.sendall(text)
        assert connection.recv(1 << 16)


ODD: dict[str, Any] = {
    "a number": 5, "null": None, "nothing in it": {}, "attributes that are a number": {"attributes": 5},
    "a value that is a number": {"attributes": [{"key": "a", "value": 5}]}, "no key": {"attributes": [{"value": {"stringValue": "x"}}]},
    "a number that is a word": {"attributes": [{"key": "input_tokens", "value": {"intValue": "x"}}]},
    "a body that is a number": {"body": 5},
    "a time that is a word": {"timeUnixNano": "soon"}, "no time": {"timeUnixNano": "0"}, "a time beyond all": {"timeUnixNano": "9" * 30},
    "a trace that is none": {"traceId": "zz"},
}  # fmt: skip


@pytest.mark.parametrize("way", ODD)
def test_a_request_is_stored_whole_or_not_at_all(running: Server, way: str) -> None:
    """So there is no partial success to tell of: 200 says that each record is stored, 400 that none is."""
    told = log_request([{"name": "api_request", "time_ns": time.time_ns(), "session.id": session(f"{way} {n}")} for n in range(3)])
    records = told["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    odd = ODD[way]
    if isinstance(odd, dict):
        attributes = odd.get("attributes", [])
        kept = records[1]["attributes"] + attributes if isinstance(attributes, list) else attributes
        records[1] = {**records[1], **odd, "attributes": kept} if odd else odd
    else:
        records[1] = odd
    before = running.metrics()['sp_telemetry_records_committed_total{signal="logs"}']
    status, _, answer = running.post("logs", as_json(told), JSON)
    committed = running.metrics()['sp_telemetry_records_committed_total{signal="logs"}'] - before
    stored = [events(running, f"{way} {number}") for number in (0, 2)]
    assert (status, committed, stored) in [(200, 3, [1, 1]), (400, 0, [0, 0])], answer
