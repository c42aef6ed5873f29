"""`kill -9` at any moment: what was acknowledged is stored once, the next start is quick, and what is made from events agrees with them."""

from __future__ import annotations

import itertools
import json
import os
import random
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

import pytest

from sp_telemetry.errors import SpTelemetryError
from sp_telemetry.setup import service
from tests.conftest import ROOT
from tests.server import Server, as_protobuf, context, log_request, wait_for

SENDERS = 4
START_S = 3.0
SESSIONS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(SENDERS)]
FOREVER, LONG = "0", "9000"  # days; the second is a TTL under which nothing expires


def record(session: str, number: int) -> bytes:
    """A request with the event of this number, and with each fifth a context for it."""
    at = time.time_ns()
    told = {"session.id": session, "event.sequence": number, "cost_usd": number / 1024, "input_tokens": 1}
    events = [{"name": "api_request", "time_ns": at, **told}]
    if number % 5 == 0:
        events.append(context(session, at - 1, feature=f"{number % 3:03}-f"))
    return as_protobuf(log_request(events))


class Sender(threading.Thread):
    """A client of one session: sends events one request after the other, each again until it is acknowledged, contexts between."""

    def __init__(self, to: Server, session: str) -> None:
        super().__init__()
        self.to, self.session = to, session
        self.sent: dict[int, float] = {}  # acknowledged: number -> cost
        self.stop = threading.Event()
        self.number = 0

    def run(self) -> None:
        while not self.stop.is_set():
            self.number += 1
            body = record(self.session, self.number)
            while not self._acknowledged(body):
                if self.stop.is_set():
                    return
                time.sleep(0.05)
            self.sent[self.number] = self.number / 1024

    def _acknowledged(self, body: bytes) -> bool:
        try:
            return self.to.post("logs", body)[0] == 200
        except (OSError, HTTPException):
            return False


# ---- what goes on when it is killed, beside the load


def in_background(server: Server, statement: str) -> None:
    def run() -> None:
        with suppress(SpTelemetryError):
            server.run(statement)

    threading.Thread(target=run, daemon=True).start()


def nothing(server: Server, moments: random.Random) -> None:
    pass


def merge(server: Server, moments: random.Random) -> None:
    for table in ("telemetry_events", "session_context"):
        in_background(server, f"OPTIMIZE TABLE telemetry.{table} FINAL")


def upkeep(server: Server, moments: random.Random) -> None:
    """Attribution and summaries are brought up to date at an orderly end: it is killed in it."""
    os.kill(server.running.pid, signal.SIGTERM)


def migration(server: Server, moments: random.Random) -> None:
    """As after an update: the next start applies every file again, and is killed in it."""
    server.run("INSERT INTO telemetry.schema_migrations (name, checksum) VALUES ('views', 'of another version')")
    server.run("ALTER TABLE telemetry.schema_migrations DELETE WHERE name LIKE '0%' SETTINGS mutations_sync = 2")
    kill(server)
    start_and_kill(server, moments)


def retention(server: Server, moments: random.Random) -> None:
    """A start with another retention, killed in it; then one that is killed while the parts are rewritten under it."""
    now = server.environ["SP_TELEMETRY_RETENTION_EVENTS_DAYS"]
    server.environ["SP_TELEMETRY_RETENTION_EVENTS_DAYS"] = LONG if now == FOREVER else FOREVER
    kill(server)
    start_and_kill(server, moments)
    server.up()
    in_background(server, "ALTER TABLE telemetry.telemetry_events MATERIALIZE TTL")


ACTIVITIES = (nothing, merge, nothing, migration, nothing, upkeep, nothing, retention)


def kill(server: Server) -> None:
    with suppress(ProcessLookupError):  # it had ended by itself
        os.kill(server.running.pid, signal.SIGKILL)
    assert wait_for(lambda: not service.is_held(server.home), every=0.005)


def start_and_kill(server: Server, moments: random.Random) -> None:
    """Kill a server that has just taken its lock, so that it opens the store, migrates, sets retentions, or begins to serve."""
    server.home.server_file.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "sp_telemetry.cli.main", "serve", "--log-file", str(server.home.logs / "server.log")],
        env={**server.environ, "SP_TELEMETRY_HOME": str(server.home.path)},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert wait_for(lambda: service.is_held(server.home), every=0.002)
        time.sleep(moments.uniform(0, 0.8))
    finally:
        process.kill()
        process.wait()


