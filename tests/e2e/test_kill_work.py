"""`kill -9` while something large is under way: a backup, an old store that is brought up to date. It goes on, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.e2e.faults import OLD_STORE
from tests.e2e.kills import assert_no_part_was_given_up, kill, start_and_kill
from tests.server import Server, wait_for

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


# ---- an old store that is brought up to date

# What a migration has written into the definitions of tables when it is done, or half-way: 0011, 0013, 0014, 0016, 0017 twice, 0018.
SIGNS = ("67108864", "copy_key", "begins_prompt", "Delta(8), LZ4", "by_session_id", "bloom_filter(0.0001)", "numbers_from")
SHAPE = (
    "SELECT name, create_table_query FROM system.tables WHERE database = 'telemetry' ORDER BY 1",
    "SELECT table, name, type, default_kind, default_expression, compression_codec, comment FROM system.columns"
    " WHERE database = 'telemetry' ORDER BY table, position",
    "SELECT name, checksum FROM telemetry.schema_migrations FINAL ORDER BY 1",
    *(
        f"SELECT '{table}', count(), sum(cityHash64(*)) FROM telemetry.{table} FINAL"
        for table in ("telemetry_events", "session_summaries", "transcript_copies")
    ),
)


def shape_and_rows(server: Server) -> list[list[list]]:
    return [server.query(question) for question in SHAPE]


def assert_nothing_is_left_undone(server: Server) -> None:
    """What goes on in the background ends, and the index is in each part then."""
    undone = "SELECT count() FROM system.mutations WHERE database = 'telemetry' AND NOT is_done"
    assert wait_for(lambda: server.query(undone) == [[0]], 60), server.query("SELECT * FROM system.mutations WHERE NOT is_done")
    without = "SELECT count() FROM system.parts WHERE table = 'telemetry_events' AND active AND secondary_indices_compressed_bytes = 0"
    assert server.query(without) == [[0]]
    assert_no_part_was_given_up(server)


def migrate_and_kill(folder: Path, turns: int) -> None:
    moments = random.Random(20261123)
    old = folder / "old"
    subprocess.run([sys.executable, "-c", OLD_STORE, str(old), "100000"], check=True)

    def over_old(name: str) -> Server:
        server = Server(folder / name)
        server.home.make()
        shutil.copytree(old, server.home.store, symlinks=True, dirs_exist_ok=True)
        return server

    undisturbed = over_old("undisturbed").up()
    try:
        wanted = shape_and_rows(undisturbed)
    finally:
        undisturbed.down()
    for turn in range(turns):
        server = over_old(str(turn))

        def seen(sign: str, server: Server = server) -> bool:
            return any(sign in file.read_text() for file in server.home.store.glob("store/*/*/*.sql"))

        for sign in sorted(moments.sample(SIGNS, 3), key=SIGNS.index):
            start_and_kill(server, moments.uniform(0, 0.02), lambda sign=sign, seen=seen: seen(sign))
        server.up()
        try:
            time.sleep(moments.uniform(0, 0.2))  # what goes on in the background has begun
            kill(server)
            server.up()
            assert_nothing_is_left_undone(server)
            assert shape_and_rows(server) == wanted
        finally:
            server.down()


def test_killed_while_an_old_store_is_brought_up_to_date(tmp_path):
    migrate_and_kill(tmp_path, 1)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_often_while_an_old_store_is_brought_up_to_date(tmp_path):
    migrate_and_kill(tmp_path, 30)
