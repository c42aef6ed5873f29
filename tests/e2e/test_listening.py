"""Who reaches the listeners and who doesn't, and clients that send slowly, wrongly or without end."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import grpc
import pytest

from sp_telemetry.home import READER, WRITER
from sp_telemetry.setup.replay import GRPC_METHODS
from tests.conftest import ROOT, require
from tests.server import JSON, PROTOBUF, Server, as_json, as_protobuf, log_request, server, wait_for

LARGEST_MIB = 12
NOBODY = 65534


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("listening"), SP_TELEMETRY_MAX_REQUEST_MIB=str(LARGEST_MIB)) as started:
        yield started


def session(of: str) -> str:
    return str(uuid5(NAMESPACE_DNS, of))


def request(of: str, number: int = 1, **attributes: Any) -> dict[str, Any]:
    return log_request(
        [{"name": "api_request", "time_ns": time.time_ns(), "session.id": session(of), "event.sequence": number, **attributes}]
    )


def events(started: Server, of: str) -> int:
    return started.query(f"SELECT count() FROM telemetry.telemetry_events FINAL WHERE session_id = '{session(of)}'")[0][0]


def resident_mib(started: Server) -> int:
    return int(Path(f"/proc/{started.running.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def log_of(started: Server) -> str:
    return "".join(path.read_text() for path in started.home.logs.iterdir())


# ---- from elsewhere


@pytest.mark.needs("unshare", "nsenter", "ip")
def test_nothing_answers_but_on_127_0_0_1(tmp_path: Path) -> None:
    """From another host on the machine's network, from its own address, over IPv6. ::1 is refused at once: programs that are told
    `localhost` try 127.0.0.1 next, and what set-up writes says 127.0.0.1."""
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    require(subprocess.run([*apart, "true"], capture_output=True).returncode == 0, "no network namespaces here")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))}
    command = [*apart, sys.executable, str(Path(__file__).with_name("outside.py")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environ, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    reached = json.loads(done.stdout)
    listeners = ["clickhouse", "health", "metrics", "otlp_grpc", "otlp_http"]
    for where in ("outside", "own"):
        assert reached[where] == {"control": True, **dict.fromkeys(listeners, "ConnectionRefusedError")}, where
    for where in ("own6", "loopback6"):
        assert reached[where] == dict.fromkeys([*listeners, "control"], "ConnectionRefusedError"), where
    for where in ("loopback", "localhost"):
        assert reached[where] == dict.fromkeys([*listeners, "control"], True), where


def stranger(started: Server, of: str) -> dict[str, Any]:
    home = started.home.path
    told = {
        "user": NOBODY,
        "pid": started.running.pid,
        "ports": started.ports,
        "users": {user: started.home.secret(user) for user in (READER, WRITER)},
        "paths": [str(path) for path in home.rglob("*") if path.is_file()],
        "folders": [str(home), *(str(path) for path in home.rglob("*") if path.is_dir())],
        "otlp": as_json(request(of)).decode(),
        "protobuf": base64.b64encode(as_protobuf(request(of, 2))).decode(),
        "method": GRPC_METHODS["logs"],
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("stranger.py")), json.dumps(told)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_another_user_of_the_machine_can_do_nothing(tmp_path: Path) -> None:
    """Not even with the passwords in their hands, or where everybody may read."""
    require(sys.platform == "linux" and os.geteuid() == 0, "only root can try as another user")
    tmp_path.chmod(0o755)
    with server(tmp_path / "home", SP_TELEMETRY_ANONYMOUS_READS="true") as started:
        got = stranger(started, "stranger")
        assert got["readable"] == []
        assert {status for way, (status, _) in got["answers"].items() if way != "grpc"} <= {403, 0}, got
        assert got["answers"]["otlp json"] == [403, "Refused: this listener answers to the programs of the user who runs it.\n"]
        assert got["answers"]["grpc"] == [7, "PERMISSION_DENIED"]
        started.stored("logs", as_protobuf(request("mine")))
        assert (events(started, "stranger"), events(started, "mine")) == (0, 1)
        assert started.query("SELECT count() FROM telemetry.session_context") == [[0]]
        secrets = [path.read_text().strip() for path in (started.home.path / "secrets").iterdir()]
        assert not [secret for secret in secrets if secret in Path(f"/proc/{started.running.pid}/cmdline").read_text()]


def test_other_users_can_be_let_in_and_still_need_passwords(tmp_path: Path) -> None:
    require(sys.platform == "linux" and os.geteuid() == 0, "only root can try as another user")
    tmp_path.chmod(0o755)
    with server(tmp_path / "home", SP_TELEMETRY_OTHER_USERS="true") as started:
        got = stranger(started, "guest")
        assert got["readable"] == []
        statuses = {way: status for way, (status, _) in got["answers"].items()}
        assert statuses == {
            "otlp json": 200, "health": 200, "metrics": 200, "ping": 200, "grpc": 0, "read": 401, f"read as {READER}": 200,
            f"write as {READER}": 500, f"read as {WRITER}": 200, f"write as {WRITER}": 200,
        }  # fmt: skip
        assert wait_for(lambda: events(started, "guest") == 2)


# ---- HTTP as it should not be


def raw(started: Server, text: bytes, port: str = "otlp_http", timeout: float = 10) -> bytes:
    """What comes back for these bytes until the connection is closed or nothing comes any more."""
    with socket.create_connection(("127.0.0.1", started.ports[port]), timeout=timeout) as connection:
        got = b""
        try:
            connection.sendall(text)
            connection.settimeout(1.5)
            while piece := connection.recv(1 << 16):
                got += piece
        except (TimeoutError, ConnectionError):
            pass
        return got


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


GOOD = as_json(request("smuggled", 1))
HEAD = b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
HIDDEN = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(GOOD), GOOD)


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


@pytest.mark.parametrize("way", SMUGGLED)
def test_smuggling(running: Server, way: str) -> None:
    """Whatever one reader takes for the end of a request and another doesn't: refused, and nothing after it is read."""
    answer = raw(running, SMUGGLED[way])
    assert len(statuses(answer)) <= 1 and not {200, 500} & set(statuses(answer)), answer[:600]
    assert events(running, "smuggled") == 0
    assert running.post("logs", as_protobuf(request("after")))[0] == 200


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


