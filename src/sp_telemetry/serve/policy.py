"""Keeps the store at the policy that the installation's files ask for: at start, and live when they change.

The files are `config.toml` (the level), `privacy.toml` (own rules) and `privacy.request`, which asks to bring stored rows down to the
policy; that one lies there until it is done, so a server that was killed goes on with it. A file that can't be followed changes
nothing: at start the server refuses to run with it, later the policy asked for before it holds, and the log says so. A change that the
store can't follow now is tried again at each look, and health and `status` say that it waits. Unless it only loosens, no event is let in
from the moment that it is seen until it is in force: nothing is stored that the files, as we know them, want kept out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home
from sp_telemetry.privacy import own
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve import trouble
from sp_telemetry.serve.intake import Intake
from sp_telemetry.serve.trouble import Trouble
from sp_telemetry.store import journal, privacy, tightening
from sp_telemetry.store.engine import Engine
from sp_telemetry.store.tightening import REQUEST

log = logging.getLogger("sp_telemetry")

LOOK_EVERY_S = 1.0
CHANGING = Trouble("A stricter privacy policy is being put in force", "Wait a moment; it goes on by itself")

Times = tuple[int, int]  # of a file: when it was changed, its size


class PolicyKeeper:
    """One handle, one thread of work; looks at the files' times, which costs nothing. `policy` is the one that is in force. `rewriting`:
    held while stored rows are brought down, for who would write again meanwhile what it had read before."""

    def __init__(self, engine: Engine, home: Home, intake: Intake, policy: Policy, rewriting: asyncio.Lock | None = None) -> None:
        self._handle = engine.handle()
        self._home = home
        self._files, self._request = (home.path / "config.toml", home.path / own.NAME), home.path / REQUEST
        self._intake = intake
        self._asked = policy  # by the files, as far as they could be followed
        self._applied = [policy]  # whose functions the store may have: of several after a change that failed
        self._changed = False  # whether the files ask for another policy than is in force
        self.waiting: Trouble | None = None  # why the store does not follow the files yet
        self.unanswered = ""  # why stored rows are not brought down as the request asks
        self._seen: list[Times] = []  # none: they may have changed since the start read them
        self._answered: Times | None = None
        self._said: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._working: asyncio.Future[Policy | None] | None = None
        self._rewriting = rewriting or asyncio.Lock()

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
            requested = self._request.exists()
            if times == self._seen and not requested:
                self._said.clear()
                continue
            policy = await self._run(self._follow, times)
            if policy and requested:
                await self._meanwhile(self._settle_and_answer(policy))

    async def _meanwhile(self, work: Coroutine[None, None, None]) -> None:
        """It takes minutes to bring down what is stored. What the files ask for then is put in force afterwards, and known before."""
        task = asyncio.create_task(work)
        try:
            while not (await asyncio.wait([task], timeout=LOOK_EVERY_S))[0]:
                if self._times() != self._seen:
                    await asyncio.to_thread(self._notice)
        finally:
            task.cancel()
        await task

    async def _settle_and_answer(self, policy: Policy) -> None:
        if await self._intake.settle_all():  # what came under the policy before is stored rows too. Else again in a moment
            await self._rewriting.acquire()
            work = self._begin(self._answer, policy)
            work.add_done_callback(lambda _: self._rewriting.release())  # and not sooner, when the watch is cancelled
            await asyncio.shield(work)

    async def _run(self, work: Callable[..., Policy | None], *arguments: Any) -> Policy | None:
        """In a thread; to its end, even when the watch is cancelled (`close` waits for it)."""
        return await asyncio.shield(self._begin(work, *arguments))

    def _begin(self, work: Callable[..., Policy | None], *arguments: Any) -> asyncio.Future[Policy | None]:
        self._working = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
        return self._working

    def _follow(self, times: list[Times]) -> Policy | None:
        """Put in force what the files ask for; None where that can't be. `times` are theirs; they are seen when it is done, not before."""
        wrong: UsageError | None = None
        try:
            try:
                self._asked = self._ask()
            except UsageError as error:
                wrong = error
                self._say("policy", f"the policy before stays in force. {error}")
                self._done_with_request()
                self._hold_for(self._asked)
            if self._asked not in self._applied:
                self._applied.append(self._asked)
            if privacy.enforce(self._handle, self._asked):
                log.info("privacy: %s from now on, %d own patterns", self._asked.level, len(self._asked.own_patterns))
        except Exception as error:  # whatever it is, the watch has to go on
            self._seen = []  # tried again at the next look
            if self._changed:  # else nothing waits, and others say what is wrong
                self._wait(trouble.of_error(error))
            return None
        self._applied, self._changed, self.waiting, self._intake.held = [self._asked], False, None, None
        unread = wrong and isinstance(wrong.__context__, OSError)  # their times need not change when they can be read
        self._seen = [] if unread else times
        return None if wrong else self._asked

    def _ask(self) -> Policy:
        """What the files ask for, proved. From the moment that it is known nothing looser is taken in. Raises UsageError."""
        asked = self._read()
        self._changed = self._applied != [asked]
        self._hold_for(asked)
        own.prove(asked.own_patterns, self._handle.query)
        return asked

    def _notice(self) -> None:
        with contextlib.suppress(UsageError):
            self._hold_for(self._read())

    def _read(self) -> Policy:
        return own.asked(self._home.path, self._home.settings().privacy_level)

    def _hold_for(self, policy: Policy) -> None:
        """Let no event in while the store may keep more than `policy` does."""
        if all(policy.keeps_all_of(applied) for applied in self._applied):
            self._intake.held = None
        else:
            self._intake.held = self._intake.held or CHANGING

    def _wait(self, found: Trouble) -> None:
        what = "a changed privacy policy is not in force yet"
        if self._intake.held:
            what = "a stricter privacy policy is not in force yet, and events are refused until it is"
        self.waiting = Trouble(f"{found.what}, so {what}", found.mend)
        if self._intake.held:
            self._intake.held = self.waiting
        self._say("policy", str(self.waiting))

    def _answer(self, policy: Policy) -> None:
        """Do what the request asks, `policy` being in force and all stored that was taken in under another. Again at the next look where
        that fails."""
        try:
            if (asked := _time(self._request)) != self._answered:  # else it is there only because it could not be taken away
                self._do(policy, self._request.read_text("utf-8").strip())
                self._answered = asked
        except Exception as error:
            found = trouble.of_error(error)
            known = isinstance(error, OSError) or getattr(error, "code", 0)
            why = f"{found} {found.mend}." if known else str(error)  # else in our own words
            self.unanswered = f"Stored rows are not brought down to the privacy policy yet. {why}"
            self._say("request", self.unanswered)
        else:
            self.unanswered = ""
            self._done_with_request()

    def _do(self, policy: Policy, asked: str) -> None:
        damaged = journal.set_aside(self._home.store / "journal")  # rows under a policy before, which nobody can bring down
        if asked == "count":
            found = tightening.pending(self._handle, policy) | ({"damaged files": len(damaged)} if damaged else {})
            privacy.remember(self._handle, "counted", policy, ", ".join(f"{table}: {rows}" for table, rows in found.items()))
        else:
            done = tightening.tighten(self._handle, policy)
            for file in damaged:
                file.unlink(missing_ok=True)
            log.info("privacy: stored rows brought down to %s: %s", policy.level, done)

    def _done_with_request(self) -> None:
        try:
            self._request.unlink(missing_ok=True)
        except OSError as error:
            self._say("removal", f"{REQUEST} can't be removed: {error.strerror}.")

    def _say(self, about: str, text: str) -> None:
        """In the log, once for as long as it holds: the next look is in a second."""
        if text != self._said.get(about):
            log.warning("privacy: %s", text)
        self._said[about] = text

    def _times(self) -> list[Times]:
        return [_time(file) for file in self._files]


def _time(file: Path) -> Times:
    try:
        found = file.stat()
        return found.st_mtime_ns, found.st_size
    except OSError:
        return 0, 0
