"""What a machine does to a server: no room, no memory, no files, no disk, another time. It refuses, says why, and goes on by itself."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from sp_telemetry.errors import ServerUnreachable
from sp_telemetry.setup import service
from sp_telemetry.setup.replay import GRPC_METHODS
from tests.conftest import require
from tests.server import PROTOBUF, Server, as_protobuf, context, log_request, server, wait_for

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits, namespaces and /proc of Linux"),
    pytest.mark.timeout(300),
]
SESSION = "00000000-0000-0000-0000-0000000000fa"
DAY_S = 86400


def event(number: int, **more: Any) -> dict[str, Any]:
    told = {"session.id": SESSION, "event.sequence": number, "cost_usd": 0.5, "input_tokens": 1}
    return {"name": "api_request", "time_ns": time.time_ns(), **told, **more}


def request(*events: dict[str, Any]) -> bytes:
    return as_protobuf(log_request(list(events)))


def numbers(of: Server) -> list[int]:
    """The numbers of all events as they are stored, once for each row that a reader sees."""
    return [row[0] for row in of.query("SELECT event_sequence FROM telemetry.telemetry_events FINAL ORDER BY ALL")]


def health(of: Server) -> tuple[int, dict[str, Any]]:
    status, text = of.get("health", "/")
    return status, json.loads(text)


def assert_refused(of: Server, body: bytes, why: str) -> None:
    """Over HTTP and gRPC: come again, and the reason; nowhere the engine's own words."""
    status, headers, text = of.post("logs", body)
    assert (status, headers.get("retry-after")) == (503, "5"), text
    assert why.encode() in text and b"DB::Exception" not in text
    with grpc.insecure_channel(f"127.0.0.1:{of.ports['otlp_grpc']}") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(GRPC_METHODS["logs"])(body, timeout=30)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE and why in refused.value.details()
    assert ("grpc-retry-pushback-ms", "5000") in refused.value.trailing_metadata()


def assert_said(of: Server, why: str) -> None:
    """By the health check, the metrics and `status`, and in the log once."""
    status, state = health(of)
    assert (status, state["status"], state["reason"]) == (503, "Store unavailable", f"{why}.")
    assert state["mend"]
    assert of.metrics()["sp_telemetry_store_available"] == 0
    told = of.command("status")
    assert told.returncode == 5, told.stderr
    assert f"trouble   {why}. {state['mend']}." in told.stdout
    assert json.loads(of.command("status", "--json").stdout)["reason"] == f"{why}."
    log = (of.home.logs / "server.log").read_text()
    assert log.count(f"{why}. Senders are told to try again.") == 1 and "Traceback" not in log and "DB::Exception" not in log


def assert_well(of: Server, pid: int) -> None:
    """The same process, and nothing broken in its store."""
    assert wait_for(lambda: health(of)[0] == 200), health(of)
    assert of.metrics()["sp_telemetry_store_available"] == 1
    told = of.command("status")
    assert (told.returncode, "trouble" in told.stdout) == (0, False)
    assert json.loads(of.command("status", "--json").stdout)["pid"] == pid
    assert broken_parts(of) == []


def broken_parts(of: Server) -> list[Path]:
    """Parts that the engine has put aside because it can't read them."""
    return list(of.home.store.glob("store/*/*/detached/*"))


def assert_stored_once_and_again_after_a_restart(of: Server, wanted: list[int]) -> None:
    assert numbers(of) == wanted
    of.restart()
    assert numbers(of) == wanted
    assert_summaries_are_those_of_the_events(of)
    assert broken_parts(of) == []


def assert_summaries_are_those_of_the_events(of: Server) -> None:
    """Summaries are brought up to date when a server ends; it has been started anew."""
    raw = "SELECT {}, count(), sum(cost_usd) FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request' GROUP BY 1 ORDER BY 1"
    kept = "SELECT session_id, requests, cost_usd FROM telemetry.session_summaries FINAL ORDER BY 1"
    assert of.query(kept) == of.query(raw.format("session_id"))
    kept = "SELECT toString((hour, feature)), sum(requests), sum(cost_usd) FROM telemetry.usage_hourly FINAL GROUP BY 1 ORDER BY 1"
    assert of.query(kept) == of.query(raw.format("toString((toDateTime(toStartOfHour(timestamp), 'UTC'), feature))"))


