"""What waits in the journal is what was acknowledged; it is stored once, and holds nothing of a person's."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import shutil
import signal
import struct
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sp_telemetry.errors import QueryFailed
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve import intake
from sp_telemetry.serve.counters import Counters
from sp_telemetry.store import framing, privacy, standing_query
from sp_telemetry.store.engine import Handle
from sp_telemetry.store.journal import HEAD, Journal
from sp_telemetry.store.pipeline import STANDING, Pipeline
from tests.server import Server, as_protobuf, context, log_request, server, wait_for

START = 1_790_000_000 * 10**9
SESSION = str(UUID(int=77))
linux = pytest.mark.skipif(not standing_query.AVAILABLE, reason="events wait for others where a standing query types them: on Linux")


def waiting(folder: Path) -> list[bytes]:
    """What the next start would find."""
    return Journal(folder).blocks


# ---- the file


def test_what_is_appended_waits_until_it_is_dropped_also_after_an_end(tmp_path: Path):
    journal = Journal(tmp_path / "journal")
    journal.append([b"one", b"two"])
    journal.append([b"three"])
    [first] = journal.take()
    journal.append([b"four"])
    assert first.blocks == [b"one", b"two", b"three"]
    assert journal.blocks == waiting(tmp_path / "journal") == [*first.blocks, b"four"]
    journal.drop(first)
    assert (journal.blocks, waiting(tmp_path / "journal"), journal.bytes) == ([b"four"], [b"four"], HEAD.size + 4)
    later = Journal(tmp_path / "journal")  # a server that was killed and started again
    later.append([b"five"])
    assert [segment.blocks for segment in later.take()] == [[b"four"], [b"five"]]
    for segment in later.take():
        later.drop(segment)
    assert (later.bytes, list((tmp_path / "journal").iterdir())) == (0, [])
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o700


def written(folder: Path, blocks: list[bytes]) -> tuple[Path, bytes, list[int]]:
    """A file of a journal, what is in it, and where each of its records ends."""
    journal = Journal(folder)
    journal.append(blocks)
    [segment] = journal.take()
    return segment.path, segment.path.read_bytes(), list(accumulate(HEAD.size + len(block) for block in blocks))


BLOCKS = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), blocks=BLOCKS)
def test_a_file_that_was_cut_off_gives_what_stands_before_and_is_no_news(data: st.DataObject, blocks: list[bytes]):
    """By a kill, in the middle of a write; a power cut may leave zeros at its end."""
    with tempfile.TemporaryDirectory() as folder:
        path, whole, ends = written(Path(folder), blocks)
        at = data.draw(st.one_of(st.integers(0, len(whole) - 1), st.sampled_from(ends)))
        path.write_bytes(whole[:at] + (data.draw(st.sampled_from([b"", bytes(len(whole))])) if at in ends or not at else b""))
        journal = Journal(Path(folder))
        assert journal.blocks == blocks[: sum(end <= at for end in ends)]
        for segment in journal.take():
            journal.drop(segment)
        assert list(Path(folder).iterdir()) == []


@settings(max_examples=200, deadline=None)
@given(data=st.data(), blocks=BLOCKS)
def test_a_bit_that_is_wrong_costs_its_record_alone_and_the_file_is_kept(data: st.DataObject, blocks: list[bytes]):
    """Where it is in a length, that may name a place at which another record ends."""
    with tempfile.TemporaryDirectory() as folder:
        path, whole, ends = written(Path(folder), blocks)
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
        path.write_bytes(damaged)
        hit = sum(end <= at for end in ends)
        in_length = at - (ends[hit - 1] if hit else 0) < 8
        journal = Journal(Path(folder))
        found = journal.blocks
        assert found in [[*blocks[:hit], *blocks[after:]] for after in (range(hit + 1, len(blocks) + 1) if in_length else [hit + 1])]
        for segment in journal.take():
            journal.drop(segment)
        assert [(file.name, file.read_bytes()) for file in Path(folder).iterdir()] == [("00000001.rows.damaged", damaged)]
        Journal(Path(folder)).append([b"later"])
        assert {file.name for file in Path(folder).iterdir()} == {"00000001.rows.damaged", "00000002.rows"}


def test_what_is_damaged_is_told_of_in_the_log_and_what_is_torn_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path, whole, ends = written(tmp_path, [b"one" * 100, b"two", b"three"])
    path.write_bytes(whole[:-1])
    assert (waiting(tmp_path), caplog.text) == ([b"one" * 100, b"two"], "")
    path.write_bytes(b"\xff" + whole[1:])  # a length beyond the end, as one that is cut off has
    assert waiting(tmp_path) == [b"two", b"three"]
    assert f"{ends[0]} bytes of {path} can't be read, 2 blocks of events in it can. It is kept, as {path.name}.damaged." in caplog.text


def test_a_long_file_whose_length_is_damaged_is_searched_within_bounds(tmp_path: Path):
    """Numbers that may be lengths stand everywhere in a block of rows."""
    block = struct.pack("<1000Q", *range(1, 1001)) * 500
    path, whole, _ = written(tmp_path, [block] * 5)
    path.write_bytes(whole[:5] + b"\xff" + whole[6:])
    begun = time.process_time()
    assert waiting(tmp_path) == [block] * 4
    assert time.process_time() - begun < 5


def test_a_folder_or_a_file_that_somebody_removes_is_begun_anew(tmp_path: Path):
    """What is acknowledged from then on is in a file with a name."""
    folder = tmp_path / "journal"
    journal = Journal(folder)
    for again in range(2):
        journal.append([b"before"])
        if again:
            next(folder.glob("*.rows")).unlink()
        else:
            shutil.rmtree(folder)
        journal.append([b"after"])
        assert (waiting(folder), journal.blocks, folder.stat().st_mode & 0o777) == ([b"after"], [b"before", b"after"], 0o700)
        for segment in journal.take():
            journal.drop(segment)
    shutil.rmtree(tmp_path / "journal")
    tmp_path.rename(tmp_path.with_name("away"))
    with pytest.raises(FileNotFoundError):
        journal.append([b"lost"])
    tmp_path.with_name("away").rename(tmp_path)


def test_an_append_that_fails_half_way_leaves_nothing_and_what_follows_is_found(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.append([b"first"])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append([b"x" * 100])
        assert (journal.blocks, waiting(tmp_path)) == ([b"first"], [b"first"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    journal.append([b"second"])
    assert journal.blocks == waiting(tmp_path) == [b"first", b"second"]


def test_how_much_waits_is_told_while_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The event loop asks it at every turn."""
    journal = Journal(tmp_path)
    journal.append([b"first"])
    syncing, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr("sp_telemetry.store.journal._sync", lambda file: syncing.set() or go_on.wait(20))
    with ThreadPoolExecutor() as pool:
        appending = pool.submit(journal.append, [b"second"])
        assert syncing.wait(10)
        begun = time.monotonic()
        assert pool.submit(lambda: journal.bytes).result(10) == HEAD.size + len(b"first")
        assert time.monotonic() - begun < 5
        go_on.set()
        appending.result(10)
    assert journal.bytes == sum(file.stat().st_size for file in tmp_path.iterdir()) == 2 * HEAD.size + len(b"first" + b"second")