# ---- killed, and looked at afterwards


def kill_often(folder: Path, times: int, activities: tuple[Callable[[Server, random.Random], None], ...] = ACTIVITIES) -> None:
    """Load without a pause, and a kill in the middle of each activity. Prints what it took."""
    moments = random.Random(20261123)
    server = Server(folder).up()
    senders = [Sender(server, session) for session in SESSIONS]
    starts: list[float] = []
    slowest = 0.0
    try:
        for sender in senders:
            sender.start()
        for activity, _ in zip(itertools.cycle(activities), range(times), strict=False):
            held = sum(len(sender.sent) for sender in senders)
            assert wait_for(lambda held=held: sum(len(sender.sent) for sender in senders) > held, 30, 0.01)
            time.sleep(moments.uniform(0, 0.2))
            activity(server, moments)
            time.sleep(moments.uniform(0, 0.1))
            kill(server)
            begun = time.monotonic()
            server.up()
            starts.append(time.monotonic() - begun)
            slowest = max(slowest, starts[-1] / busy())
        assert wait_for(lambda: all(len(sender.sent) >= min(times, 20) for sender in senders), 60)
    except BaseException:
        service.down(server.home)
        raise
    finally:
        for sender in senders:
            sender.stop.set()
        for sender in senders:
            sender.join()
    try:
        for sender in senders:
            assert_stored_once(server, sender)
        server.restart()  # an orderly end brings summaries up to date
        assert_consistent(server)
    finally:
        server.down()
    assert len(steps_of_starts(server)) > times
    print(
        f"\n{times} kills, {sum(len(sender.sent) for sender in senders)} events acknowledged and stored once; a start takes"
        f" {sorted(starts)[times // 2]:.2f} s (median), {max(starts):.2f} s at most; load {os.getloadavg()[0]:.1f}"
    )
    assert slowest < START_S, (starts, steps_of_starts(server))


def steps_of_starts(server: Server) -> list[str]:
    """What each start took inside of the server, step by step, as far as its log goes back; the slowest last."""
    said = "".join(log.read_text() for log in sorted(server.home.logs.glob("server.log*")))
    return sorted(re.findall(r", after ([0-9.]+ s \(.*\))$", said, re.MULTILINE), key=lambda text: float(text.split()[0]))


def assert_stored_once(server: Server, sender: Sender) -> None:
    rows = server.query(
        "SELECT event_sequence, cost_usd, count() FROM telemetry.telemetry_events FINAL"
        f" WHERE session_id = '{sender.session}' GROUP BY 1, 2"
    )
    # one request may have been committed without its sender having been told
    unsure = {sender.number} - set(sender.sent)
    assert {number: cost for number, cost, _ in rows if number not in unsure} == sender.sent
    assert all(times == 1 for _, _, times in rows)


def assert_consistent(server: Server) -> None:
    """Summaries and attribution are what the events and the contexts say, and no part was given up."""
    measures = "count(), sum(cost_usd), sum(input_tokens)"
    raw = server.query(f"SELECT session_id, {measures} FROM telemetry.telemetry_events FINAL GROUP BY 1 ORDER BY 1")
    assert server.query("SELECT session_id, requests, cost_usd, input_tokens FROM telemetry.session_summaries FINAL ORDER BY 1") == raw
    assert [row[0] for row in raw] == SESSIONS
    by_feature = server.query(f"SELECT feature, {measures} FROM telemetry.telemetry_events FINAL GROUP BY 1 ORDER BY 1")
    kept = "sum(requests), sum(cost_usd), sum(input_tokens)"
    assert server.query(f"SELECT feature, {kept} FROM telemetry.usage_hourly FINAL GROUP BY 1 ORDER BY 1") == by_feature
    wrong = server.query(
        "SELECT count() FROM (SELECT * FROM telemetry.telemetry_events FINAL) AS e"
        " ASOF LEFT JOIN (SELECT * FROM telemetry.session_context FINAL) AS c ON e.session_id = c.session_id AND e.timestamp >= c.at"
        " WHERE e.feature != c.feature"
    )
    assert wrong == [[0]]
    assert list(server.home.store.glob("store/*/*/detached/*broken*")) == []