# ---- the disk: a mount namespace of the server's own, gone with its last process, whatever happens to the test


class Room:
    """A mount namespace. What is mounted there, nobody else sees; `outside` is how we look in."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "110"])
        ours = os.readlink("/proc/self/ns/mnt")
        inside = f"/proc/{self._holder.pid}/ns/mnt"
        ready = wait_for(lambda: self._holder.poll() is not None or os.readlink(inside) != ours, 10, 0.005)
        require(ready and self._holder.poll() is None, "a mount namespace needs root")

    @property
    def enter(self) -> list[str]:
        return ["nsenter", "--target", str(self._holder.pid), "--mount"]

    def run(self, *command: str | Path) -> None:
        subprocess.run([*self.enter, *map(str, command)], check=True)

    def outside(self, inside: Path) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{inside}")

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class InRoom(Server):
    """A server whose home lies in a room."""

    def __init__(self, room: Room, folder: Path, **settings: str) -> None:
        super().__init__(room.outside(folder), **settings)
        self.room, self.folder = room, folder

    def up(self) -> InRoom:
        done = self.command("up")
        assert done.returncode == 0, done.stderr
        self.running = service.running(self.home)
        return self

    def command(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*self.room.enter, sys.executable, "-m", "sp_telemetry.cli.main", *arguments],
            env={**self.environ, "SP_TELEMETRY_HOME": str(self.folder)},
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def small_disk(room: Room, at: Path, mib: int) -> Iterator[InRoom]:
    at.mkdir()
    room.run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", at)
    placed = InRoom(room, at / "home")
    try:
        yield placed
    finally:
        placed.down()


def fill(file: Path) -> None:
    with open(file, "wb", buffering=0) as out:
        for size in (1 << 20, 4096, 1):
            try:
                while out.write(b"x" * size) == size:
                    pass
            except OSError:
                pass


FULL = "The disk of the store is full"


@pytest.mark.needs("unshare", "nsenter", "mount")
def test_a_full_disk_refuses_and_room_is_all_it_takes_to_go_on(room, tmp_path):
    with small_disk(room, tmp_path / "small", 64) as placed:
        placed.up()
        pid, ballast = placed.running.pid, placed.home.path.parent / "ballast"
        first = request(event(1))
        placed.stored("logs", first)
        fill(ballast)
        refused = [request(event(number)) for number in range(2, 6)]
        for body in refused:
            assert_refused(placed, body, FULL)
        assert_said(placed, FULL)
        assert numbers(placed) == [1], "what is stored can still be read"
        ballast.unlink()
        assert health(placed)[0] == 503, "nothing has been accepted yet, for all that is known"
        for body in (*refused, first):
            placed.stored("logs", body)
        assert_well(placed, pid)
        assert_stored_once_and_again_after_a_restart(placed, [1, 2, 3, 4, 5])


@pytest.mark.long
@pytest.mark.needs("unshare", "nsenter", "mount")
def test_a_disk_that_fills_up_under_load_keeps_what_was_acknowledged(room, tmp_path):
    """Not at a moment that we choose: while parts are written and merged, over and over."""
    with small_disk(room, tmp_path / "small", 20) as placed:
        placed.up()
        acknowledged, number = [], 0
        for _ in range(2):
            refused = 0
            ballast = placed.home.path.parent / "ballast"
            with open(ballast, "wb", buffering=0) as out:
                while refused < 5:
                    number += 1
                    status, _, text = placed.post("logs", request(event(number)))
                    assert status in (200, 503), text
                    acknowledged += [number] if status == 200 else []
                    refused += status == 503
                    with suppress(OSError):
                        out.write(b"x" * (1 << 20))
            ballast.unlink()
        assert len(acknowledged) > 10
        placed.stored("logs", request(event(number + 1)))
        found = numbers(placed)
        assert sorted(set(found)) == found and set(acknowledged) <= set(found)
        assert_stored_once_and_again_after_a_restart(placed, found)


@pytest.mark.needs("unshare", "nsenter", "mount")
def test_a_start_without_room_fails_in_a_sentence_and_the_next_one_with_room_works(room, tmp_path):
    with small_disk(room, tmp_path / "small", 32) as placed:
        placed.up()
        placed.stored("logs", request(event(1)))
        placed.down()
        ballast = placed.home.path.parent / "ballast"
        fill(ballast)
        told = placed.command("up")
        assert told.returncode == 1
        lines = told.stderr.splitlines()
        assert (
            len(lines) == 2
            and lines[0].startswith("sp-telemetry: The server did not start: ")
            and "disk" in lines[0]
            and "is full." in lines[0]
        ), told.stderr
        assert str(placed.folder / "logs") in lines[1]
        assert len(told.stderr) < 500 and "Traceback" not in told.stderr and "DB::Exception" not in told.stderr
        ballast.unlink()
        placed.up()
        assert_stored_once_and_again_after_a_restart(placed, [1])


@pytest.mark.needs("unshare", "nsenter", "mount")
def test_a_store_that_turns_read_only_refuses_until_it_can_be_written(room, tmp_path):
    placed = InRoom(room, tmp_path / "home")
    try:
        placed.up()
        pid, store = placed.running.pid, placed.folder / "store"
        placed.stored("logs", request(event(1)))
        room.run("mount", "--bind", store, store)
        room.run("mount", "-o", "remount,ro,bind", store)
        second = request(event(2))
        assert_refused(placed, second, "The store can't be written")
        assert_said(placed, "The store can't be written")
        assert numbers(placed) == [1]
        room.run("umount", "--lazy", store)
        placed.stored("logs", second)
        assert_well(placed, pid)
        assert_stored_once_and_again_after_a_restart(placed, [1, 2])
    finally:
        placed.down()


# ---- faults of one server, one after the other


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
    assert (otlp.ask("POST", "/v1/logs", request(event(1)))[0], check.ask("GET", "/")[0]) == (200, 200)
    later = [request(event(number)) for number in range(2, 5)]
    used = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    with limited(pid, resource.RLIMIT_NOFILE, min(used, 40)):
        for body in later:
            status, headers, text = otlp.ask("POST", "/v1/logs", body)
            assert (status, headers.get("retry-after")) == (503, "5") and b"too many files open" in text
        status, _, text = check.ask("GET", "/")
        assert status == 503 and json.loads(text)["reason"] == "The server has too many files open."
        status, _, text = figures.ask("GET", "/metrics")
        assert status == 200 and b"sp_telemetry_store_available 0" in text
        told = fresh.command("status")
        assert (told.returncode, "does not answer" in told.stderr) == (3, True)
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
        assert b"out of memory" in text
    fresh.stored("logs", large)
    assert_well(fresh, pid)
    assert_stored_once_and_again_after_a_restart(fresh, list(range(5001)))


# ---- the clock


class Skewed(Server):
    """A server whose clock is the machine's plus so many seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "home")
        self._offset = folder / "offset"
        self.set_clock(0)
        self._process: subprocess.Popen | None = None

    def set_clock(self, seconds: int) -> None:
        draft = self._offset.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self._offset)

    def up(self) -> Skewed:
        self.home.make()
        script = Path(__file__).with_name("skewed_serve.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(self._offset), "--log-file", str(self.home.logs / "server.log")],
            env={**self.environ, "SP_TELEMETRY_HOME": str(self.home.path)},
        )
        self.running = wait_for(self._running, 30, 0.02)
        assert self.running
        return self

    def _running(self) -> service.Running | None:
        try:
            return service.running(self.home)
        except ServerUnreachable:
            return None

    def down(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)
        self.home.server_file.unlink()


