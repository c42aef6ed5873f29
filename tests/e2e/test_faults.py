"""What a machine does to a server: no memory, no files, no store; what it acknowledged is on the disk. It refuses, says why, and goes on by
itself."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from sp_telemetry.serve.intake import SETTLE_AFTER_S
from sp_telemetry.setup import service
from tests.conftest import require
from tests.e2e.faults import (
    assert_refused,
    assert_said,
    assert_stored_once_and_again_after_a_restart,
    assert_well,
    event,
    health,
    numbers,
    request,
)
from tests.server import JSON, PROTOBUF, Server, as_json, log_request, server, wait_for

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits, namespaces and /proc of Linux"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("faults") / "home") as started:
        yield started


@pytest.fixture
def fresh(running: Server) -> Server:
    """The same server with no events, a new log and a process without a past."""
    running.down()
    for file in ("server.log", "server.err"):
        (running.home.logs / file).unlink(missing_ok=True)
    running.up()
    for table in ("telemetry_events", "session_context", "session_summaries", "usage_hourly"):
        running.run(f"TRUNCATE TABLE telemetry.{table}")
    return running


def test_a_store_that_is_moved_away_refuses_until_it_is_back(fresh):
    pid, store = fresh.running.pid, fresh.home.store
    fresh.stored("logs", request(event(1)))
    away = store.with_name("away")
    store.rename(away)
    try:
        second = request(event(2))
        assert_refused(fresh, second, "Files of the store are missing")
        assert_said(fresh, "Files of the store are missing")
        assert not store.exists(), "nothing may grow in its place"
    finally:
        away.rename(store)
    fresh.stored("logs", second)
    assert_well(fresh, pid)
    assert_stored_once_and_again_after_a_restart(fresh, [1, 2])


def test_a_store_that_is_removed_for_good_is_begun_anew_by_a_restart(tmp_path):
    with server(tmp_path) as started:
        started.stored("logs", request(event(1)))
        shutil.rmtree(started.home.store)
        assert_refused(started, request(event(2)), "Files of the store are missing")
        status, state = health(started)
        assert (status, "restart" in state["mend"]) == (503, True)
        told = started.command("restart")
        assert told.returncode == 0, told.stderr
        started.up()
        started.stored("logs", request(event(2)))
        assert numbers(started) == [2]


@contextmanager
def limited(pid: int, what: int, limit: int) -> Iterator[None]:
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


class Kept:
    """A connection made beforehand: without file descriptors a server accepts none."""

    def __init__(self, of: Server, port: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", of.ports[port], timeout=30)
        self._connection.connect()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        self._connection.request(method, path, body, {"Content-Type": PROTOBUF})
        answer = self._connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def test_without_file_descriptors_it_refuses_and_accepts_again_when_there_are_some(fresh):
    pid = fresh.running.pid
    otlp, check, figures = (Kept(fresh, port) for port in ("otlp_http", "health", "metrics"))
    first = request(event(1))
    assert (otlp.ask("POST", "/v1/logs", first)[0], check.ask("GET", "/")[0]) == (200, 200)
    later = [request(event(number)) for number in range(2, 5)]
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    with limited(pid, resource.RLIMIT_NOFILE, most := min(used, 40)):
        ends = time.monotonic() + 2 * SETTLE_AFTER_S
        while otlp.ask("POST", "/v1/logs", first)[0] == 200:  # a journal that is open takes it; to settle fails soon
            assert time.monotonic() < ends
            time.sleep(0.1)
        for body in later:
            status, headers, text = otlp.ask("POST", "/v1/logs", body)
            assert (status, headers.get("retry-after")) == (503, "5") and b"too many files open" in text
        status, _, text = check.ask("GET", "/")
        assert status == 503 and json.loads(text)["reason"] == "The server has too many files open."
        status, _, text = figures.ask("GET", "/metrics")
        assert status == 200 and b"sp_telemetry_store_available 0" in text
        told = fresh.command("status")
        assert (told.returncode, "does not answer" in told.stderr) == (3, True)
        assert re.search(rf"/: it has \d+ files open and may have {most}\.\n", told.stderr) and "ulimit -n" in told.stderr, told.stderr
    for body in later:
        fresh.stored("logs", body)
    assert_well(fresh, pid)
    log = (fresh.home.logs / "server.log").read_text()
    assert "Traceback" not in log and log.count("New connections wait: The server has too many files open.") == 1
    assert_stored_once_and_again_after_a_restart(fresh, [1, 2, 3, 4])


def test_without_memory_a_request_is_refused_and_never_rejected(fresh):
    """A sender that is told 400 throws its events away."""
    pid = fresh.running.pid
    fresh.stored("logs", request(event(0)))
    large = request(*(event(number, **{"tool_parameters": "x" * 2000}) for number in range(1, 5001)))
    size = int(re.search(r"VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) << 10
    with limited(pid, resource.RLIMIT_AS, size + (1 << 20)):
        status, headers, text = fresh.post("logs", large)
        assert (status, headers.get("retry-after")) == (503, "5"), text[:300]
        # Where it ends while the connection is read, the body seems to come no further.
        assert b"out of memory" in text or b"didn't arrive within" in text, text
        if b"out of memory" in text:
            assert_said(fresh, "The server is out of memory")
    fresh.stored("logs", large)
    assert_well(fresh, pid)
    assert_stored_once_and_again_after_a_restart(fresh, list(range(5001)))


# ---- fsync before acknowledgement


@contextmanager
def traced(pid: int, file: Path, *options: str) -> Iterator[None]:
    """strace on every thread of `pid`, from when it has begun."""
    process = subprocess.Popen(
        ["strace", "-f", "-y", "-s", "12", "-o", str(file), "-p", str(pid), *options], stderr=subprocess.PIPE, text=True
    )
    try:
        first = process.stderr.readline()
        require("attached" in first, f"strace can't attach: {first.strip()}")
        yield
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()


def synced(lines: list[str], until: str) -> list[str]:
    """What was fsynced before the first call that says `until`."""
    ended = next(number for number, line in enumerate(lines) if until in line)
    return [line for line in lines[:ended] if re.search(r"\b(fsync|fdatasync)\(", line)]


def assert_part_is_synced(fresh: Server, done: list[str]) -> None:
    [[folder]] = fresh.query("SELECT data_paths[1] FROM system.tables WHERE database = 'telemetry' AND name = 'telemetry_events'")
    done = [line for line in done if folder in line]
    assert any("data.bin" in line or ".bin>" in line for line in done), "the part's data"
    assert any(re.search(r"/(tmp_insert_)?[^/>]+_\d+_\d+_\d+/?>", line) for line in done), "the part's directory"


CALLS = ("-e", "trace=fsync,fdatasync,sendto,write,writev,sendmsg,unlink,unlinkat")
ACKNOWLEDGED = '"HTTP/1.1 200'


@pytest.mark.needs("strace")
def test_what_is_acknowledged_is_on_the_disk_first_in_the_journal_and_then_in_a_part(fresh, tmp_path):
    trace = tmp_path / "trace"
    with traced(fresh.running.pid, trace, *CALLS):
        fresh.stored("logs", request(event(1)))
        assert numbers(fresh) == [1]
    lines = trace.read_text().splitlines()
    done = [line for line in synced(lines, ACKNOWLEDGED) if "/journal" in line]
    assert any(".rows>" in line for line in done), "the rows"
    assert any("/journal>" in line for line in done), "their file's name"
    assert_part_is_synced(fresh, synced(lines, '.rows"'))  # before the file is taken away


@pytest.mark.needs("strace")
def test_parts_are_on_the_disk_before_what_does_not_wait_is_acknowledged(fresh, tmp_path):
    """Such as JSON."""
    trace = tmp_path / "trace"
    with traced(fresh.running.pid, trace, *CALLS):
        fresh.stored("logs", as_json(log_request([{"name": "api_request", "time_ns": time.time_ns(), "event.sequence": 1}])), JSON)
    assert_part_is_synced(fresh, synced(trace.read_text().splitlines(), ACKNOWLEDGED))


@pytest.mark.needs("strace")
def test_what_can_not_be_synced_is_not_acknowledged(fresh, tmp_path):
    first = request(event(1))
    with traced(fresh.running.pid, tmp_path / "trace", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"):
        status, headers, text = fresh.post("logs", first)
        assert (status, headers.get("retry-after")) == (503, "5") and b"The disk of the store fails" in text
    fresh.stored("logs", first)
    assert numbers(fresh) == [1]


@pytest.mark.needs("strace")
def test_while_the_disk_is_slow_the_server_answers(fresh, tmp_path):
    """Its health at once, also beside figures that wait for what is being written; what is written when it is on the disk."""
    fresh.stored("logs", request(event(0)))  # so that the figures have something to wait for
    slow = ("-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=6s:when=1")  # of each thread
    with traced(fresh.running.pid, tmp_path / "trace", *slow), ThreadPoolExecutor() as pool:
        begun = time.monotonic()
        sending = [pool.submit(fresh.post, "logs", request(event(number))) for number in (1, 2)]
        time.sleep(1)  # the first has been written, and is being synced
        figures = pool.submit(fresh.metrics)
        took = []
        while not took or time.monotonic() - begun < 4:
            asked = time.monotonic()
            assert health(fresh)[0] == 200
            took.append(time.monotonic() - asked)
            time.sleep(0.2)
        assert max(took) < 2, took
        assert not any(future.done() for future in [*sending, figures])
        assert [future.result()[0] for future in sending] == [200, 200]
        assert figures.result()["sp_telemetry_store_available"] == 1
    assert numbers(fresh) == [0, 1, 2]


def test_every_table_that_events_and_contexts_go_to_is_synced(fresh):
    rows = fresh.query("SELECT name, engine_full FROM system.tables WHERE database = 'telemetry' AND name IN"
                       " ('telemetry_events', 'session_context', 'telemetry_metrics', 'telemetry_spans')")  # fmt: skip
    assert len(rows) == 4
    for name, engine in rows:
        assert "fsync_after_insert = 1" in engine and "fsync_part_directory = 1" in engine, name


CRASHING = """
import ctypes, signal, sys, threading
from sp_telemetry.cli.main import main
from sp_telemetry.serve import server
server.CRASHED_AGAIN_S = float(sys.argv[1])
crash = threading.Thread(target=ctypes.CDLL(None).strlen, args=(0,), daemon=True)
signal.signal(signal.SIGUSR1, lambda *_: crash.start())
main(["serve"])
"""


@pytest.mark.parametrize("again_s", [0, 60])
def test_a_server_whose_engine_crashes_begins_anew_or_ends(tmp_path, again_s):
    """The engine's handler keeps the process, which listens on and answers everything with 236. Nobody would start another beside it."""
    crashing = Server(tmp_path / "home")
    crashing.home.make()
    environ = crashing.environ | {"SP_TELEMETRY_HOME": str(crashing.home.path)}
    process = subprocess.Popen([sys.executable, "-c", CRASHING, str(again_s)], env=environ, stderr=subprocess.DEVNULL)
    try:
        crashing.running = wait_for(lambda: service.settled(crashing.home))
        first, second = request(*map(event, range(5))), request(*map(event, range(5, 10)))
        crashing.stored("logs", first)
        before = crashing.home.server()
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        with suppress(OSError, HTTPException):
            crashing.post("logs", second)
        if again_s:
            assert wait_for(lambda: process.poll() is not None) and process.returncode == 70
            crashing.up()
        else:
            assert wait_for(lambda: (crashing.home.server() or before) != before) and process.poll() is None
            crashing.running = service.settled(crashing.home)
        assert numbers(crashing)[:5] == list(range(5))
        crashing.stored("logs", second)
        assert numbers(crashing) == list(range(10))
    finally:
        crashing.down()
        process.wait(timeout=30)
