"""The store follows the installation's policy while requests come in."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import Home
from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve import policy as keeping
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.intake import Intake
from sp_telemetry.serve.policy import REQUEST, PolicyKeeper
from sp_telemetry.store import privacy, schema, standing_query
from sp_telemetry.store.engine import Engine, Handle
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


class Breaking:
    """A handle with which one statement fails: the `at`th of those that change anything."""

    def __init__(self, handle: Handle, at: int) -> None:
        self._handle, self._left = handle, at

    def query(self, sql: str, *more: Any) -> bytes:
        if sql.startswith(("INSERT", "CREATE")):
            if not self._left:
                raise QueryFailed("Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space.", code=243)
            self._left -= 1
        return self._handle.query(sql, *more)


def functions(handle: Handle) -> bytes:
    return handle.query("SELECT name, create_query FROM system.functions WHERE origin = 'SQLUserDefined' ORDER BY name")


def kept(handle: Handle) -> bytes:
    """What the views would keep of a prompt now."""
    return handle.query("SELECT telemetry_words('salt', map('prompt', 'zebra words'))['prompt']")


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


def watched(engine: Engine, home: Path, steps: Callable[[PolicyKeeper], Any]) -> None:
    """Run a keeper while `steps`, a coroutine function, goes on."""

    async def settle() -> bool:
        return True

    async def run() -> None:
        keeper = PolicyKeeper(engine, Home(home), settle)
        await keeper.start()
        try:
            async with asyncio.timeout(30):
                await steps(keeper)
        finally:
            await keeper.close()

    asyncio.run(run())


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LOOK_EVERY_S", 0.05)


@pytest.mark.usefixtures("often")
def test_a_change_that_fails_is_tried_again_and_told_until_it_is_done(
    handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    enforce, tries = privacy.enforce, []

    def failing(of: Handle, policy: Policy) -> bool:
        tries.append(policy.level)
        return enforce(Breaking(of, 4) if tries.count("strict") < 4 and policy.level == "strict" else of, policy)

    monkeypatch.setattr(privacy, "enforce", failing)
    (tmp_path / "config.toml").write_text('privacy_level = "full"\n')

    async def steps(keeper: PolicyKeeper) -> None:
        await until(lambda: tries == ["full"])
        (tmp_path / "config.toml").write_text('privacy_level = "strict"\n')
        await until(lambda: keeper.waiting)
        assert str(keeper.waiting) == "The disk of the store is full, so a changed privacy policy is not in force yet."
        assert "goes on by itself" in keeper.waiting.mend
        await until(lambda: not keeper.waiting)
        await asyncio.sleep(0.2)

    with caplog.at_level(logging.INFO):
        watched(handle.engine, tmp_path, steps)
    assert tries == ["full", *["strict"] * 4]
    assert privacy.in_force(handle).level == "strict" and b"zebra" not in kept(handle)
    assert caplog.text.count("not in force yet") == 1 and "DB::Exception" not in caplog.text


@pytest.mark.usefixtures("often")
def test_a_file_changed_while_the_server_started_is_followed(handle: Handle, tmp_path: Path) -> None:
    privacy.enforce(handle, Policy("full"))

    async def steps(keeper: PolicyKeeper) -> None:
        await until(lambda: b"zebra" not in kept(handle))

    (tmp_path / "config.toml").write_text('privacy_level = "strict"\n')  # after the start has read it, before the keeper is made
    watched(handle.engine, tmp_path, steps)


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

    async def steps(keeper: PolicyKeeper) -> None:
        await until(lambda: not (tmp_path / REQUEST).exists())
        (tmp_path / "privacy.toml").write_text("")
        (tmp_path / "config.toml").write_text('privacy_level = "full"\n')
        await until(lambda: b"zebra" in kept(handle))

    watched(handle.engine, tmp_path, steps)
    answers = handle.query("SELECT count() FROM telemetry.privacy_history WHERE what IN ('counted', 'tightened')")
    assert int(answers) == (0 if wrong else 1)
    assert caplog.text.count("can't be removed: Permission denied.") == 1