@pytest.fixture
def skewed(tmp_path: Path) -> Iterator[Skewed]:
    made = Skewed(tmp_path)
    try:
        yield made.up()
    finally:
        made.down()


def told_by_feature(of: Server) -> dict[str, int]:
    return dict(map(tuple, of.query("SELECT feature, count() FROM telemetry.telemetry_events FINAL GROUP BY 1")))


def test_a_clock_set_forward_and_back_loses_no_event_no_attribution_and_no_summary(skewed):
    begun, number = time.time_ns(), 0
    for ahead in (0, DAY_S, 0, -DAY_S, 0):
        skewed.set_clock(ahead)
        number += 2
        bodies = [request(event(number)), request(event(number + 1))]
        for body in (*bodies, bodies[0]):
            skewed.stored("logs", body)
        [[newest]] = skewed.query(
            "SELECT toFloat64(received_at) FROM telemetry.telemetry_events WHERE event_sequence = {n:UInt8}", n=number + 1
        )
        assert newest == pytest.approx(time.time() + ahead, abs=60), "the clock of the test is not the server's"
        # context that comes late, for what has just come
        skewed.stored("logs", request(context(SESSION, begun + number, feature=f"{number:03}-f")))
        assert wait_for(lambda number=number: set(told_by_feature(skewed)) == {f"{number:03}-f"}), (ahead, told_by_feature(skewed))
    assert skewed.metrics()["sp_telemetry_events_duplicate"] == 5
    assert_stored_once_and_again_after_a_restart(skewed, list(range(2, 12)))


