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
from sp_telemetry.privacy import own, sql
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve import policy as keeping
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.intake import Intake, Unavailable
from sp_telemetry.serve.policy import REQUEST, PolicyKeeper
from sp_telemetry.serve.trouble import Trouble
from sp_telemetry.store import privacy, schema, standing_query
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.journal import Journal
from tests.server import as_protobuf, log_request

START = 1_790_000_000 * 10**9
STRICTER = "a stricter privacy policy is not in force yet, and events are refused until it is"
CHANGED = "a changed privacy policy is not in force yet"
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


class Door:
    """What a keeper does with the intake: it lets events in, or says why not."""

    held: Trouble | None = None

    async def settle_all(self) -> bool:
        return True


def watched(engine: Engine, home: Path, steps: Callable[[PolicyKeeper, Door], Any], before: Policy | None = None) -> None:
    """Run a keeper while `steps`, a coroutine function, goes on. `before`: the policy that the start has put in force."""

    async def run() -> None:
        door = Door()
        keeper = PolicyKeeper(engine, Home(home), door, before or Policy())
        await keeper.start()
        try:
            async with asyncio.timeout(30):
                await steps(keeper, door)
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


class Refusing:
    """`privacy.enforce`, which fails while `full`, after it has made some functions of the policy. `tried`: the policies it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full, self.tried = False, []
        self._enforce = privacy.enforce
        monkeypatch.setattr(privacy, "enforce", self)

    def __call__(self, of: Handle, policy: Policy) -> bool:
        self.tried.append(policy)
        return self._enforce(Breaking(of, 12) if self.full else of, policy)

    async def again(self, policy: Policy) -> None:
        """Until `policy` was tried once more."""
        seen = len(self.tried)
        await until(lambda: policy in self.tried[seen:])


def choose(home: Path, level: str, rules: str = "") -> Policy:
    (home / "privacy.toml").write_text(rules)
    (home / "config.toml").write_text(f'privacy_level = "{level}"\n')
    return own.asked(home, level)


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

    monkeypatch.setattr(privacy, "tighten", slowly)
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
