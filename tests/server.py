"""A real `sp-telemetry serve` process on free ports in a directory of its own, for tests, and what they send to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sp_telemetry.home import WRITER, Home
from sp_telemetry.setup import service
from sp_telemetry.store.client import Client
from tests import made_store

PORTS = ("OTLP_HTTP", "OTLP_GRPC", "CLICKHOUSE", "HEALTH", "METRICS")
SETTINGS = {
    **{f"SP_TELEMETRY_{name}_PORT": "0" for name in PORTS},
    "SP_TELEMETRY_RETENTION_EVENTS_DAYS": "0",  # recordings grow older than any retention
    "SP_TELEMETRY_RETENTION_SESSIONS_DAYS": "0",
    "SP_TELEMETRY_URL": "",
    "SP_TELEMETRY_BIND": "",
}
PROTOBUF, JSON = "application/x-protobuf", "application/json"


class Server:
    """A home and its server. `settings` are environment variables over SETTINGS."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.home = Home(folder)
        self.environ = {**os.environ, **SETTINGS, **settings}
        self.running: service.Running | None = None

    def make(self) -> None:
        self.home.make()
        if not any(self.home.store.iterdir()):
            made_store.copy_to(self.home.store)

    def up(self) -> Server:
        self.make()
        self.running, _ = service.up(self.home, self.environ)
        return self

    def down(self) -> None:
        service.down(self.home)

    def restart(self) -> None:
        self.down()
        self.up()

    @property
    def ports(self) -> dict[str, int]:
        return self.running.ports

    def http(self, port: str = "otlp_http", timeout: float = 60) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=timeout)

    def get(self, port: str, path: str) -> tuple[int, bytes]:
        connection = self.http(port)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, signal: str, body: Any, content_type: str = PROTOBUF, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and body of the answer. An iterable body goes chunked."""
        connection = self.http()
        try:
            named = {"Content-Type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request("POST", f"/v1/{signal}", body, named, encode_chunked=not isinstance(body, bytes))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def stored(self, signal: str, body: bytes, content_type: str = PROTOBUF) -> None:
        status, _, text = self.post(signal, body, content_type)
        assert status == 200, text

    @property
    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.ports['clickhouse']}", WRITER, self.home.secret(WRITER))

    def query(self, sql: str, **parameters: Any) -> list[list[Any]]:
        return self.client.query(sql, parameters).rows

    def run(self, sql: str) -> None:
        """A statement that answers nothing."""
        for _ in self.client.stream(sql, "Null"):
            pass

    def metrics(self) -> dict[str, float]:
        """Every sample of the metrics listener: `name{labels}` -> value. Raises where it is not Prometheus' text format."""
        status, text = self.get("metrics", "/metrics")
        assert status == 200
        return prometheus(text.decode())

    def says(self) -> str:
        """What it counted and logged, for the message of a test that misses something."""
        return f"{self.metrics()}\n{(self.home.logs / 'server.log').read_text()[-4000:]}"

    def command(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "sp_telemetry.cli.main", *arguments],
            env={**self.environ, "SP_TELEMETRY_HOME": str(self.home.path)},
            capture_output=True,
            text=True,
            timeout=timeout,
        )


@contextmanager
def server(folder: Path, **settings: str) -> Iterator[Server]:
    started = Server(folder, **settings)
    try:
        yield started.up()
    finally:
        started.down()


def wait_for(condition: Callable[[], Any], seconds: float = 15, every: float = 0.1) -> Any:
    """The first true answer of `condition`, asked until the deadline; then its last answer."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(every)
    return answer


_SAMPLE = re.compile(r'([a-z_]+(?:\{(?:[a-z]+="[^"\n]*",?)*\})?) (\S+)')


def prometheus(text: str) -> dict[str, float]:
    samples: dict[str, float] = {}
    kinds: dict[str, str] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            assert len(line.split(" ", 3)) == 4
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds and kind in ("counter", "gauge", "histogram")
            kinds[name] = kind
        else:
            found = _SAMPLE.fullmatch(line)
            assert found, line
            name = found[1].partition("{")[0]
            assert name in kinds or re.sub("_(bucket|sum|count)$", "", name) in kinds, line
            assert found[1] not in samples, line
            samples[found[1]] = float(found[2])
    return samples


def log_request(events: list[dict[str, Any]], resource: dict[str, Any] | None = None) -> dict[str, Any]:
    """An ExportLogsServiceRequest as OTLP/JSON has it. Each event: attributes, with `name` and `time_ns` taken out of them."""
    records = []
    for event in events:
        attributes = {key: value for key, value in event.items() if key not in ("name", "time_ns")}
        record = {"attributes": pairs({"event.name": event["name"]} | attributes), "body": {"stringValue": f"claude_code.{event['name']}"}}
        records.append({"timeUnixNano": str(event["time_ns"]), **record})
    return {"resourceLogs": [{"resource": {"attributes": pairs(resource or {})}, "scopeLogs": [{"logRecords": records}]}]}


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": any_value(value)} for key, value in attributes.items()]


def any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(each) for each in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": pairs(value)}}
    return {"stringValue": value}


def as_json(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode()


def as_protobuf(request: dict[str, Any], signal: str = "logs") -> bytes:
    """`request`, OTLP/JSON with no ids in hex, as OpenTelemetry's own classes encode it."""
    from google.protobuf.json_format import ParseDict

    from tests.recordings.clean import empty_message

    return ParseDict(request, empty_message(signal)).SerializeToString()


def context(session: str, at_ns: int, **values: str) -> dict[str, Any]:
    """A context record as an event for `log_request`."""
    named = {f"context.{name}": value for name, value in values.items()}
    return {"name": "sp_telemetry.context", "time_ns": at_ns, "session.id": session, **named}
