"""Keeps the store at the policy that the installation's files ask for: at start, and live when they change.

The files are `config.toml` (the level), `privacy.toml` (own rules) and `privacy.request`, which asks to bring stored rows down to the
policy; that one lies there until it is done, so a server that was killed goes on with it. A file that can't be followed changes
nothing: at start the server refuses to run with it, later the policy before it stays in force, and the log says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from sp_telemetry.errors import SpTelemetryError, UsageError
from sp_telemetry.home import Home
from sp_telemetry.privacy import own
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.store import journal, privacy
from sp_telemetry.store.engine import Engine

log = logging.getLogger("sp_telemetry")

LOOK_EVERY_S = 1.0
REQUEST = "privacy.request"


class PolicyKeeper:
    """One handle, one thread of work; looks at the files' times, which costs nothing."""

    def __init__(self, engine: Engine, home: Home, settle: Callable[[], Awaitable[bool]]) -> None:
        self._handle = engine.handle()
        self._home = home
        self._settle = settle  # all that was received, for what came under the policy before is stored rows too; whether it could be
        self._seen = self._times()
        self._task: asyncio.Task[None] | None = None
        self._working: asyncio.Future[Policy | None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._working:
            await asyncio.wait([self._working])  # a query must not outlive its handle
        self._handle.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            times = self._times()
            requested = (self._home.path / REQUEST).exists()
            if times == self._seen and not requested:
                continue
            self._seen = times
            policy = await self._run(self._follow)
            if policy and requested and await self._settle():  # else again in a moment, for the request is still there
                await self._run(self._answer, policy)

    async def _run(self, work: Callable[..., Policy | None], *arguments: Policy) -> Policy | None:
        """In a thread; to its end, even when the watch is cancelled (`close` waits for it). What goes wrong is in the log."""
        self._working = asyncio.get_running_loop().run_in_executor(None, self._reported, work, *arguments)
        return await asyncio.shield(self._working)

    def _reported(self, work: Callable[..., Policy | None], *arguments: Policy) -> Policy | None:
        try:
            return work(*arguments)
        except UsageError as error:
            (self._home.path / REQUEST).unlink(missing_ok=True)
            log.warning("privacy: the policy before stays in force. %s", error)
        except SpTelemetryError as error:
            log.warning("privacy: %s", error)
        return None

    def _follow(self) -> Policy:
        """Put in force what the files ask for."""
        policy = own.load(self._home.path, self._home.settings().privacy_level, self._handle.query)
        if privacy.enforce(self._handle, policy):
            log.info("privacy: %s from now on, %d own patterns", policy.level, len(policy.own_patterns))
        return policy

    def _answer(self, policy: Policy) -> None:
        """Do what the request asks, `policy` being in force and all stored that was taken in under another."""
        request = self._home.path / REQUEST
        damaged = journal.set_aside(self._home.store / "journal")  # rows under a policy before, which nobody can bring down
        if request.read_text().strip() == "count":
            found = privacy.pending(self._handle, policy) | ({"damaged files": len(damaged)} if damaged else {})
            privacy.remember(self._handle, "counted", policy, ", ".join(f"{table}: {rows}" for table, rows in found.items()))
        else:
            done = privacy.tighten(self._handle, policy)
            for file in damaged:
                file.unlink(missing_ok=True)
            log.info("privacy: stored rows brought down to %s: %s", policy.level, done)
        request.unlink()

    def _times(self) -> list[tuple[int, int]]:
        return [_time(self._home.path / name) for name in ("config.toml", own.NAME)]


def _time(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
        return found.st_mtime_ns, found.st_size
    except OSError:
        return 0, 0
