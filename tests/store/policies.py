"""What the tests of a policy's way into the store share: a keeper that runs, and changes that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import Home
from sp_telemetry.privacy import own
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve import policy as keeping
from sp_telemetry.serve.policy import PolicyKeeper
from sp_telemetry.serve.trouble import Trouble
from sp_telemetry.store import privacy
from sp_telemetry.store.engine import Engine, Handle

START = 1_790_000_000 * 10**9
OWN = "[patterns.ticket]\nregex = 'zebra[0-9]+'\nlike = ['zebra7']\nunlike = ['zebra']\n"


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
