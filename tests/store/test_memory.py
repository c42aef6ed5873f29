"""Memory is given back where it is not needed, and not taken by threads that nobody needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sp_telemetry.store import memory
from sp_telemetry.store.engine import Engine


def resident_kb() -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_what_a_start_needed_is_given_back(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "store")
    with engine.handle() as handle:
        count = "SELECT count(), sum(cityHash64(number)) FROM numbers(100000)"
        before, answer = resident_kb(), handle.query(count)
        memory.release(handle)
        assert resident_kb() < before - 50_000
        assert handle.query(count) == answer
    engine.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_parts_that_were_replaced_leave_no_threads(tmp_path: Path) -> None:
    """A day's inserts leave hundreds of parts, which go when they were merged."""
    engine = Engine(tmp_path / "store", tmp_path / "engine")
    with engine.handle() as handle:
        handle.run("CREATE TABLE numbered (number UInt64) ENGINE = MergeTree PARTITION BY number ORDER BY number")
        handle.run("INSERT INTO numbered SELECT number FROM numbers(150)")  # as many parts
        before = len(list(Path("/proc/self/task").iterdir()))
        handle.run("TRUNCATE TABLE numbered")
        assert handle.query("SELECT count() FROM system.parts WHERE table = 'numbered'") == b"0\n"
        assert len(list(Path("/proc/self/task").iterdir())) < before + 10
    engine.close()
