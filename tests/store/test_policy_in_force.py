"""Which policy is put in force, and that the record of it holds."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import Home
from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.intake import Intake
from sp_telemetry.serve.policy import REQUEST, PolicyKeeper
from sp_telemetry.store import privacy, schema, standing_query
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.journal import Journal
from tests.server import as_protobuf, log_request
from tests.store.policies import OWN, START, Breaking, Door, choose, functions, kept, often, until, watched

__all__ = ["often"]  # a fixture


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

        def enforced_meanwhile(handle: Handle, policy: Policy) -> bool:
            threading.Timer(0.3, go_on.set).start()
            return enforce(handle, policy)

        monkeypatch.setattr(privacy, "enforce", enforced_meanwhile)
        await asyncio.wrap_future(take(1))
        late.append(take(2))
        assert await asyncio.to_thread(under_way.wait, 10)
        keeper = PolicyKeeper(handle.engine, Home(tmp_path), intake, Policy())
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


def test_a_change_that_fails_at_any_point_can_be_taken_back(handle: Handle) -> None:
    """The record is never believed over functions that are half another policy's."""
    strict, full = Policy("strict"), Policy("full")
    privacy.enforce(handle, strict)
    wanted = functions(handle)
    for at in itertools.count():
        try:
            privacy.enforce(Breaking(handle, at), full)
        except QueryFailed:
            told = privacy.in_force(handle)
            assert told.checksum == (privacy.checksum(strict) if not at else privacy.UNDER_WAY + privacy.checksum(full)), at
            assert at or functions(handle) == wanted, "nothing has changed where it can't be said before"
        else:
            break
        assert privacy.enforce(handle, strict) == (at > 0)
        assert functions(handle) == wanted, at
        assert privacy.in_force(handle).checksum == privacy.checksum(strict)
    assert at > 15 and b"zebra" in kept(handle)


def test_a_change_that_is_tried_again_is_recorded_once(handle: Handle) -> None:
    privacy.enforce(handle, Policy("strict"))
    for _ in range(3):
        with pytest.raises(QueryFailed):
            privacy.enforce(Breaking(handle, 3), Policy("full"))
    privacy.enforce(handle, Policy("full"))
    told = handle.query("SELECT what, level FROM telemetry.privacy_history ORDER BY since").decode().split()
    assert told == ["under", "way", "strict", "in", "force", "strict", "under", "way", "full", "in", "force", "full"]


def test_the_last_change_holds_though_the_clock_was_ahead_before(handle: Handle) -> None:
    strict, full = Policy("strict"), Policy("full")
    privacy.enforce(handle, strict)
    ahead = "SELECT * REPLACE (since + toIntervalDay(1) AS since) FROM telemetry.privacy_history WHERE what = 'in force'"
    handle.run(f"INSERT INTO telemetry.privacy_history {ahead}")
    for policy in (full, strict):
        assert privacy.enforce(handle, policy)
        assert privacy.in_force(handle).checksum == privacy.checksum(policy)
        assert (b"zebra" in kept(handle)) == (policy is full)
    privacy.remember(handle, "counted", strict)
    assert handle.query("SELECT what FROM telemetry.privacy_history ORDER BY since DESC LIMIT 1") == b"counted\n"


def test_functions_that_are_not_those_of_the_record_are_made_anew(handle: Handle) -> None:
    """They lie in other files: a store that an older version left apart heals, and so does one restored from a backup."""
    strict = Policy("strict")
    privacy.enforce(handle, Policy("full"))
    privacy.remember(handle, "in force", strict)
    assert b"zebra" in kept(handle)
    assert privacy.enforce(handle, strict) and not privacy.enforce(handle, strict)
    assert b"zebra" not in kept(handle)


def test_functions_whose_files_were_cut_short_are_made_anew_at_the_next_start(tmp_path: Path) -> None:
    """The engine does that on a full disk, without an error."""
    strict, store = Policy("strict"), tmp_path / "store"

    def started() -> bool:
        engine = Engine(store)
        try:
            with engine.handle() as opened:
                schema.migrate(opened, privacy=sql.render(strict))
                changed = privacy.enforce(opened, strict)
                assert kept(opened)
                return changed
        finally:
            engine.close()

    assert started() and not started()
    for name, size in (("redact", 0), ("words", 4096)):
        os.truncate(store / "user_defined" / f"function_telemetry_{name}.sql", size)
    assert started() and not started()


@pytest.mark.usefixtures("often")
def test_a_file_that_can_be_read_again_is_followed_though_its_times_are_the_same(
    handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without free file descriptors, say."""
    privacy.enforce(handle, Policy("full"))
    choose(tmp_path, "full")
    read, without = Path.read_bytes, True

    def few(self: Path) -> bytes:
        if without and self.name == "privacy.toml":
            raise OSError(24, os.strerror(24), str(self))
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", few)

    async def steps(keeper: PolicyKeeper, _: Door) -> None:
        nonlocal without
        (tmp_path / "privacy.toml").write_text(OWN)
        await asyncio.sleep(0.3)
        without = False
        await until(lambda: privacy.in_force(handle).own_patterns == 1)

    watched(handle.engine, tmp_path, steps, Policy("full"))


@pytest.mark.usefixtures("often")
def test_a_file_changed_while_the_server_started_is_followed(handle: Handle, tmp_path: Path) -> None:
    privacy.enforce(handle, Policy("full"))

    async def steps(*_: Any) -> None:
        await until(lambda: b"zebra" not in kept(handle))

    (tmp_path / "config.toml").write_text('privacy_level = "strict"\n')  # after the start has read it, before the keeper is made
    watched(handle.engine, tmp_path, steps, Policy("full"))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("asked", ["count", "tighten", "tighten, by a wrong file"])
def test_a_request_that_cant_be_removed_is_answered_once_and_ends_nothing(
    handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    unlink, refused = Path.unlink, []

    def kept_there(self: Path, missing_ok: bool = False) -> None:
        if self.name == REQUEST and len(refused) < 5:
            refused.append(self)
            raise PermissionError(13, os.strerror(13), str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", kept_there)
    wrong = "wrong" in asked
    (tmp_path / "privacy.toml").write_text("wrong = 1\n" if wrong else "")
    (tmp_path / REQUEST).write_text(asked)

    async def steps(*_: Any) -> None:
        await until(lambda: not (tmp_path / REQUEST).exists())
        (tmp_path / "privacy.toml").write_text("")
        (tmp_path / "config.toml").write_text('privacy_level = "full"\n')
        await until(lambda: b"zebra" in kept(handle))

    watched(handle.engine, tmp_path, steps)
    answers = handle.query("SELECT count() FROM telemetry.privacy_history WHERE what IN ('counted', 'tightened')")
    assert int(answers) == (0 if wrong else 1)
    assert caplog.text.count("can't be removed: Permission denied.") == 1
