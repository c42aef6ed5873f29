"""OTLP requests, and the Collector's inserts, on their way into the store: coalesced, committed, then acknowledged.

Bytes are moved, never looked into: the engine decodes them. Requests that wait while an insert runs share the next one, so one
insert's fixed cost is spread over more of them the busier it gets. A second insert runs beside the first only when much waits,
for two small inserts at once cost more than one of both.

Events are committed to the journal, which takes a few milliseconds, and inserted with what comes in the next seconds. Nobody sees the
difference: who asks something of the store settles first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve import trouble
from sp_telemetry.serve.commit import Busy, Rejected, Unavailable, commit
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.earliest import Earliest
from sp_telemetry.serve.trouble import Trouble
from sp_telemetry.store import warming
from sp_telemetry.store.engine import Engine
from sp_telemetry.store.framing import rows_of
from sp_telemetry.store.journal import Journal
from sp_telemetry.store.pipeline import LANES, NATIVE, Lane, Pipeline

log = logging.getLogger("sp_telemetry")

BATCH_BYTES = 4 << 20  # about 6,000 events, one message of a standing query: what it does for each message is spread over so many
SECOND_INSERT_BYTES = 2 << 20
WORKERS = 2
SETTLE_AFTER_S, SETTLE_BYTES = 5.0, 32 << 20  # when what waits in the journal is inserted; Claude Code keeps its events as long
MEMORY, MEMORY_OF_A_BYTE = 1 << 30, 32  # for one insert: a request of real events takes 13 times its size, as JSON 20 times
MOST_JOURNAL_BYTES = 3 * SETTLE_BYTES  # then requests wait


def memory_for(largest_request: int) -> int:
    """What one insert may take, in bytes, where requests have so many at most: more than any of real events does."""
    return max(MEMORY, MEMORY_OF_A_BYTE * largest_request)


@dataclass
class _Waiting:
    body: bytes
    done: asyncio.Future[None]
    since: float = field(default_factory=time.monotonic)


class Intake:
    """Takes requests and answers each when its rows are committed. Lives in one event loop.

    `memory`: what one insert may take, in bytes. A request that takes more alone is rejected.
    """

    def __init__(self, engine: Engine, counters: Counters, max_queued_bytes: int, journal: Journal, memory: int = MEMORY) -> None:
        self._handles = [engine.handle() for _ in range(WORKERS + 1)]
        first = Pipeline(self._handles[0], memory=memory)
        rest = [Pipeline(handle, first, memory) for handle in self._handles[1:-1]]
        self._settler = Pipeline(self._handles[-1], first)  # without a limit: it must not fail at what was acknowledged
        self._idle, self._inserting = [first, *rest], 0
        self._pool = ThreadPoolExecutor(WORKERS + 1, thread_name_prefix="insert")
        self._journal, self._settling = journal, asyncio.Lock()
        self._settle_later: asyncio.TimerHandle | None = None
        counters.records["logs"] += sum(map(rows_of, journal.blocks))  # acknowledged before the last end
        self._lanes: dict[Lane, deque[_Waiting]] = {lane: deque() for lane in LANES}
        self._tasks: set[asyncio.Task[None]] = set()
        self._counters = counters
        self._max_queued_bytes = max_queued_bytes
        self._waiting_bytes = self._held_bytes = 0
        self.stored = asyncio.Event()  # something was committed: maintenance looks at it
        self.context_arrived = asyncio.Event()
        self.inserts_since, self.contexts_since = Earliest(), Earliest()  # for who looks at what arrived since it looked last
        self._contexts_beside = Earliest()  # told since the last settling began, which knows nothing of them
        self._refused: Trouble | None = None  # why the last insert was refused; None when it was not
        self._unsettled: Trouble | None = None  # the same of what waits in the journal
        self.held: Trouble | None = None  # why nothing is let in, which is for who sets it to take back

    async def store(self, signal: str, encoding: str, body: bytes) -> None:
        """Returns when `body` is committed. Raises Busy or Rejected; then nothing of it is stored, as far as the engine can tell."""
        await self._store(Lane(signal, encoding), body)

    async def store_rows(self, table: str, body: bytes) -> None:
        """The same for what a Collector inserts into one of NATIVE's tables, FORMAT Native."""
        await self._store(Lane(NATIVE[table], "native", table), body)

    async def _store(self, lane: Lane, body: bytes) -> None:
        if self.held:
            self._counters.refused += 1
            raise Unavailable(self.held)
        if self._held_bytes + len(body) > self._max_queued_bytes:
            self._counters.refused += 1
            raise Busy("too many requests are waiting for the store")
        waiting = _Waiting(body, asyncio.get_running_loop().create_future())
        self._lanes[lane].append(waiting)
        self._waiting_bytes += len(body)
        self._held_bytes += len(body)
        self._counters.received(lane.signal, len(body))
        self._start_inserts()
        try:
            await waiting.done
        finally:
            self._held_bytes -= len(body)
            self._counters.answered(time.monotonic() - waiting.since)

    @property
    def queued_bytes(self) -> int:
        return self._held_bytes

    @property
    def queued_requests(self) -> int:
        return sum(map(len, self._lanes.values()))

    @property
    def journal_bytes(self) -> int:
        return self._journal.bytes

    @property
    def trouble(self) -> Trouble | None:
        """Why the store takes nothing, as far as the last inserts tell."""
        return self._refused or self._unsettled

    def begin_warming(self) -> None:
        """Prepare one of the pipelines, and the engine, for the first events. The others take what comes meanwhile."""
        self._begin(self._warm(self._idle.pop()))

    async def begin_settling(self, wait_s: float) -> None:
        """Settle what an end before left, without waiting for it longer than that: whoever asks something waits for it."""
        if self._journal.bytes:
            await asyncio.wait([self._begin(self._settle())], timeout=wait_s)

    async def settle(self) -> None:
        """Returns when all that was acknowledged until now can be read, or can't be: see `trouble`."""
        if self._journal.bytes:
            await asyncio.shield(self._begin(self._settle()))

    async def settle_all(self) -> bool:
        """The same of all that was received until now, what is being typed or inserted first. Whether it can be read."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        await self.settle()
        return self._unsettled is None

    async def close(self) -> None:
        """Commit all that was taken, then let go of the engine. What can't be inserted now stays in the journal."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        await self.settle()
        if self._settle_later:
            self._settle_later.cancel()
        await asyncio.to_thread(self._pool.shutdown)
        for pipeline in (*self._idle, self._settler):
            pipeline.close()
        for handle in self._handles:
            handle.close()

    async def _warm(self, pipeline: Pipeline) -> None:
        begun = time.monotonic()
        try:
            await asyncio.to_thread(warming.warm, pipeline)
            log.info("ready for the first events, after %.2f s", time.monotonic() - begun)
        except (QueryFailed, OSError) as error:  # then who sends something first waits, and is told what is wrong
            log.debug("not ready for the first events: %s", error)
        finally:
            self._idle.append(pipeline)
            self._start_inserts()

    def _start_inserts(self) -> None:
        while self._idle and any(self._lanes.values()):  # not their bytes: a request may be empty
            if self._inserting and self._waiting_bytes < SECOND_INSERT_BYTES:
                return
            if self._journal.bytes >= MOST_JOURNAL_BYTES and not self._unsettled:
                return  # until it is settled
            self._inserting += 1
            self._begin(self._insert(*self._next_batch(), self._idle.pop()))

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task that `close` waits for, and nobody cancels."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _next_batch(self) -> tuple[Lane, list[_Waiting]]:
        lane, queue = min(((lane, queue) for lane, queue in self._lanes.items() if queue), key=lambda item: item[1][0].since)
        batch, size = [], 0
        while queue and (not batch or size + len(queue[0].body) <= BATCH_BYTES):
            batch.append(queue.popleft())
            size += len(batch[-1].body)
        self._waiting_bytes -= size
        return lane, batch

    async def _insert(self, lane: Lane, batch: list[_Waiting], pipeline: Pipeline) -> None:
        told = lane.may_tell_contexts(waiting.body for waiting in batch)
        self.inserts_since.note()
        if told:
            self._note_contexts()
        bodies = [waiting.body for waiting in batch]
        journal = None if self._unsettled else self._journal  # where it can't be settled it takes nothing either, so that senders are told
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._pool, commit, pipeline, lane, bodies, False, journal)
        except Exception as error:  # nothing may leave senders waiting
            if not isinstance(error, OSError):
                log.exception("insert")
            answers = [Unavailable(trouble.of_error(error))] * len(batch)
        finally:
            self._inserting -= 1
            self._idle.append(pipeline)
        self.inserts_since.note()  # again, for who took the reading while this was under way
        if told:
            self._note_contexts()
        self._note_trouble(answers)
        for waiting, answer in zip(batch, answers, strict=True):
            if isinstance(answer, int):
                self._counters.stored += 1
                self._counters.records[lane.signal] += answer
            elif isinstance(answer, Rejected):
                self._counters.rejected += 1
            else:
                self._counters.refused += 1
            if waiting.done.done():  # its sender has gone
                continue
            if isinstance(answer, int):
                waiting.done.set_result(None)
            else:
                waiting.done.set_exception(answer)
        self.stored.set()
        if told:
            self.context_arrived.set()
        self._plan_settling()
        self._start_inserts()

    def _note_contexts(self) -> None:
        self.contexts_since.note()
        self._contexts_beside.note()

    def _plan_settling(self) -> None:
        waiting = self._journal.bytes
        if waiting >= SETTLE_BYTES and not self._settling.locked() and not self._unsettled:
            self._begin(self._settle())
        elif waiting and not self._settle_later:
            self._settle_later = asyncio.get_running_loop().call_later(SETTLE_AFTER_S, self._settle_now)

    def _settle_now(self) -> None:
        self._settle_later = None
        self._begin(self._settle())

    async def _settle(self) -> None:
        """Insert what waits in the journal, one after the other; later again where that fails."""
        async with self._settling:
            if not self._journal.bytes:
                return
            begun = time.time()
            self.inserts_since.note(begun)
            self._contexts_beside.take()
            try:
                await asyncio.get_running_loop().run_in_executor(self._pool, self._settler.settle, self._journal)
                if self._unsettled:
                    log.info("What waited in the journal is stored.")
                self._unsettled = None
            except Exception as error:  # it waits on, whatever it is
                if not isinstance(error, (OSError, QueryFailed)):
                    log.exception("settle")
                found = trouble.of_error(error)
                if self._unsettled is None or self._unsettled.what != found.what:
                    log.warning("%s. What is acknowledged waits in the journal; senders are told to try again.", found.what)
                self._unsettled = found
            self.inserts_since.note(begun)  # again, as above; with times of when it began
            if (told := self._contexts_beside.take()) < float("inf"):
                self.contexts_since.note(told)  # its rows were not there when they were looked for
                self.context_arrived.set()
        self.stored.set()
        self._plan_settling()
        self._start_inserts()

    def note_refusal(self, why: Unavailable) -> None:
        """That a request was refused before it came here."""
        self._counters.refused += 1
        self._note_trouble([why])

    def _note_trouble(self, answers: list[Exception | int]) -> None:
        """Remember why the store takes nothing, and tell the log when that begins, changes and ends."""
        before = self._refused
        refused = [answer.trouble for answer in answers if isinstance(answer, Unavailable)]
        if refused:
            self._refused = refused[-1]
            if before is None or before.what != self._refused.what:
                log.warning("%s. Senders are told to try again.", self._refused.what)
        elif before and any(isinstance(answer, int) for answer in answers):
            self._refused = None
            log.info("The store takes events again.")
