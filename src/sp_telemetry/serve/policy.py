"""Keeps the store at the policy that the installation's files ask for: at start, and live when they change.

The files are `config.toml` (the level), `privacy.toml` (own rules) and `privacy.request`, which asks to bring stored rows down to the
policy; that one lies there until it is done, so a server that was killed goes on with it. A file that can't be followed changes
nothing: at start the server refuses to run with it, later the policy before it stays in force, and the log says so. A change that the
store can't follow now is tried again at each look, and health and `status` say that it waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home
from sp_telemetry.privacy import own
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve import trouble
from sp_telemetry.serve.trouble import Trouble
from sp_telemetry.store import journal, privacy
from sp_telemetry.store.engine import Engine

log = logging.getLogger("sp_telemetry")

LOOK_EVERY_S = 1.0
REQUEST = "privacy.request"

Times = tuple[int, int]  # of a file: when it was changed, its size


class PolicyKeeper:
    """One handle, one thread of work; looks at the files' times, which costs nothing."""

    def __init__(self, engine: Engine, home: Home, settle: Callable[[], Awaitable[bool]]) -> None:
        self._handle = engine.handle()
        self._home = home
        self._settle = settle  # all that was received, for what came under the policy before is stored rows too; whether it could be
        self.waiting: Trouble | None = None  # why the store does not follow the files yet
        self._seen: list[Times] = []  # none: they may have changed since the start read them
        self._answered: Times | None = None
        self._said: dict[str, str] = {}
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
                self._said.clear()
                continue
            policy = await self._run(self._follow, times)
            if policy and requested and await self._settle():  # else again in a moment, for the request is still there
                await self._run(self._answer, policy)

    async def _run(self, work: Callable[..., Policy | None], *arguments: Any) -> Policy | None:
        """In a thread; to its end, even when the watch is cancelled (`close` waits for it)."""
        self._working = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
        return await asyncio.shield(self._working)

    def _follow(self, times: list[Times]) -> Policy | None:
        """Put in force what the files of these `times` ask for; None where that can't be. They are seen when it is done, not before."""
        try:
            policy = own.load(self._home.path, self._home.settings().privacy_level, self._handle.query)
            if privacy.enforce(self._handle, policy):
                log.info("privacy: %s from now on, %d own patterns", policy.level, len(policy.own_patterns))
        except UsageError as error:  # only another change of the files mends that
            self._seen = times
            self._say("policy", f"the policy before stays in force. {error}")
            self._done_with_request()
            return None
        except Exception as error:  # whatever it is, the watch has to go on
            found = trouble.of_error(error)
            self.waiting = Trouble(f"{found.what}, so a changed privacy policy is not in force yet", found.mend)
            self._seen = []  # tried again at the next look
            self._say("policy", str(self.waiting))
            return None
        self._seen, self.waiting = times, None
        return policy

    def _answer(self, policy: Policy) -> None:
        """Do what the request asks, `policy` being in force and all stored that was taken in under another. Again at the next look where
        that fails."""
        request = self._home.path / REQUEST
        try:
            if (asked := _time(request)) != self._answered:  # else it is there only because it could not be taken away
                self._do(policy, request.read_text().strip())
                self._answered = asked
        except Exception as error:
            self._say("request", str(error))
        else:
            self._done_with_request()

    def _do(self, policy: Policy, asked: str) -> None:
        damaged = journal.set_aside(self._home.store / "journal")  # rows under a policy before, which nobody can bring down
        if asked == "count":
            found = privacy.pending(self._handle, policy) | ({"damaged files": len(damaged)} if damaged else {})
            privacy.remember(self._handle, "counted", policy, ", ".join(f"{table}: {rows}" for table, rows in found.items()))
        else:
            done = privacy.tighten(self._handle, policy)
            for file in damaged:
                file.unlink(missing_ok=True)
            log.info("privacy: stored rows brought down to %s: %s", policy.level, done)

    def _done_with_request(self) -> None:
        try:
            (self._home.path / REQUEST).unlink(missing_ok=True)
        except OSError as error:
            self._say("removal", f"{REQUEST} can't be removed: {error.strerror}.")

    def _say(self, about: str, text: str) -> None:
        """In the log, once for as long as it holds: the next look is in a second."""
        if text != self._said.get(about):
            log.warning("privacy: %s", text)
        self._said[about] = text

    def _times(self) -> list[Times]:
        return [_time(self._home.path / name) for name in ("config.toml", own.NAME)]


def _time(file: Path) -> Times:
    try:
        found = file.stat()
        return found.st_mtime_ns, found.st_size
    except OSError:
        return 0, 0