# ---- its way into the store


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def request(*sequences: int, **told: str) -> bytes:
    common = {"name": "tool_result", "session.id": SESSION, "cost_usd": 0.5}
    return as_protobuf(log_request([common | {"time_ns": START + n, "event.sequence": n} | told for n in sequences]))


def stored(handle: Handle) -> list[int]:
    return [int(line) for line in handle.query("SELECT event_sequence FROM telemetry.telemetry_events ORDER BY 1").split()]


@linux
def test_what_waits_is_settled_with_what_is_known_by_then(handle: Handle, journal: Journal):
    """As if it had come later: the context that was told meanwhile counts."""
    pipeline = Pipeline(handle)
    assert pipeline.store(STANDING, [request(1, 2), request(3)], journal=journal) == 3
    assert (stored(handle), sum(map(framing.rows_of, journal.blocks))) == ([], 3)
    told = as_protobuf(log_request([context(SESSION, START - 1, feature="001-a", project="book")]))
    pipeline.store(STANDING, [told], journal=journal)
    pipeline.settle(journal)
    assert (stored(handle), journal.bytes) == ([1, 2, 3], 0)
    assert handle.query("SELECT DISTINCT feature, project FROM telemetry.telemetry_events") == b"001-a\tbook\n"


@linux
def test_what_was_inserted_and_not_dropped_is_stored_once(handle: Handle, journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """Killed between the two."""
    pipeline = Pipeline(handle)
    pipeline.store(STANDING, [request(1, 2)], journal=journal)
    monkeypatch.setattr(journal, "drop", lambda segment: None)
    pipeline.settle(journal)
    again = Journal(journal.take()[0].path.parent)
    pipeline.settle(again)
    assert (again.bytes, handle.query("SELECT count(), uniqExact(event_sequence) FROM telemetry.telemetry_events FINAL")) == (0, b"2\t2\n")


@linux
def test_what_can_not_be_inserted_waits_on(handle: Handle, journal: Journal):
    pipeline = Pipeline(handle)
    pipeline.store(STANDING, [request(1)], journal=journal)
    handle.run("RENAME TABLE telemetry.telemetry_events TO telemetry.elsewhere")
    with pytest.raises(QueryFailed):
        pipeline.settle(journal)
    handle.run("RENAME TABLE telemetry.elsewhere TO telemetry.telemetry_events")
    pipeline.store(STANDING, [request(2)], journal=journal)
    pipeline.settle(journal)
    assert (stored(handle), journal.bytes) == ([1, 2], 0)


@linux
def test_rows_that_an_older_version_left_are_stored(handle: Handle, journal: Journal):
    """They lack the columns that came later."""
    pipeline = Pipeline(handle)
    pipeline.store(STANDING, [request(1)], journal=journal)
    block = handle.query(
        "SELECT toDateTime64(1790000000, 9, 'UTC') AS timestamp, toLowCardinality('tool_result') AS event_type,"
        f" toLowCardinality('{SESSION}') AS session_id, toNullable(toUInt64(9)) AS event_sequence, 0.25 AS cost_usd",
        "Native",
    )
    journal.append([block])
    pipeline.settle(journal)
    assert handle.query("SELECT event_sequence, cost_usd, model FROM telemetry.telemetry_events ORDER BY 1") == b"1\t0.5\t\n9\t0.25\t\n"


@linux
@pytest.mark.parametrize("level", ["strict", "standard", "full"])
def test_no_more_is_on_the_disk_than_the_level_keeps(handle: Handle, journal: Journal, level: str):
    """Names of files are cut when the event is attributed, so where any of them is kept, nothing waits."""
    policy = Policy(level)
    privacy.enforce(handle, policy)
    secrets = {"prompt": "zebra7prompt", "error": "zebra7error", "file_path": "/home/zebra7person/zebra7.md", "zebra7name": "zebra7value"}
    secrets["tool_input"] = json.dumps({"file_path": "/home/zebra7person/x"})
    Pipeline(handle).store(STANDING, [request(1, **secrets)], journal=journal)
    written = b"".join(segment.path.read_bytes() for segment in journal.take())
    assert (bool(written), b"zebra7" in written) == (level == "strict", False)
    assert stored(handle) == ([] if level == "strict" else [1])


@linux
def test_a_settling_that_takes_long_is_waited_for_by_questions_and_seen_by_upkeep(
    handle: Handle, journal: Journal, monkeypatch: pytest.MonkeyPatch
):
    """Contexts that came beside it, and its own rows, are looked for again when it is done: they were looked for in vain."""
    Pipeline(handle).store(STANDING, [request(1)], journal=journal)
    settle, go_on = Pipeline.settle, threading.Event()
    monkeypatch.setattr(Pipeline, "settle", lambda *given: go_on.wait(20) and settle(*given))

    async def run() -> None:
        taken = intake.Intake(handle.engine, Counters(), 64 << 20, journal)
        try:
            before = time.time()
            await taken.begin_settling(0.05)
            asking = asyncio.create_task(taken.settle())
            await taken.store("logs", "protobuf", as_protobuf(log_request([context(SESSION, START - 1, feature="001-a")])))
            after = time.time()
            assert taken.context_arrived.is_set() and taken.contexts_since.take() < after and taken.inserts_since.take() < after
            taken.context_arrived.clear()
            await asyncio.sleep(0.2)
            assert (asking.done(), stored(handle)) == (False, [])
            go_on.set()
            await asking
            assert (stored(handle), journal.bytes, taken.context_arrived.is_set()) == ([1], 0, True)
            assert before <= taken.contexts_since.take() <= after and before <= taken.inserts_since.take() <= after
        finally:
            go_on.set()
            await taken.close()

    asyncio.run(run())


# ---- in the server


def count(running: Server) -> int:
    return int(running.query("SELECT count() FROM telemetry.telemetry_events")[0][0])


@linux
def test_a_server_reads_what_it_acknowledged_and_settles_by_itself(tmp_path: Path):
    with server(tmp_path / "home") as running:
        folder = running.home.store / "journal"
        assert running.metrics()["sp_telemetry_journal_bytes"] == 0
        running.stored("logs", request(1))
        assert len(waiting(folder)) == 1
        assert running.metrics()["sp_telemetry_journal_bytes"] > 0  # its figures of the store are of a moment ago
        assert (count(running), waiting(folder)) == (1, [])
        running.stored("logs", request(2))
        running.stored("logs", request(3))
        assert wait_for(lambda: not waiting(folder), intake.SETTLE_AFTER_S + 10)
        running.stored("logs", request(4))
        os.kill(running.running.pid, signal.SIGKILL)
        assert len(waiting(folder)) == 1
        running.up()
        assert (count(running), waiting(folder)) == (4, [])
        assert running.metrics()["sp_telemetry_events_duplicate"] == 0
        running.stored("logs", request(5))
        running.down()
        assert waiting(folder) == []


@linux
def test_a_server_goes_on_over_a_damaged_journal_and_says_so(tmp_path: Path):
    with server(tmp_path / "home") as running:
        folder = running.home.store / "journal"
        for number in range(1, 6):
            running.stored("logs", request(number))
        os.kill(running.running.pid, signal.SIGKILL)
        [file] = folder.iterdir()
        damaged = bytearray(file.read_bytes())
        damaged[40] ^= 1
        file.write_bytes(damaged)
        running.up()
        assert running.query("SELECT event_sequence FROM telemetry.telemetry_events ORDER BY 1") == [[2], [3], [4], [5]]
        assert [(kept.name, kept.read_bytes()) for kept in folder.iterdir()] == [(file.name + ".damaged", damaged)]
        status, state = running.get("health", "/")
        assert (status, file.name + ".damaged" in json.loads(state)["notice"]) == (200, True)
        told = running.command("status")
        assert (told.returncode, "notice    Acknowledged events may be missing" in told.stdout) == (0, True)
        findings = json.loads(running.command("doctor", "--json").stdout)["findings"]
        [mend] = [finding["mend"] for finding in findings if finding["code"] == "journal-damaged"]
        assert mend.endswith(f"rm {folder}/{file.name}.damaged")
        assert (running.home.logs / "server.log").read_text().count("The journal is damaged") == 1
        told = running.command("privacy", "apply", "--to-stored", "--yes")
        assert told.returncode == 0 and re.search(r"damaged files +1\n", told.stdout), told
        assert list(folder.iterdir()) == [], "under a policy that may have kept more"
        assert "notice" not in running.command("status").stdout
        assert "journal-damaged" not in running.command("doctor", "--json").stdout


@linux
def test_a_journal_that_somebody_removes_is_begun_anew(tmp_path: Path):
    with server(tmp_path / "home") as running:
        running.stored("logs", request(1))
        assert count(running) == 1
        shutil.rmtree(running.home.store / "journal")
        running.stored("logs", request(2))
        os.kill(running.running.pid, signal.SIGKILL)
        running.up()
        assert count(running) == 2


@linux
def test_a_start_does_not_wait_for_events_of_hundreds_of_weeks(tmp_path: Path):
    """Each week is a part of the table. What comes meanwhile is taken, and who asks sees all."""
    weeks, week = 200, 7 * 86400 * 10**9
    with server(tmp_path / "home") as running:
        common = {"name": "api_request", "session.id": SESSION}
        events = [common | {"event.sequence": n, "time_ns": START - n * week} for n in range(weeks)]
        running.stored("logs", as_protobuf(log_request(events)))
        os.kill(running.running.pid, signal.SIGKILL)
        begun = time.monotonic()
        running.up()
        started = time.monotonic() - begun
        assert waiting(running.home.store / "journal"), f"settled in {started:.1f} s, before the start was over"
        assert running.get("health", "/")[0] == 200
        running.stored("logs", as_protobuf(log_request([common | {"event.sequence": weeks, "time_ns": START + 1}])))
        running.stored("logs", as_protobuf(log_request([context(SESSION, START - weeks * week, feature="001-a")])))
        assert count(running) == weeks + 1
        assert running.metrics()["sp_telemetry_events_duplicate"] == 0
        unattributed = "SELECT count() FROM telemetry.telemetry_events FINAL WHERE feature != '001-a'"
        assert wait_for(lambda: running.query(unattributed) == [[0]], 60, 1)
        running.restart()  # summaries are brought up to date when it ends
        assert running.query("SELECT sum(requests) FROM telemetry.session_summaries FINAL") == [[weeks + 1]]
