"""What the first events would wait for is made before they come, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.intake import Intake
from sp_telemetry.store import warming
from sp_telemetry.store.engine import Handle
from sp_telemetry.store.journal import Journal
from tests.server import Server, as_json, as_protobuf, log_request

linux = pytest.mark.skipif(sys.platform != "linux", reason="standing queries are fed through /proc")
SESSION = "00000000-0000-0000-0000-00000000c0c0"
STANDING = "SELECT count() FROM system.processes WHERE query LIKE '%/proc/self/fd/%' AND query NOT LIKE '%system.processes%'"
TABLES = "SELECT sum(total_rows) FROM system.tables WHERE database = 'telemetry' AND name IN ('telemetry_events', 'session_context')"


def event(number: int) -> dict:
    return log_request([{"name": "api_request", "time_ns": 1_790_000_000 * 10**9, "session.id": SESSION, "event.sequence": number}])


@linux
def test_a_warm_pipeline_stands_ready_and_nothing_was_stored(tmp_path: Path, handle: Handle) -> None:
    async def run() -> None:
        counters, journal = Counters(), Journal(tmp_path / "journal")
        intake = Intake(handle.engine, counters, 64 << 20, journal)
        try:
            intake.begin_warming()
            await intake.settle_all()
            assert (handle.query(STANDING), handle.query(TABLES), journal.bytes, intake.trouble) == (b"1\n", b"0\n", 0, None)
            assert (counters.stored, dict(counters.records)) == (0, dict(Counters().records))
            await intake.store("logs", "protobuf", as_protobuf(event(1)))
            assert (handle.query(STANDING), counters.records["logs"]) == (b"1\n", 1)  # by the one that stood there
        finally:
            await intake.close()

    asyncio.run(run())
    assert handle.query("SELECT event_sequence FROM telemetry.telemetry_events") == b"1\n"


@linux
def test_what_comes_while_it_warms_is_stored_beside_it(tmp_path: Path, handle: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Much of it too, for which there are two pipelines later: what waits for the second is stored when it is there, or by the first."""
    warm = warming.warm
    monkeypatch.setattr(warming, "warm", lambda *given: time.sleep(1) or warm(*given))

    async def run() -> None:
        intake = Intake(handle.engine, Counters(), 64 << 20, Journal(tmp_path / "journal"))
        try:
            intake.begin_warming()
            bodies = [("json", as_json(event(0)) + b" " * (3 << 20)), *(("protobuf", as_protobuf(event(number))) for number in range(1, 6))]
            await asyncio.wait_for(asyncio.gather(*(intake.store("logs", *each) for each in bodies)), 20)
            assert handle.query(STANDING) == b"1\n"  # of the pipeline that took them: the other one is not ready
            await intake.settle_all()
            assert handle.query(STANDING) == b"2\n"
        finally:
            await intake.close()

    asyncio.run(run())
    assert handle.query("SELECT event_sequence FROM telemetry.telemetry_events ORDER BY 1").split() == [b"%d" % n for n in range(6)]


@pytest.mark.parametrize("error", [QueryFailed("no"), OSError(28, "No space left on device")])
def test_what_can_not_be_warmed_serves_all_the_same(
    tmp_path: Path, handle: Handle, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*given: object) -> None:
        raise error

    monkeypatch.setattr(warming, "warm", fails)

    async def run() -> None:
        intake = Intake(handle.engine, Counters(), 64 << 20, Journal(tmp_path / "journal"))
        try:
            intake.begin_warming()
            await asyncio.gather(*(intake.store("logs", "protobuf", as_protobuf(event(number))) for number in range(3)))
            assert intake.trouble is None
        finally:
            await intake.close()

    asyncio.run(run())
    assert handle.query("SELECT count() FROM telemetry.telemetry_events") == b"3\n"


@linux
def test_a_server_warms_itself(tmp_path: Path) -> None:
    server = Server(tmp_path).up()
    try:
        log, late = server.home.logs / "server.log", time.monotonic() + 30
        while "ready for the first events" not in log.read_text() and time.monotonic() < late:
            time.sleep(0.1)
        assert "INFO ready for the first events, after " in log.read_text()
        assert server.query(TABLES) == [[0]]
    finally:
        server.down()
