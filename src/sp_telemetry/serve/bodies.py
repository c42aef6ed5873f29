"""Bodies of requests on their way in: each has its time and its size, and all of one kind together have so much room.

A body that stands still takes its room from those that come after it. So when there is no more, what has been coming longest makes
room, like a connection of too many (listener.py), unless it came just now: then it is many at once, and who is late comes again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeVar

from aiohttp import web

from sp_telemetry.serve import listener
from sp_telemetry.serve.commit import Busy

T = TypeVar("T")
PAUSE_S = 30.0  # between two pieces
SLOW_S = 2.0  # then a body makes room for others; from this machine the largest takes a tenth of it


class Bodies:
    """`room` is how many bytes of bodies, decompressed, may be held at once."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.coming: dict[Share, float] = {}  # and since when, the longest first

    @contextlib.contextmanager
    def share(self) -> Iterator[Share]:
        """Of the room, for one request's body. What it takes is given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            share.give_back()

    def make_room(self) -> bool:
        """Whether there is room, now that one which comes slowly has been given up."""
        now = asyncio.get_running_loop().time()
        for share, since in list(self.coming.items()):
            if self.room >= 0 or now - since < SLOW_S:
                break
            if share.size:
                listener.log.warning("Too much is being received: what has been coming longest makes room.")
                share.give_up()
        return self.room >= 0


class Share:
    """What one body takes of the room. It is read once; that raises Busy, TimeoutError and HTTPRequestEntityTooLarge."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._time: asyncio.Timeout | None = None
        self._given_up = False
        self.size = 0

    async def read(self, request: web.Request, largest: int, seconds: float) -> bytes:
        """The body, decompressed."""
        pieces = []
        async with self._coming(request, seconds):
            async for piece in request.content.iter_any():
                pieces.append(piece)
                if self.size + len(piece) > largest:
                    raise web.HTTPRequestEntityTooLarge(largest)
                self._take(len(piece))
        return b"".join(pieces)

    async def read_by(self, read: Callable[[], Awaitable[T]], request: web.Request, largest: int, seconds: float) -> T:
        """What `read` makes of the body, of which it reads `largest` bytes at most: they are taken at once."""
        async with self._coming(request, seconds):
            self._take(largest)
            return await read()

    def give_up(self) -> None:
        """Its room is free at once; who waits for the rest of it gets TimeoutError."""
        self._given_up = True
        self._bodies.coming.pop(self, None)
        self.give_back()
        if self._time and not self._time.expired():
            self._time.reschedule(asyncio.get_running_loop().time())

    def give_back(self) -> None:
        self._bodies.room += self.size
        self.size = 0

    @contextlib.asynccontextmanager
    async def _coming(self, request: web.Request, seconds: float) -> AsyncIterator[None]:
        now = asyncio.get_running_loop().time()
        self._end, self._bodies.coming[self] = now + seconds, now
        try:
            with listener.receiving(request):
                async with asyncio.timeout_at(min(self._end, now + PAUSE_S)) as self._time:
                    yield
        finally:
            self._bodies.coming.pop(self, None)

    def _take(self, size: int) -> None:
        if not self._given_up:
            self._bodies.room -= size
            self.size += size
            if not self._bodies.make_room():
                raise Busy("too many requests are being received")
        if self._given_up:
            raise TimeoutError
        if self._time and not self._time.expired():
            self._time.reschedule(min(self._end, asyncio.get_running_loop().time() + PAUSE_S))
