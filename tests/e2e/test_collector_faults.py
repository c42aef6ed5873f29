"""What happens to a collector and its store: nothing is lost, nothing counts twice, and who sends need not wait for the store."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from shutil import copytree

import pytest

from sp_telemetry.home import WRITER
from sp_telemetry.setup import doctor_collector
from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, executable
from tests.client.install import NEWEST, ClientUnavailable
from tests.collector.build import CONFIGURATION
from tests.collector.running import NO_POLICY, Collector, free_ports
from tests.conftest import ROOT, require
from tests.server import Server, as_protobuf, log_request, server, wait_for

pytestmark = [pytest.mark.needs("go"), pytest.mark.timeout(1500)]  # the collector may have to be built first

SESSION = "00000000-0000-4000-8000-0000000000c0"
OURS = f"WHERE session_id = '{SESSION}'"
START_NS = 1_790_000_000 * 10**9
EVENTS_A_REQUEST = 250
WAIT_S = 120  # for a slow machine; each wait ends as soon as it can


def request(first: int, events: int = EVENTS_A_REQUEST) -> bytes:
    """The events of these numbers, 20 ms apart, each of which costs 1/1024 dollar."""
    told = {"session.id": SESSION, "model": "claude-test", "cost_usd": 1 / 1024, "input_tokens": 3}
    numbers = range(first, first + events)
    return as_protobuf(
        log_request([{"name": "api_request", "time_ns": START_NS + n * 20_000_000, "event.sequence": n, **told} for n in numbers])
    )


class Stack:
    """A store and a collector before it, each under ports that it keeps over restarts."""

    def __init__(self, blank: Path, folder: Path, **environment: str) -> None:
        copytree(blank, folder / "home", symlinks=True)
        clickhouse, health = free_ports(2)
        fixed = {"SP_TELEMETRY_CLICKHOUSE_PORT": str(clickhouse), "SP_TELEMETRY_HEALTH_PORT": str(health)}
        self.store = Server(folder / "home", **fixed)
        self.store.up()
        password = self.store.home.secret(WRITER)
        self.collector = Collector(folder, f"http://127.0.0.1:{clickhouse}", password, policy=NO_POLICY, **environment)
        self.sent = 0

    def send(self, events: int) -> float:
        """Sends so many more, each request once and taken at once; the longest that one took."""
        longest = 0.0
        for first in range(self.sent, self.sent + events, EVENTS_A_REQUEST):
            begun = time.monotonic()
            assert self.collector.post("logs", request(first)) == 200
            longest = max(longest, time.monotonic() - begun)
        self.sent += events
        return longest

    def kill_store(self) -> None:
        pid = self.store.running.pid
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: ended(pid), 10, 0.01)

    def store_is_busy(self) -> bool:
        figures = self.store.metrics()
        return figures["sp_telemetry_queued_bytes"] > 0 or figures["sp_telemetry_requests_stored_total"] > 0

    def stored(self) -> tuple[int, int]:
        """Events that a reader counts, and distinct numbers among them."""
        [[rows, numbers]] = self.store.query(f"SELECT count(), uniqExact(event_sequence) FROM telemetry.telemetry_events FINAL {OURS}")
        return rows, numbers

    def assert_whole(self) -> None:
        """Every event once, in the table and under the report, and the queue is empty."""
        wait_for(lambda: self.stored()[1] >= self.sent, WAIT_S, 0.3)
        assert wait_for(lambda: self.collector.metric("otelcol_exporter_queue_size") == 0, WAIT_S, 0.3)
        assert self.stored() == (self.sent, self.sent)
        [[cost, requests]] = self.store.query(f"SELECT sum(cost_usd), countIf(cost_usd > 0) FROM telemetry.telemetry_events FINAL {OURS}")
        assert (cost, requests) == (self.sent / 1024, self.sent)

    def close(self) -> None:
        self.collector.kill()
        with contextlib.suppress(Exception):
            self.store.down()


def ended(pid: int) -> bool:
    """Also where nobody reaps it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation in which nothing is stored; to copy it is quicker than to make it."""
    folder = tmp_path_factory.mktemp("blank")
    with server(folder):
        pass
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, blank: Path) -> Iterator[Stack]:
    stack = Stack(blank, tmp_path_factory.mktemp("stack"))
    try:
        yield stack
    finally:
        stack.close()


@pytest.fixture
def stack(made: Stack) -> Stack:
    """Both up, and what was sent before is stored: the tests share one store, and each counts all that ever went in."""
    made.store.up()
    if made.collector.process is None:
        made.collector.start()
    made.assert_whole()
    return made


def test_ten_minutes_of_events_while_the_store_is_away(stack: Stack) -> None:
    """600 s of 50 events a second, as ten busy people make them, sent as fast as the collector takes them."""
    stack.store.down()
    longest = stack.send(30_000)
    assert stack.collector.metric("otelcol_exporter_queue_size", data_type="logs") > 30_000 * 50  # bytes; they wait on disk
    assert longest < 10  # the store's absence is nothing that a sender sees: no request waited for a retry or ran into its timeout
    stack.store.up()
    stack.assert_whole()


@pytest.mark.needs("node", "npm", "git")
def test_claude_code_works_on_while_the_store_is_away(stack: Stack, tmp_path: Path) -> None:
    """All that it exports is taken at once, so it neither repeats nor waits; its cost is in the store when that is back."""
    try:
        binary = executable(NEWEST)
    except ClientUnavailable as reason:
        require(False, str(reason))
    script = Script().on("turn", Reply("1", ToolUse("Bash", command="echo x")), Reply("done"))
    (tmp_path / "book").mkdir()
    tables = {"log_records": "telemetry_events", "metric_points": "telemetry_metrics", "spans": "telemetry_spans"}
    before = {signal: stack.collector.metric(f"otelcol_receiver_accepted_{signal}") for signal in tables}
    stack.store.down()
    with MessagesApi(script) as api, OtlpRecorder(grpc=False) as unused:
        client = ClaudeCode(binary, tmp_path / "user", api.url)
        env = unused.environment("grpc") | {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.collector.endpoint("grpc")}
        runs = [client.run("turn", cwd=tmp_path / "book", env=env) for _ in range(2)]
    taken = {signal: stack.collector.metric(f"otelcol_receiver_accepted_{signal}") - before[signal] for signal in tables}
    assert min(taken.values()) > 5
    assert [stack.collector.metric(f"otelcol_receiver_refused_{signal}") for signal in tables] == [0, 0, 0]
    stack.store.up()

    def stored() -> dict[str, int]:
        count = f"SELECT count() FROM telemetry.{{}} FINAL WHERE session_id != '{SESSION}'"
        return {signal: stack.store.query(count.format(table))[0][0] for signal, table in tables.items()}

    wait_for(lambda: stored() == taken, WAIT_S, 0.3)
    assert stored() == taken
    told = stack.store.query(
        "SELECT session_id, sum(cost_usd) FROM telemetry.telemetry_events FINAL"
        f" WHERE event_type = 'api_request' AND session_id != '{SESSION}' GROUP BY 1"
    )
    assert dict(map(tuple, told)) == {run.session_id: pytest.approx(run.result["total_cost_usd"], abs=1e-9) for run in runs}


def test_the_collector_is_killed_with_a_filled_queue(stack: Stack) -> None:
    stack.store.down()
    stack.send(10_000)
    stack.collector.kill()
    stack.collector.start()
    stack.send(1000)
    stack.store.up()
    stack.assert_whole()


def test_the_collector_is_killed_while_the_queue_empties(stack: Stack) -> None:
    """What it was about to be told is stored is sent again, and counts once."""
    stack.store.down()
    stack.send(20_000)
    stack.store.up()
    for left in (15_000, 5000):
        wait_for(lambda: stack.stored()[0] >= stack.sent - left, 30, 0.02)  # noqa: B023
        stack.collector.kill()
        stack.collector.start()
    stack.assert_whole()


def test_the_store_is_killed_in_mid_insert(stack: Stack) -> None:
    """Again and again while it takes what has piled up."""
    stack.store.down()
    stack.send(20_000)
    for delay in (0.0, 0.2):
        stack.store.up()
        wait_for(stack.store_is_busy, 30, 0.01)
        time.sleep(delay)
        stack.kill_store()
        stack.send(500)
    stack.store.up()
    stack.assert_whole()


@pytest.mark.parametrize("first", ["store", "collector"])
def test_both_are_restarted_in_either_order(stack: Stack, first: str) -> None:
    stack.send(2000)
    (stack.store.down if first == "store" else stack.collector.stop)()
    if first == "store":
        stack.send(2000)
        stack.collector.stop()
        stack.collector.start()  # it starts, is healthy and takes events with nobody to give them to
        stack.send(2000)
        stack.store.up()
    else:
        stack.store.down()
        stack.store.up()
        stack.collector.start()
    stack.send(2000)
    stack.assert_whole()


def test_a_full_queue_makes_senders_wait_and_drops_nothing(tmp_path: Path, blank: Path) -> None:
    """Who sends more than the queue may hold gets no acknowledgement for it, so that it is sent again."""
    stack = Stack(blank, tmp_path, TELEMETRY_QUEUE_BYTES="1000000")
    try:
        stack.collector.start()
        stack.store.down()
        refused = 0
        while not refused:
            try:
                assert stack.collector.post("logs", request(stack.sent), timeout=2) == 200
                stack.sent += EVENTS_A_REQUEST
            except TimeoutError:
                refused = stack.sent
            assert stack.sent < 50_000
        said = doctor_collector.figures("127.0.0.1", stack.collector.ports["METRICS"])
        assert 0.8 < said["queue_share"] <= 1 and said["queue_bytes"] > 800_000 and said["queue_capacity_bytes"] == 3_000_000
        assert [(finding.level, finding.code) for finding in doctor_collector.queue(said)] == [("error", "queue-filling")]
        stack.store.up()
        stack.send(EVENTS_A_REQUEST)  # the refused one, once more
        stack.assert_whole()
        said = doctor_collector.figures("127.0.0.1", stack.collector.ports["METRICS"])
        assert (said["queue_share"], said["queue_bytes"], said["failed"]) == (0, 0, 0)
        assert [(finding.level, finding.code) for finding in doctor_collector.queue(said)] == [("ok", "queue")]
    finally:
        stack.close()
    assert [
        finding.code for finding in doctor_collector.queue(doctor_collector.figures("127.0.0.1", stack.collector.ports["METRICS"]))
    ] == ["queue-unknown"]


@contextlib.contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", disk], capture_output=True, text=True)
    require(mounted.returncode == 0, f"a small disk needs root: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.needs("mount", "umount", "/usr/bin/fallocate")
@pytest.mark.parametrize("ending", ["", "stop", "kill"])
def test_the_queues_disk_is_full(tmp_path: Path, blank: Path, ending: str) -> None:
    """Others fill it while the store is away: what was taken has its room, is delivered on the full disk, also by a collector that was
    started anew on it, and beyond that senders wait."""
    may_wait = 3_000_000
    with contextlib.ExitStack() as leaving:
        disk = leaving.enter_context(small_disk(tmp_path, mib=32))
        subprocess.run([CONFIGURATION / "reserve.sh", disk / "queue", str(may_wait), "clickhouse"], check=True)
        stack = Stack(blank, tmp_path, TELEMETRY_QUEUE_DIR=str(disk / "queue"), TELEMETRY_QUEUE_BYTES=str(may_wait))
        leaving.callback(stack.close)
        stack.collector.start()
        for _ in range(2):  # the second time into a file that has been in use
            stack.store.down()
            stack.send(2000)
            ballast = disk / "ballast"
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as out:
                while out.write(b"x" * 4096):
                    pass
            assert os.statvfs(disk).f_bavail == 0
            with contextlib.suppress(TimeoutError):
                for events in cycle((EVENTS_A_REQUEST, 1, 10, 1000)):
                    assert stack.collector.post("logs", request(stack.sent, events), timeout=2) == 200
                    stack.sent += events
                    assert stack.sent < 100_000
            if ending:
                getattr(stack.collector, ending)()
                stack.collector.start()
            stack.store.up()
            stack.assert_whole()
            ballast.unlink()
            assert sorted(file.stat().st_blocks * 1024 // may_wait for file in (disk / "queue").iterdir()) == [5, 5, 5]


@pytest.mark.needs("mount", "umount", "/usr/bin/fallocate")
def test_room_that_is_not_there_is_not_reserved(tmp_path: Path) -> None:
    with small_disk(tmp_path, mib=5) as disk:
        done = subprocess.run([CONFIGURATION / "reserve.sh", disk / "queue", str(1 << 20), "clickhouse"], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        shown = done.stderr.strip().replace(f"{disk}/queue", "/var/lib/otelcol").replace("2 MiB", "1280 MiB")
        assert shown in (ROOT / "telemetry-server/docs/troubleshooting.md").read_text()
        left = sorted(file.name for file in (disk / "queue").iterdir())
        assert left == ["exporter_clickhouse__logs", "exporter_clickhouse__metrics"]  # for which there was room
