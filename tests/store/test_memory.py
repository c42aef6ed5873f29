"""Giving memory back takes none that is needed."""

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
