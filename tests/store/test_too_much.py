"""Requests that are small and take much memory to store: an insert has a limit, and who meets it alone is told not to come again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve import trouble
from sp_telemetry.serve.commit import TOO_MUCH, Rejected
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.intake import Intake, memory_for
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.framing import varint
from sp_telemetry.store.journal import Journal
from tests.server import as_json, as_protobuf, log_request

SESSION = "00000000-0000-0000-0000-00000000b0b0"
START = 1_790_000_000 * 10**9
LIMIT = 200 << 20
RECORDS = 300_000  # which take twice that


def of_nothing(records: int) -> bytes:
    """A request of so many log records with nothing in them, two bytes each."""
    scope = b"\x12\x00" * records
    of_scope = b"\x12" + varint(len(scope)) + scope
    return b"\x0a" + varint(len(of_scope)) + of_scope


def of_nothing_as_json(records: int) -> bytes:
    return b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"{}," * (records - 1) + b"{}]}]}]}"


def good(number: int) -> dict[str, Any]:
    return log_request([{"name": "api_request", "time_ns": START, "session.id": SESSION, "event.sequence": number, "cost_usd": 0.5}])


def taken(engine: Engine, folder: Path, encoding: str, bodies: list[bytes]) -> tuple[list[Any], Counters, Any]:
    """What each of `bodies` is answered, all sent at once, and what the intake says of itself then."""

    async def run() -> tuple[list[Any], Counters, Any]:
        counters = Counters()
        intake = Intake(engine, counters, 64 << 20, Journal(folder / "journal"), LIMIT)
        try:
            answers = await asyncio.gather(*(intake.store("logs", encoding, body) for body in bodies), return_exceptions=True)
            await intake.settle()
            return answers, counters, intake.trouble
        finally:
            await intake.close()

    return asyncio.run(run())


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_what_takes_too_much_alone_is_rejected_alone(tmp_path: Path, handle: Handle, encoding: str) -> None:
    """It costs its companions nothing, and is no trouble of the store's."""
    encode, much = (as_protobuf, of_nothing) if encoding == "protobuf" else (as_json, of_nothing_as_json)
    bodies = [encode(good(number)) for number in range(6)]
    bodies[3:3] = [much(RECORDS)]
    answers, counters, found = taken(handle.engine, tmp_path, encoding, bodies)
    assert [type(answer) for answer in answers] == [type(None)] * 3 + [Rejected] + [type(None)] * 3
    assert str(answers[3]) == TOO_MUCH
    assert (counters.rejected, counters.refused, found) == (1, 0, None)
    assert handle.query("SELECT event_sequence FROM telemetry.telemetry_events ORDER BY 1").split() == [b"%d" % n for n in range(6)]


def test_what_takes_too_much_together_is_stored_apart(tmp_path: Path, handle: Handle) -> None:
    answers, counters, _ = taken(handle.engine, tmp_path, "protobuf", [of_nothing(RECORDS // 4) for _ in range(4)])
    assert (answers, counters.rejected, counters.records["logs"]) == ([None] * 4, 0, RECORDS)


def test_memory_that_the_machine_lacks_is_not_the_requests_fault() -> None:
    text = "Code: 241. DB::Exception: {} memory limit exceeded: would use 1.02 GiB (attempt to allocate chunk of 4 MiB), maximum: 1.00 GiB"
    assert trouble.is_too_much(QueryFailed(text.format("Query"), code=241))
    for of in ("(total)", "User"):
        assert not trouble.is_too_much(QueryFailed(text.format(of), code=241))
    assert not trouble.is_too_much(QueryFailed("Code: 173. DB::Exception: Cannot allocate memory: Query memory limit exceeded", code=173))


def test_the_limit_grows_with_what_is_accepted() -> None:
    assert memory_for(1 << 20) == memory_for(32 << 20) == 1 << 30
    assert memory_for(64 << 20) == 2 << 30
