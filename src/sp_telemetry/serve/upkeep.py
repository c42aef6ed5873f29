"""Keeps attribution and summaries up to date while the server runs: soon after something arrived, never when nothing did."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve import trouble
from sp_telemetry.serve.intake import Intake
from sp_telemetry.store import maintenance, memory
from sp_telemetry.store.engine import Engine

log = logging.getLogger("sp_telemetry")

AFTER_CONTEXT_S = 0.5  # lets the records of one moment arrive together
IN_FLIGHT_S = 10  # an insert that began before a context was committed is over by then; contexts younger than this are looked at again
# The pause after a look at the summaries: long enough that looking takes 0.2 % of the time, but within these bounds.
SUMMARIES_EVERY_S, SUMMARIES_LATEST_S, SUMMARIES_SHARE = 30, 300, 0.002
AFTER_FAILURE_S = 5
NEVER = float("inf")
AT_START_S = 3600  # contexts of the last hour in which there were any may have come just before the last end


class Upkeep:
    """One handle, one thread of work: attribution and summaries never run beside themselves."""

    def __init__(self, engine: Engine, intake: Intake) -> None:
        self._handle = engine.handle()
        self._intake = intake
        self.working = asyncio.Lock()  # for others too, beside whom none of it may run
        self._tasks: list[asyncio.Task[None]] = []
        self._works = True
        # The earliest readings of the clock when something arrived that is still to be looked at. Not simply the time of the last look:
        # clocks are set back and forth, and a look fails while the disk is full.
        self._contexts_left = self._events_left = NEVER

    async def start(self) -> None:
        """Finish what the last end may have left undone, then watch."""
        await self._do(maintenance.reattribute_newest, AT_START_S)
        await self._do(maintenance.summarise_future)
        await self._do(memory.release)
        self._intake.stored.set()  # a killed server may have left something to sum up
        self._tasks = [asyncio.create_task(self._watch_contexts()), asyncio.create_task(self._watch_events())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.flush()
        self._handle.close()

    async def flush(self) -> None:
        """Bring everything up to date now."""
        await self._intake.settle()
        await self._reattribute()
        await self._summarise()

    async def _watch_contexts(self) -> None:
        arrived = self._intake.context_arrived
        while True:
            await arrived.wait()
            arrived.clear()
            await asyncio.sleep(AFTER_CONTEXT_S)
            done = await self._reattribute()
            if not arrived.is_set():  # once more for events that were being inserted meanwhile
                await asyncio.sleep(IN_FLIGHT_S / 2)
                done = await self._reattribute() and done
            if not done:
                arrived.set()
                await asyncio.sleep(AFTER_FAILURE_S)

    async def _watch_events(self) -> None:
        stored, took = self._intake.stored, 0.0
        while True:
            await stored.wait()
            await asyncio.sleep(min(max(took / SUMMARIES_SHARE, SUMMARIES_EVERY_S), SUMMARIES_LATEST_S))
            stored.clear()
            begun = time.monotonic()
            if await self._summarise():
                took = time.monotonic() - begun
            else:  # soon again
                took = 0
                stored.set()
            if not stored.is_set():  # while something comes, what it needs stays in memory
                await self._do(memory.release)

    async def _reattribute(self) -> bool:
        """Honour the contexts that arrived since the last time that this was done, and those of shortly before."""
        arrived = self._intake.contexts_since.take()
        since = min(arrived, self._contexts_left)
        if since == NEVER:
            return True
        done = await self._do(maintenance.reattribute, since - IN_FLIGHT_S)
        self._contexts_left = arrived if done else since
        return done

    async def _summarise(self) -> bool:
        since = min(self._intake.inserts_since.take(), self._events_left)
        done = await self._do(maintenance.summarise, since)
        self._events_left = NEVER if done else since
        return done

    async def _do(self, work: Callable[..., None], *arguments: float) -> bool:
        """Whether it was done. What fails is done at the next opportunity."""
        async with self.working:
            running = asyncio.get_running_loop().run_in_executor(None, work, self._handle, *arguments)
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait([running])  # a query must not outlive its handle
                raise
            except (QueryFailed, OSError) as error:
                if self._works:
                    log.warning("Attribution and summaries wait: %s", trouble.of_error(error))
                self._works = False
                return False
        self._works = True
        return True
