"""`kill -9` while something large is under way: a backup. It is made again, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.kills import assert_no_part_was_given_up
from tests.server import Server

# ---- a backup

# Opens the store as the server does, stores events one by one and says so, and makes one backup after the other beside it.
BACKING_UP = """
import json, sys, threading, time
from pathlib import Path
from sp_telemetry.store.engine import Engine
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.e2e.kills import SESSIONS, record

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
    pipeline.store(Lane("logs", "protobuf"), [record(SESSIONS[0], number, time.time_ns())])
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
        assert_no_part_was_given_up(server)
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
