"""The store follows the installation's policy while requests come in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import pytest

from sp_telemetry.home import Home
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.intake import Intake
from sp_telemetry.serve.policy import REQUEST, PolicyKeeper
from sp_telemetry.store import privacy, standing_query
from sp_telemetry.store.engine import Handle
from sp_telemetry.store.journal import Journal
from tests.server import as_protobuf, log_request

START = 1_790_000_000 * 10**9
OWN = "[patterns.ticket]\nregex = 'zebra[0-9]+'\nlike = ['zebra7']\nunlike = ['zebra']\n"


@pytest.mark.skipif(not standing_query.AVAILABLE, reason="events wait for others where a standing query types them: on Linux")
def test_what_is_taken_in_while_the_policy_changes_comes_down_too(handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed under the policy before it, and in the journal or on its way there when the new one is put in force."""
    under_way, go_on = threading.Event(), threading.Event()
    enforce = privacy.enforce

    class Slow(Journal):
        def append(self, blocks: Sequence[bytes]) -> None:
            if late:
                under_way.set()
                go_on.wait(10)
            super().append(blocks)

    late: list[Future[None]] = []
    (tmp_path / "store" / "journal").mkdir()
    damaged = tmp_path / "store" / "journal" / "00000001.rows.damaged"
    damaged.write_bytes(b"zebra7")

    async def run() -> None:
        intake = Intake(handle.engine, Counters(), 64 << 20, Slow(tmp_path / "journal"))
        loop = asyncio.get_running_loop()

        def take(number: int) -> Future[None]:
            event = {"name": "api_request", "time_ns": START, "session.id": "a", "event.sequence": number, "model": "zebra7"}
            return asyncio.run_coroutine_threadsafe(intake.store("logs", "protobuf", as_protobuf(log_request([event]))), loop)

        def enforced_late(handle: Handle, policy: Policy) -> bool:
            take(1).result(10)  # the keeper has settled before this
            late.append(take(2))
            assert under_way.wait(10)
            threading.Timer(0.3, go_on.set).start()
            return enforce(handle, policy)

        monkeypatch.setattr(privacy, "enforce", enforced_late)
        keeper = PolicyKeeper(handle.engine, Home(tmp_path), intake.settle_all)
        (tmp_path / "privacy.toml").write_text(OWN)
        (tmp_path / REQUEST).write_text("tighten")
        await keeper.start()
        try:
            async with asyncio.timeout(60):
                while (tmp_path / REQUEST).exists():
                    await asyncio.sleep(0.05)
                await asyncio.wrap_future(late[0])
        finally:
            await keeper.close()
            await intake.close()

    asyncio.run(run())
    told = handle.query("SELECT event_sequence, model FROM telemetry.telemetry_events FINAL ORDER BY 1")
    assert told == b"1\t<ticket>\n2\t<ticket>\n"
    assert not damaged.exists()
