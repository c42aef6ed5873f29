"""A real collector on free ports in a directory of its own, with the shipped configuration and a store to write to."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.collector.build import CONFIGURATION, CollectorUnavailable, collector
from tests.conftest import require
from tests.ports import free_ports

CONFIG = CONFIGURATION / "config.yaml"
NO_POLICY = Path(__file__).with_name("no_policy.yaml")
PORTS = ("GRPC", "HTTP", "HEALTH", "METRICS", "PROMETHEUS")
STARTING_S = 60
PROTOBUF = "application/x-protobuf"


def needed() -> Path:
    """The collector's executable; skips the test where it can't be built, fails it where CI=true."""
    try:
        return collector()
    except CollectorUnavailable as error:
        require(False, str(error))
        raise pytest.skip.Exception(str(error)) from None


class Collector:
    """`folder` gets its queue, its secrets and its log. `policy` is the second --config; `environment` is what config.yaml names.

    The ports are chosen once, so that it comes back under the same ones after `stop` or `kill`.
    """

    def __init__(
        self, folder: Path, url: str, password: str, *, policy: Path, configs: Sequence[Path] = (), salt: str = "", **environment: str
    ) -> None:
        self.folder, self.configs = folder, [CONFIG, policy, *configs]
        self.executable = needed()
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.log = folder / "collector.log"
        self.queue = folder / "queue"
        secrets = folder / "secrets"
        secrets.mkdir(parents=True, exist_ok=True)
        (secrets / "telemetry_user").write_text(password)
        (secrets / "telemetry_salt").write_text(salt)
        self.environment = {
            "PATH": os.environ["PATH"],
            "COLLECTOR_HOST": "127.0.0.1",
            **{f"COLLECTOR_{name}_PORT": str(port) for name, port in self.ports.items()},
            "TELEMETRY_CLICKHOUSE_URL": url,
            "TELEMETRY_SECRETS_DIR": str(secrets),
            "TELEMETRY_QUEUE_DIR": str(self.queue),
            **environment,
        }
        self.process: subprocess.Popen | None = None

    @property
    def command(self) -> list[str]:
        return [str(self.executable), *(f"--config={config}" for config in self.configs)]  # each over those before it

    def validate(self) -> subprocess.CompletedProcess:
        """`otelcol validate` of what would be run."""
        command = [self.command[0], "validate", *self.command[1:]]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    def start(self) -> Collector:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + STARTING_S
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the collector did not start: {self.log.read_text()[-3000:]}")
            time.sleep(0.1)
        return self

    def healthy(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("HEALTH", "/")[0] == 200
        return False

    def get(self, port: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def post(self, signal_name: str, body: bytes, content_type: str = PROTOBUF, timeout: float = 30) -> int:
        return post(self.ports["HTTP"], signal_name, body, content_type, timeout)

    def endpoint(self, protocol: str) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is for this protocol."""
        return f"http://127.0.0.1:{self.ports['GRPC' if protocol == 'grpc' else 'HTTP']}"

    def metrics(self, port: str = "METRICS") -> list[tuple[str, dict[str, str], float]]:
        """Every sample of its own metrics, or of the Prometheus exporter: name, labels, value."""
        samples = []
        for line in self.get(port, "/metrics")[1].decode().splitlines():
            if found := re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)(?: \d+)?", line):
                samples.append((found[1], dict(re.findall(r'([\w.]+)="((?:\\.|[^"\\])*)"', found[2] or "")), float(found[3])))
        return samples

    def metric(self, name: str, port: str = "METRICS", **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        return sum(v for n, found, v in self.metrics(port) if n == name and labels.items() <= found.items())

    def stop(self) -> None:
        """An orderly end, as `docker stop` asks for it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, how: int) -> None:
        if self.process is None:
            return
        process, self.process = self.process, None
        process.send_signal(how)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def running(*arguments: object, **named: object) -> Iterator[Collector]:
    started = Collector(*arguments, **named)
    try:
        yield started.start()
    finally:
        started.kill()


def post(port: int, signal_name: str, body: bytes, content_type: str = PROTOBUF, timeout: float = 30) -> int:
    """Send one OTLP request; the answer's status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", f"/v1/{signal_name}", body, {"Content-Type": content_type})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()
