"""What the tests of the listeners share: a server, requests that can be found again, bytes on a bare socket."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest

from tests.server import Server, as_json, log_request, server

LARGEST_MIB = 12


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
