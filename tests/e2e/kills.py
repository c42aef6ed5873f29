"""What the tests that kill a server share: clients that never rest, and what is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

from sp_telemetry.errors import SpTelemetryError
from sp_telemetry.setup import service
from tests.server import Server, as_protobuf, context, log_request, wait_for

SENDERS = 4
SESSIONS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(SENDERS)]


def has_context(number: int) -> bool:
    return number % 5 == 0


def record(session: str, number: int, at: int) -> bytes:
    """A request with the event of this number, and with each fifth a context for it."""
    told = {"session.id": session, "event.sequence": number, "cost_usd": number / 1024, "input_tokens": 1}
    events = [{"name": "api_request", "time_ns": at, **told}]
    if has_context(number):
        events.append(context(session, at - 1, feature=f"{number % 3:03}-f"))
    return as_protobuf(log_request(events))


class Sender(threading.Thread):
    """A client of one session: sends events one request after the other, each again until it is acknowledged, contexts between."""

    def __init__(self, to: Server, session: str) -> None:
        super().__init__()
        self.to, self.session = to, session
        self.sent: dict[int, int] = {}  # acknowledged: number -> its time
        self.stop = threading.Event()
        self.number = 0

    def run(self) -> None:
        while not self.stop.is_set():
            self.number += 1
            at = time.time_ns()
            body = record(self.session, self.number, at)
            while not self._acknowledged(body):
                if self.stop.is_set():
                    return
                time.sleep(0.05)
            self.sent[self.number] = at

    def _acknowledged(self, body: bytes) -> bool:
        try:
            return self.to.post("logs", body)[0] == 200
        except (OSError, HTTPException):
            return False


def in_background(server: Server, statement: str) -> None:
    def run() -> None:
        with suppress(SpTelemetryError):
            server.run(statement)

    threading.Thread(target=run, daemon=True).start()


def kill(server: Server) -> None:
    with suppress(ProcessLookupError):  # it had ended by itself
        os.kill(server.running.pid, signal.SIGKILL)
    assert wait_for(lambda: not service.is_held(server.home), every=0.005)


def start_and_kill(server: Server, after_s: float, seen: Callable[[], bool] = lambda: True) -> None:
    """Kill a server that took its lock, and of which something was seen, so many seconds ago: while it opens the store, migrates, sets
    retentions, or begins to serve."""
    server.home.server_file.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "sp_telemetry.cli.main", "serve", "--log-file", str(server.home.logs / "server.log")],
        env={**server.environ, "SP_TELEMETRY_HOME": str(server.home.path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert wait_for(lambda: service.is_held(server.home), every=0.002)
        assert wait_for(seen, 30, every=0.002)
        time.sleep(after_s)
    finally:
        process.kill()
        process.wait()


def cpu_s(server: Server) -> float:
    """What its process has used."""
    fields = Path(f"/proc/{server.running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy() -> float:
    """By how much longer things take than on a machine that does nothing else."""
    return 1 + os.getloadavg()[0] / (os.cpu_count() or 1)


def steps_of_starts(server: Server) -> list[str]:
    """What each start took inside of the server, step by step, as far as its log goes back; the slowest last."""
    said = "".join(log.read_text() for log in sorted(server.home.logs.glob("server.log*")))
    return sorted(re.findall(r", after ([0-9.]+ s \(.*\))$", said, re.MULTILINE), key=lambda text: float(text.split()[0]))


def assert_no_part_was_given_up(server: Server) -> None:
    assert list(server.home.store.glob("store/*/*/detached/*broken*")) == []
