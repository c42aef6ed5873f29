"""What can't be read of a request is not said: not in the log, which is sent to who helps, and not in the answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_telemetry.errors import ServerUnreachable
from sp_telemetry.home import READER
from sp_telemetry.setup import service
from tests.e2e.listening import HEAD, log_of, raw, statuses
from tests.server import Server, wait_for


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("talkative"))
    started.home.make()
    script = Path(__file__).with_name("talkative_serve.py")
    process = subprocess.Popen(
        [sys.executable, str(script), "--log-file", str(started.home.logs / "server.log")],
        env={**started.environ, "SP_TELEMETRY_HOME": str(started.home.path)},
        stderr=subprocess.DEVNULL,
    )

    def running() -> service.Running | None:
        try:
            return service.running(started.home)
        except ServerUnreachable:
            return None

    try:
        started.running = wait_for(running, 30)
        yield started
    finally:
        process.terminate()
        process.wait(60)


CHUNKED, GZIP = HEAD + b"Transfer-Encoding: chunked\r\n", HEAD + b"Content-Encoding: gzip\r\n"
GET = b"GET /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\n"
ASKED = b"POST /?user=%s&password=PASSWORD HTTP/1.1\r\nHost: localhost\r\n" % READER.encode()


def form(body: bytes) -> bytes:
    return ASKED + b"Content-Type: multipart/form-data; boundary=ab\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


BROKEN = {
    "a blank in the address": (
        "clickhouse", b"GET /?user=telemetry_user&password=zebra&query=SELECT 'zebra' HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a letter beyond ASCII": ("clickhouse", "GET /?query=SELECT+'zebra-ä' HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()),
    "no address": ("clickhouse", b"GET zebra HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "half an address": ("clickhouse", b"GET http://[zebra/ HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "no method": ("clickhouse", b"zebra /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "no version": ("clickhouse", b"GET /?query=SELECT+1 zebra/1.1\r\nHost: localhost\r\n\r\n"),
    "a control character in a key": ("clickhouse", GET + b"X-ClickHouse-Key: zebra\x01x\r\n\r\n"),
    "a control character in a token": ("otlp_http", HEAD + b"Authorization: Bearer zebra\x01\r\n\r\n"),
    "a header without a value": ("otlp_http", HEAD + b"zebra words\r\n\r\n"),
    "a folded header": ("otlp_http", HEAD + b"X-A: b\r\n zebra words\r\n\r\n"),
    "a header beyond all": ("otlp_http", HEAD + b"X-A: zebra" + b"a" * (1 << 19) + b"\r\n\r\n"),
    "a length that is a word": ("otlp_http", HEAD + b"Content-Length: zebra\r\n\r\n"),
    "a length that is too short": ("otlp_http", HEAD + b'Content-Length: 2\r\n\r\n{}{"stringValue":"zebra words"}\r\n\r\n'),
    "a length that is too short, text": ("otlp_http", HEAD + b"Content-Length: 2\r\n\r\n{}PUT zebra words\r\n\r\n"),
    "a chunk's size that is a word": ("otlp_http", CHUNKED + b"\r\nzebra words\r\n"),
    "a chunk that is too short": ("otlp_http", CHUNKED + b'\r\n5\r\n{"zebra": "words"}\r\n0\r\n\r\n'),
    "a chunk that is too short, of a query": (
        "clickhouse", ASKED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nSELECT 'zebra words'\r\n0\r\n\r\n"),
    "no gzip": ("otlp_http", GZIP + b"Content-Length: 11\r\n\r\nzebra words"),
    "no gzip, in chunks": ("otlp_http", GZIP + b"Transfer-Encoding: chunked\r\n\r\nb\r\nzebra words\r\n0\r\n\r\n"),
    "a query that is no gzip": ("clickhouse", ASKED + b"Content-Encoding: gzip\r\nContent-Length: 11\r\n\r\nzebra words"),
    "a form without its boundary": ("clickhouse", form(b"--zebra words\r\n")),
    "a form whose boundary breaks off": (
        "clickhouse", form(b'--ab\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT 1\r\n--ab zebra')),
    "a form's field without a name": ("clickhouse", form(b"--ab\r\nX-A: zebra\r\n\r\nzebra\r\n--ab--\r\n")),
    "a form's header that is none": ("clickhouse", form(b"--ab\r\nzebra zebra\r\n\r\nzebra\r\n--ab--\r\n")),
}  # fmt: skip


@pytest.mark.parametrize("way", BROKEN)
def test_nothing_of_a_request_that_can_not_be_read_is_said(talkative: Server, way: str) -> None:
    """Each word planted in one is in no file of the logs, and not in the answer; what is said is that there was one, in a line."""
    port, text = BROKEN[way]
    before = log_of(talkative)
    answer = raw(talkative, text.replace(b"PASSWORD", talkative.home.secret(READER).encode()), port)
    assert statuses(answer)[-1] in (400, 404) and b"zebra" not in answer, answer[:500]
    said = log_of(talkative).removeprefix(before)
    assert "zebra" not in said and "Traceback" not in said and said.count("\n") <= 2, said