def test_a_clock_set_back_while_the_server_was_down_or_killed_leaves_no_summary_behind(skewed):
    begun = time.time_ns()
    skewed.set_clock(DAY_S)
    skewed.stored("logs", request(context(SESSION, begun, feature="001-f"), event(1)))
    skewed.down()
    skewed.set_clock(0)
    skewed.up()
    skewed.stored("logs", request(event(2)))
    skewed.stored("logs", request(context(SESSION, begun + 1, feature="002-f")))
    assert wait_for(lambda: told_by_feature(skewed) == {"002-f": 2})
    skewed.kill()
    skewed.up()
    assert_stored_once_and_again_after_a_restart(skewed, [1, 2])


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


@pytest.mark.needs("strace")
def test_parts_are_on_the_disk_before_they_are_acknowledged(fresh, tmp_path):
    [[folder]] = fresh.query("SELECT data_paths[1] FROM system.tables WHERE database = 'telemetry' AND name = 'telemetry_events'")
    trace = tmp_path / "trace"
    with traced(fresh.running.pid, trace, "-e", "trace=fsync,fdatasync,sendto,write,writev,sendmsg"):
        fresh.stored("logs", request(event(1)))
    lines = trace.read_text().splitlines()
    acknowledged = next(number for number, line in enumerate(lines) if '"HTTP/1.1 200' in line)
    synced = [line for line in lines[:acknowledged] if re.search(r"\b(fsync|fdatasync)\(", line) and folder in line]
    assert any("data.bin" in line or ".bin>" in line for line in synced), "the part's data"
    assert any(re.search(r"/(tmp_insert_)?[^/>]+_\d+_\d+_\d+/?>", line) for line in synced), "the part's directory"


@pytest.mark.needs("strace")
def test_what_can_not_be_synced_is_not_acknowledged(fresh, tmp_path):
    first = request(event(1))
    with traced(fresh.running.pid, tmp_path / "trace", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"):
        status, headers, text = fresh.post("logs", first)
        assert (status, headers.get("retry-after")) == (503, "5") and b"The disk of the store fails" in text
    fresh.stored("logs", first)
    assert numbers(fresh) == [1]


def test_every_table_that_events_and_contexts_go_to_is_synced(fresh):
    rows = fresh.query("SELECT name, engine_full FROM system.tables WHERE database = 'telemetry' AND name IN"
                       " ('telemetry_events', 'session_context', 'telemetry_metrics', 'telemetry_spans')")  # fmt: skip
    assert len(rows) == 4
    for name, engine in rows:
        assert "fsync_after_insert = 1" in engine and "fsync_part_directory = 1" in engine, name