@pytest.mark.parametrize("port", ["otlp_http", "clickhouse", "health", "metrics"])
def test_private_network_access_is_not_granted(running: Server, port: str) -> None:
    asked = b"OPTIONS /v1/logs HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: POST\r\n"
    answer = raw(
        running, asked + b"Access-Control-Request-Private-Network: true\r\nAccess-Control-Request-Local-Network: true\r\n\r\n", port
    )
    assert statuses(answer) == [403] and b"access-control" not in answer.lower()


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


def test_slow_clients_are_given_up_and_others_served_meanwhile(running: Server) -> None:
    """Heads byte for byte on each listener: within seconds each is told so and its connection closed."""
    head = b"POST /v1/logs HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 100
    with ThreadPoolExecutor(8) as pool:
        heads = [pool.submit(trickle, running, head, port) for port in ("otlp_http", "clickhouse", "health", "metrics")]
        for number in range(5):
            assert running.post("logs", as_protobuf(request("meanwhile", number)))[0] == 200
        for borne, answer in (each.result() for each in heads):
            assert 5 < borne < 50 and statuses(answer) == [408], (borne, answer)
    assert events(running, "meanwhile") == 5


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
        assert [statuses(answer) for answer in answers] == [[408], [503]]


def test_a_thousand_idle_connections_cost_little_and_shut_nobody_out(running: Server) -> None:
    running.stored("logs", as_protobuf(request("before")))
    before = resident_mib(running)
    descriptors = Path(f"/proc/{running.running.pid}/fd")
    opened = []
    try:
        for number in range(1000):
            connection = socket.create_connection(("127.0.0.1", running.ports["otlp_http"]), timeout=10)
            opened.append(connection)
            if number % 2:
                connection.sendall(b"POST /v1/logs HTTP/1.1\r\n")
        for number in range(10):
            assert running.post("logs", as_protobuf(request("through", number)))[0] == 200
        assert len(list(descriptors.iterdir())) < 500
        assert resident_mib(running) - before < 60
    finally:
        for connection in opened:
            connection.close()
    assert events(running, "through") == 10


def test_idle_and_broken_connections_to_grpc_are_given_up(running: Server) -> None:
    address = ("127.0.0.1", running.ports["otlp_grpc"])
    idle = [socket.create_connection(address, timeout=40) for _ in range(300)]
    try:
        for text in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500, b"\0" * 100_000, HIDDEN):
            with socket.create_connection(address, timeout=10) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(text)
                while connection.recv(1 << 16):
                    pass
        with grpc.insecure_channel(f"127.0.0.1:{address[1]}") as channel:
            assert channel.unary_unary(GRPC_METHODS["logs"])(as_protobuf(request("through grpc")), timeout=30) == b""
        for connection in idle:
            with contextlib.suppress(ConnectionError):
                while connection.recv(1 << 16):  # the server's settings, then the end
                    pass
    finally:
        for connection in idle:
            connection.close()
    assert events(running, "through grpc") == 1


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


# ---- too much, too deep, broken


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


def deep_protobuf(depth: int) -> bytes:
    """A log record with one attribute, an array of an array of … `depth` of them."""

    def field(number: int, content: bytes) -> bytes:
        size, out = len(content), bytes((number << 3 | 2,))
        while size > 0x7F:
            out += bytes((size & 0x7F | 0x80,))
            size >>= 7
        return out + bytes((size,)) + content

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


@pytest.mark.parametrize("ratio", [1000])
def test_gzip_bombs_at_once_take_bounded_memory(running: Server, ratio: int) -> None:
    bomb = gzip.compress(b"\0" * (256 << 20), 9)
    twice = gzip.compress(gzip.compress(b"\0" * (64 << 20), 9), 9)
    before = resident_mib(running)
    peak, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak.append(resident_mib(running))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: running.post("logs", bomb, PROTOBUF, Content_Encoding="gzip")[0], range(8)))
        assert running.post("logs", twice, PROTOBUF, Content_Encoding="gzip, gzip")[0] in (400, 413, 415)
    done.set()
    watcher.join()
    assert set(answers) <= {413, 429, 408} and answers
    assert max(peak) - before < 16 * LARGEST_MIB + 200


def test_what_is_refused_over_and_over_is_logged_seldom(running: Server) -> None:
    before = len(log_of(running))
    for text in (b"garbage\r\n\r\n", SMUGGLED["two lengths"], HEAD + b"Content-Length: 5\r\n\r\nxxxxx"):
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
