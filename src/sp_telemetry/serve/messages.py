"""gRPC messages on their way in: a few are read at once, and who waits for that holds next to nothing.

gRPC gathers a whole message before it hands it over, and tells nobody how much of it is there. But before it is asked for a message it
takes no more of it than a stream's first window, 64 kB; so it is asked for a few at a time. A message that stands still takes the place of
those that come after it: what has been coming longest makes room for them, like a body over HTTP (bodies.py). Of those who wait who came
last is next, so that many which stand still don't stand before one that doesn't.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sp_telemetry.serve import listener
from sp_telemetry.serve.bodies import SLOW_S
from sp_telemetry.serve.commit import Busy

T = TypeVar("T")
AT_ONCE = 4  # of the largest size may be under way, as over HTTP
MOST_WAITING = 256  # of all connections
MESSAGE_S = 30.0  # for a message to arrive, its wait included


class Messages:
    """Lives in one event loop."""

    def __init__(self) -> None:
        self._free = AT_ONCE
        self._coming: dict[asyncio.Timeout, float] = {}  # and since when, the longest first
        self._leaving: set[asyncio.Timeout] = set()  # given up, and about to make room
        self._waiting: list[asyncio.Future[None]] = []  # the first came first
        self._look: asyncio.TimerHandle | None = None

    async def read(self, receive: Callable[[], Awaitable[T]]) -> T:
        """What `receive` gives, which asks gRPC for a message. Raises Busy, and TimeoutError for what came too slowly."""
        async with asyncio.timeout(MESSAGE_S) as time:
            await self._turn()
            self._coming[time] = asyncio.get_running_loop().time()
            self._plan()
            try:
                return await receive()
            finally:
                self._coming.pop(time, None)
                self._leaving.discard(time)
                self._next()

    async def _turn(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.pop(0).set_exception(Busy("too many messages are being received"))
        self._plan()
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled() and not turn.exception():  # it had its turn already
                self._next()
            raise

    def _next(self) -> None:
        while self._waiting:
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _plan(self) -> None:
        """To look when the next one comes slowly, where others wait that no place is being made for."""
        if not self._look and self._coming and len(self._waiting) > len(self._leaving):
            slow_at = next(iter(self._coming.values())) + SLOW_S
            self._look = asyncio.get_running_loop().call_at(slow_at, self._make_room)

    def _make_room(self) -> None:
        self._look = None
        now = asyncio.get_running_loop().time()
        slow = [time for time, since in self._coming.items() if now - since >= SLOW_S]
        for time in slow[: max(len(self._waiting) - len(self._leaving), 0)]:
            listener.log.warning("Too many messages are being received over gRPC: what has been coming longest makes room.")
            del self._coming[time]
            self._leaving.add(time)
            if not time.expired():
                time.reschedule(now)
        self._plan()