def busy() -> float:
    """By how much longer things take than on a machine that does nothing else."""
    return 1 + os.getloadavg()[0] / (os.cpu_count() or 1)


@pytest.mark.timeout(240)
def test_killed_twenty_times_under_load(tmp_path):
    kill_often(tmp_path, 20)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_two_hundred_times_under_load(tmp_path):
    kill_often(tmp_path, 200)


# ---- killed while a backup is made

# Opens the store as the server does, stores events one by one and says so, and makes one backup after the other beside it.
BACKING_UP = """
import json, sys, threading
from pathlib import Path
from sp_telemetry.store.engine import Engine
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.e2e.test_kill import SESSIONS, record

store, backups, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
import chdb
opened = chdb.connect(f"{store}?backups.allowed_path={backups}")  # the first handle's configuration is the engine's
engine = Engine(store)
pipeline = Pipeline(engine.handle())

def back_up():
    for number in range(1000):
        opened.query(f"BACKUP TABLE telemetry.telemetry_events, TABLE telemetry.session_context TO File('{backups}/{first}-{number}')")
        print(json.dumps({"backup": f"{first}-{number}"}), flush=True)

threading.Thread(target=back_up, daemon=True).start()
for number in range(first, first + 100000):
    pipeline.store(Lane("logs", "protobuf"), [record(SESSIONS[0], number)])
    print(json.dumps({"number": number}), flush=True)
"""
RESTORED = """
import sys, chdb
backups, name = sys.argv[1:]
opened = chdb.connect(f":memory:?backups.allowed_path={backups}")
opened.query("CREATE DATABASE telemetry")
opened.query(f"RESTORE TABLE telemetry.telemetry_events, TABLE telemetry.session_context FROM File('{backups}/{name}')")
print(opened.query("SELECT event_sequence FROM telemetry.telemetry_events FINAL ORDER BY 1").bytes().decode())
"""


def back_up_and_kill(folder: Path, times: int) -> None:
    moments = random.Random(20261123)
    server = Server(folder / "home").up()
    server.down()
    backups = folder / "backups"
    backups.mkdir()
    acknowledged: set[int] = set()
    made: dict[str, set[int]] = {}
    for turn in range(times):
        program = [sys.executable, "-c", BACKING_UP, str(server.home.store), str(backups), str(1 + turn * 100_000)]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))  # scripts/test keeps the directory out of it
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}) as process:
            try:
                told = [json.loads(process.stdout.readline()) for _ in range(4)]
                time.sleep(moments.uniform(0, 0.3))
            finally:
                process.kill()
            told += [json.loads(line) for line in process.stdout if line.endswith("}\n")]
        for line in told:
            if "backup" in line:
                made[line["backup"]] = set(acknowledged)
            else:
                acknowledged.add(line["number"])
    server.up()
    try:
        found = [row[0] for row in server.query("SELECT event_sequence FROM telemetry.telemetry_events FINAL ORDER BY 1")]
        assert sorted(set(found)) == found and acknowledged <= set(found)
        assert len(set(found) - acknowledged) <= times, "one of each turn may have been stored and not told"
        server.restart()
        raw = server.query("SELECT count(), sum(cost_usd) FROM telemetry.telemetry_events FINAL")
        assert server.query("SELECT sum(requests), sum(cost_usd) FROM telemetry.session_summaries FINAL") == raw
        assert list(server.home.store.glob("store/*/*/detached/*broken*")) == []
    finally:
        server.down()
    assert made, "no backup was finished"
    name = list(made)[-1]
    restored = subprocess.run([sys.executable, "-c", RESTORED, str(backups), name], capture_output=True, text=True, timeout=60)
    assert restored.returncode == 0, restored.stderr[-2000:]
    held = {int(line) for line in restored.stdout.split()}
    before = {number for number in made[name] if number <= int(name.split("-")[0])}  # of the turns before
    assert before <= held <= set(found)


def test_killed_while_backups_are_made(tmp_path):
    back_up_and_kill(tmp_path, 2)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_forty_times_while_backups_are_made(tmp_path):
    back_up_and_kill(tmp_path, 40)
