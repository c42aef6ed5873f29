"""What is told and held back while a changed policy is not in force yet."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.cli import privacy as asking
from sp_telemetry.errors import QueryFailed, ServerUnreachable
from sp_telemetry.home import Home
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve.commit import Unavailable
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.intake import Intake
from sp_telemetry.serve.policy import REQUEST, PolicyKeeper
from sp_telemetry.serve.upkeep import Upkeep
from sp_telemetry.store import privacy, tightening
from sp_telemetry.store.engine import Handle
from sp_telemetry.store.journal import Journal
from tests.server import as_protobuf, log_request
from tests.store.policies import OWN, START, Breaking, Door, Refusing, choose, kept, often, until, watched

__all__ = ["often"]  # a fixture
STRICTER = "a stricter privacy policy is not in force yet, and events are refused until it is"
CHANGED = "a changed privacy policy is not in force yet"


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

    async def steps(keeper: PolicyKeeper, door: Door) -> None:
        await until(lambda: tries == ["full"])
        (tmp_path / "config.toml").write_text('privacy_level = "strict"\n')
        await until(lambda: keeper.waiting)
        assert str(keeper.waiting) == f"The disk of the store is full, so {STRICTER}."
        assert "goes on by itself" in keeper.waiting.mend and door.held == keeper.waiting
        await until(lambda: not keeper.waiting)
        assert not door.held
        await asyncio.sleep(0.2)

    with caplog.at_level(logging.INFO):
        watched(handle.engine, tmp_path, steps)
    assert tries == ["full", *["strict"] * 4]
    assert privacy.in_force(handle).level == "strict" and b"zebra" not in kept(handle)
    assert caplog.text.count("not in force yet") == 1 and "DB::Exception" not in caplog.text


@pytest.mark.usefixtures("often")
def test_nothing_is_taken_in_under_a_looser_policy_than_was_asked_for(
    handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the moment that the change is seen: what the intake answers, and what the store has."""
    privacy.enforce(handle, Policy("full"))
    choose(tmp_path, "full")
    refusing = Refusing(monkeypatch)

    async def run() -> None:
        counters = Counters()
        intake = Intake(handle.engine, counters, 64 << 20, Journal(tmp_path / "journal"))
        keeper = PolicyKeeper(handle.engine, Home(tmp_path), intake, Policy("full"))
        await keeper.start()

        async def take(number: int) -> None:
            told = {"session.id": "a", "event.sequence": number, "prompt": "zebra words", "prompt_length": 11}
            body = as_protobuf(log_request([{"name": "user_prompt", "time_ns": START, **told}]))
            await intake.store("logs", "protobuf", body)

        try:
            async with asyncio.timeout(60):
                await until(lambda: refusing.tried)
                await take(1)
                refusing.full = True
                strict = choose(tmp_path, "strict")
                await until(lambda: intake.held)
                for number in (2, 3):
                    with pytest.raises(Unavailable, match="privacy policy is"):
                        await take(number)
                    await refusing.again(strict)
                assert counters.refused == 2
                refusing.full = False
                await until(lambda: not intake.held)
                await take(4)
        finally:
            await keeper.close()
            await intake.close()

    asyncio.run(run())
    told = handle.query("SELECT event_sequence, attributes['prompt'] LIKE '%zebra%' FROM telemetry.telemetry_events FINAL ORDER BY 1")
    assert told == b"1\t1\n4\t0\n"


@pytest.mark.usefixtures("often")
def test_events_are_refused_for_a_change_that_may_keep_less_and_for_no_other(
    handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that failed half-way counts too: some functions are its own then."""
    privacy.enforce(handle, Policy("standard"))
    choose(tmp_path, "standard")
    refusing = Refusing(monkeypatch)

    async def steps(keeper: PolicyKeeper, door: Door) -> None:
        async def held(level: str, rules: str = "") -> bool:
            await refusing.again(choose(tmp_path, level, rules))
            return bool(door.held)

        assert not await held("standard")
        refusing.full = True
        assert await held("strict")
        assert not await held("full"), "stored is at most what is asked for"
        await until(lambda: str(keeper.waiting) == f"The disk of the store is full, so {CHANGED}.")
        assert await held("standard"), "some functions may be those of full"
        refusing.full = False
        await until(lambda: not door.held and not keeper.waiting)
        assert privacy.in_force(handle).checksum == privacy.checksum(Policy("standard"))

        refusing.full = True
        assert await held("standard", OWN)
        assert await held("standard", OWN + "\n[attributes]\nerror = 'drop'\n")
        assert await held("full", OWN), "other rules can't be compared"
        refusing.full = False
        await until(lambda: not door.held and not keeper.waiting)
        refusing.full = True
        assert not await held("full", OWN)
        assert await held("full")
        await until(lambda: str(keeper.waiting) == str(door.held) == f"The disk of the store is full, so {STRICTER}.")

    watched(handle.engine, tmp_path, steps, Policy("standard"))


@pytest.mark.usefixtures("often")
def test_where_nothing_was_changed_no_policy_waits(handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look after a start may come when there are no file descriptors, say. What is wrong then others say."""
    privacy.enforce(handle, Policy())
    read, tries = Path.read_bytes, []

    def few(self: Path) -> bytes:
        if self.name == "privacy.toml":
            raise OSError(24, os.strerror(24), str(self))
        return read(self)

    def failing(*_: object) -> bool:
        tries.append(1)
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(Path, "read_bytes", few)
    monkeypatch.setattr(privacy, "enforce", failing)

    async def steps(keeper: PolicyKeeper, door: Door) -> None:
        await until(lambda: len(tries) > 2)
        monkeypatch.setattr(Path, "read_bytes", read)
        seen = len(tries)
        await until(lambda: len(tries) > seen + 2)
        assert not keeper.waiting and not door.held

    watched(handle.engine, tmp_path, steps)


@pytest.mark.usefixtures("often")
def test_a_change_is_known_while_stored_rows_are_brought_down(handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That takes minutes. Events are refused until it is done and the change is in force."""
    privacy.enforce(handle, Policy("full"))
    choose(tmp_path, "full")
    begun, go_on = threading.Event(), threading.Event()

    def slowly(of: Handle, policy: Policy) -> dict[str, int]:
        begun.set()
        go_on.wait(20)
        return {}

    monkeypatch.setattr(tightening, "tighten", slowly)
    (tmp_path / REQUEST).write_text("tighten")

    async def steps(_: PolicyKeeper, door: Door) -> None:
        await until(begun.is_set)
        assert not door.held
        choose(tmp_path, "strict")
        await until(lambda: door.held)
        assert str(door.held) == "A stricter privacy policy is being put in force."
        choose(tmp_path, "full")
        await until(lambda: not door.held)
        choose(tmp_path, "strict")
        await until(lambda: door.held)
        go_on.set()
        await until(lambda: not door.held)
        assert b"zebra" not in kept(handle)

    try:
        watched(handle.engine, tmp_path, steps, Policy("full"))
    finally:
        go_on.set()


@pytest.mark.usefixtures("often")
def test_nothing_is_written_anew_while_stored_rows_come_down(handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attribution would put what it had read before over a row that was brought down. Not either while the server ends."""
    begun, go_on = threading.Event(), threading.Event()
    ended: list[bool] = []

    def slowly(of: Handle, policy: Policy) -> dict[str, int]:
        begun.set()
        ended.append(go_on.wait(20))
        return {}

    monkeypatch.setattr(tightening, "tighten", slowly)
    (tmp_path / REQUEST).write_text("tighten")

    async def run() -> None:
        intake = Intake(handle.engine, Counters(), 1 << 20, Journal(tmp_path / "journal"))
        upkeep = Upkeep(handle.engine, intake)
        keeper = PolicyKeeper(handle.engine, Home(tmp_path), intake, Policy(), upkeep.working)
        await keeper.start()
        await until(begun.is_set)
        flushing, closing = asyncio.create_task(upkeep.flush()), asyncio.create_task(keeper.close())
        await asyncio.sleep(0.3)
        assert not flushing.done() and not closing.done()
        go_on.set()
        async with asyncio.timeout(20):
            await asyncio.gather(flushing, closing)
        assert ended == [True]
        await upkeep.close()
        await intake.close()

    try:
        asyncio.run(run())
    finally:
        go_on.set()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("error", "why"),
    [
        (QueryFailed("Code: 243. DB::Exception: Cannot reserve 1.00 MiB.", code=243), "The disk of the store is full. Make room"),
        (QueryFailed("Replaced parts are still on the disk."), "Replaced parts are still on the disk."),
    ],
)
def test_why_stored_rows_are_not_brought_down_yet_is_told_until_they_are(
    handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: QueryFailed, why: str
) -> None:
    """Nothing else would tell: the server takes events and answers."""
    full = threading.Event()
    full.set()

    def tighten(of: Handle, policy: Policy) -> dict[str, int]:
        if full.is_set():
            raise error
        return {}

    monkeypatch.setattr(tightening, "tighten", tighten)
    (tmp_path / REQUEST).write_text("tighten")

    async def steps(keeper: PolicyKeeper, door: Door) -> None:
        await until(lambda: keeper.unanswered)
        assert keeper.unanswered.startswith(f"Stored rows are not brought down to the privacy policy yet. {why}")
        assert "DB::Exception" not in keeper.unanswered and not door.held
        full.clear()
        await until(lambda: not (tmp_path / REQUEST).exists())
        assert keeper.unanswered == ""

    watched(handle.engine, tmp_path, steps)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(("file", "wrong"), [("privacy.toml", b"wrong = 1\n"), ("config.toml", b"\xff")])
def test_a_file_that_cant_be_followed_changes_nothing_of_what_was_asked_for_before(
    handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, wrong: bytes
) -> None:
    """It may come while that is not in force yet. Then nobody would try again."""
    privacy.enforce(handle, Policy("full"))
    choose(tmp_path, "full")
    refusing = Refusing(monkeypatch)

    async def steps(keeper: PolicyKeeper, door: Door) -> None:
        await until(lambda: refusing.tried)
        refusing.full = True
        choose(tmp_path, "strict")
        await until(lambda: keeper.waiting)
        (tmp_path / file).write_bytes(wrong)
        await refusing.again(Policy("strict"))
        assert door.held
        refusing.full = False
        await until(lambda: not door.held)
        assert privacy.in_force(handle).checksum == privacy.checksum(Policy("strict")) and not keeper.waiting
        await asyncio.sleep(0.2)

    watched(handle.engine, tmp_path, steps, Policy("full"))
    assert refusing.tried[-1] == Policy("strict")


@pytest.mark.usefixtures("often")
def test_memory_that_ran_out_makes_no_pattern_a_bad_one(handle: Handle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad one is given up, and the policy before stays."""
    privacy.enforce(handle, Policy("full"))
    query, tries = Handle.query, []

    def without_memory(self: Handle, sql: str, *more: Any) -> bytes:
        if "zebra" in sql and sql.startswith("SELECT match(") and len(tries) < 3:
            tries.append(sql)
            raise QueryFailed("Code: 241. DB::Exception: (total) memory limit exceeded.", code=241)
        return query(self, sql, *more)

    monkeypatch.setattr(Handle, "query", without_memory)
    choose(tmp_path, "full", OWN)

    async def steps(keeper: PolicyKeeper, door: Door) -> None:
        await until(lambda: keeper.waiting)
        assert door.held and str(keeper.waiting).startswith("The server is out of memory, so ")
        await until(lambda: not keeper.waiting)
        assert privacy.in_force(handle).own_patterns == 1 and not door.held

    watched(handle.engine, tmp_path, steps, Policy("full"))


@pytest.mark.parametrize("check", [True, False])
def test_what_a_killed_server_left_undone_is_not_taken_back_by_asking_again(tmp_path: Path, check: bool) -> None:
    """Where its rows were changed and the old parts not off the disk yet, a count finds nothing, and nobody would go on."""
    home = Home(tmp_path / "home").make()
    (home.path / REQUEST).write_text("tighten\n")
    with pytest.raises(ServerUnreachable, match="it goes on at its next start"):
        asking._to_stored(home, Policy("strict"), Namespace(check=check, yes=True))
    assert (home.path / REQUEST).read_text() == "tighten\n"
