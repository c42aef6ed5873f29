"""A port with an HTTP application behind it, held against clients that open connections and then do little.

aiohttp waits for a first request for ever and for a next one an hour. Here a connection has seconds to say what it wants, and of too
many the one that has waited longest makes room, so that who has something to say gets through. Where all of them have, the one does
whose body has been coming longest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator

from aiohttp import StreamReader, http_exceptions, web, web_protocol

from sp_telemetry.serve import peer

REQUEST_S = 10  # for a first request's head to arrive
GRACE_S = 0.2  # more, to read what has arrived
KEEP_ALIVE_S = 75  # for a next request to begin
CONNECTIONS = 200  # a listener
REFUSED_AT_ONCE = 20  # connections of others that may read why
LINGER_S = 2  # to read on after a refusal, so that the client gets to read it
LOOK_S = 1.0  # whether a client that says no more is there still
LOOK_SHARE = 0.2  # of the time, at most, that all looks of a listener take
MAX_LINE = 1 << 18  # of the head: a query may stand in the address
STRANGER = b"Refused: this listener answers to the programs of the user who runs it.\n"
_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_MANY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_REFUSAL = b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
    len(STRANGER),
    STRANGER,
)


_REASON = re.compile(r"(?:Bad status line:\n  )?([^\n]{1,80}):\n\n")  # the parser's own words, before the line that it quotes
OF_CLIENTS = (http_exceptions.HttpProcessingError, web_protocol.RequestPayloadError)


def kind(error: BaseException) -> str:
    """What is wrong with a request, in words that hold nothing of it. aiohttp's quote what it can't read: a password, a prompt."""
    while error.__cause__:  # what a body is read by says only that it could not be
        error = error.__cause__
    found = _REASON.match(error.message) if isinstance(error, http_exceptions.HttpProcessingError) else None
    return f"{type(error).__name__}: {found[1]}" if found else type(error).__name__


class _Seldom(logging.Filter):
    """Each kind of complaint once in a while, for it could be made a thousand times a second: a line where it is the client's fault,
    else where it happened. Never an error's own words, which may quote the request."""

    EVERY_S = 60

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[object, ...], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        complaint = (record.msg, type(error))
        if time.monotonic() - self._told.get(complaint, float("-inf")) < self.EVERY_S:
            return False
        self._told[complaint] = time.monotonic()
        if isinstance(error, OF_CLIENTS):
            record.msg, record.args, record.exc_info = "a request that can't be read: %s", (kind(error),), None
        elif error:
            record.exc_info, record.exc_text = None, "".join(traceback.format_tb(error.__traceback__)) + kind(error)
        return True


log = logging.getLogger("sp_telemetry.http")
log.addFilter(_Seldom())


async def listen(runner: web.AppRunner, address: str, port: int, other_users: bool = False) -> asyncio.Server:
    """Listen for `runner`, whose application has `busy` among its middlewares. Raises OSError when the port is taken."""
    assert runner.server is not None
    connections = Connections(runner.server, other_users)
    return await asyncio.get_running_loop().create_server(connections.make, address, port, backlog=1024)


@web.middleware
async def busy(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Tells the connection that a request has arrived, and that it was answered."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        return await handler(request)
    connection.works()
    try:
        return await handler(request)
    finally:
        connection.waits(KEEP_ALIVE_S)


@contextlib.contextmanager
def receiving(request: web.BaseRequest) -> Iterator[None]:
    """Tells the connection that the body of its request is coming, as long as this lasts."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        yield
        return
    connection.receives(True)
    try:
        yield
    finally:
        connection.receives(False)


class Connections:
    """Those of one listener. `waiting` are without a request, `receiving` without all of its body, the longest first."""

    def __init__(self, server: web.Server, other_users: bool) -> None:
        self._server = server
        self.other_users = other_users
        self.number = self.refused = self.ended = 0
        self.waiting: dict[Connection, asyncio.TimerHandle] = {}
        self.receiving: dict[Connection, None] = {}

    def make(self) -> Connection:
        return Connection(self, self._server)

    def opened(self, newcomer: Connection) -> None:
        """It waits already. Of too many one is closed."""
        self.number += 1
        if self.number <= CONNECTIONS:
            return
        longest = next(iter(self.waiting), newcomer)
        if longest is newcomer and self.receiving:
            log.warning("Too many connections: of those whose requests arrive slowly the first makes room.")
            next(iter(self.receiving)).close_now(_MANY)
        else:
            longest.make_room()


class Connection(web.RequestHandler):
    __slots__ = ("_begun", "_body", "_connections", "_ended", "_lingers", "_strange")

    def __init__(self, connections: Connections, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=log,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGER_S,
            max_line_size=MAX_LINE,
        )
        self._connections = connections
        self._begun = False  # a request, of which the head has not arrived whole
        self._body: StreamReader | None = None  # of the request that came last
        self._strange = self._lingers = self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        ends = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._strange = not self._connections.other_users and (None in ends or peer.stranger(*ends))
        if self._strange:
            self._refuse(transport)
            return
        super().connection_made(transport)
        self.waits(REQUEST_S)
        self._connections.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self._strange:
            self._begun = True
            super().data_received(data)
            if self._messages:
                self._body = self._messages[-1][1]

    def eof_received(self) -> bool:
        """Whether it stays open: who says that no more comes may wait for answers to what has arrived whole. Or has gone, which says
        no more than that; then nobody is answered."""
        idle = self._waiter is not None and not self._messages
        if self._strange or idle or self._body is None or not self._body.is_eof() or not self._look_for_client():
            return False
        self._connections.ended += not self._ended
        self._ended = True
        self._close_behind_answers()
        return True

    def _look_for_client(self) -> bool:
        """Whether it is there; then again later, for nothing is read any more that would tell that it has gone. Not where the system
        doesn't tell: a query whose client has gone would run on."""
        begun = time.monotonic()
        ends = [self.transport and self.transport.get_extra_info(name) for name in ("peername", "sockname")]
        there = all(ends) and peer.owner(*ends) not in (None, peer.GONE)
        if there:
            all_take = (time.monotonic() - begun) * self._connections.ended
            asyncio.get_running_loop().call_later(max(LOOK_S, all_take / LOOK_SHARE), self._look_for_client)
        elif self.transport is not None:
            self.transport.close()
        return there

    def _close_behind_answers(self) -> None:
        if self._ended and not self._messages:
            self.close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp's, which answers with what it can't read."""
        return super().handle_error(request, status, exc, kind(exc) if exc and message else message)

    def _refuse(self, transport: asyncio.Transport) -> None:
        """The reason, and for a few at a time a moment to read it: to close with its request unread would reset the client's connection."""
        transport.write(_REFUSAL)
        if self._connections.refused >= REFUSED_AT_ONCE:
            transport.close()
            return
        self._lingers = True
        self._connections.refused += 1
        try:
            transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, transport.close)
        except OSError:  # it has gone already
            transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._lingers:
            self._connections.refused -= 1
        if not self._strange:
            self.works()
            self.receives(False)
            self._connections.number -= 1
            self._connections.ended -= self._ended
            super().connection_lost(exc)

    def works(self) -> None:
        self._begun = False
        if timer := self._connections.waiting.pop(self, None):
            timer.cancel()

    def receives(self, does: bool) -> None:
        if does and self.transport is not None:
            self._connections.receiving[self] = None
        else:
            self._connections.receiving.pop(self, None)

    def waits(self, seconds: float) -> None:
        self.works()
        self._close_behind_answers()
        if self.transport is not None and not self.transport.is_closing():
            self._connections.waiting[self] = asyncio.get_running_loop().call_later(seconds, self._is_late)

    def _is_late(self) -> None:
        """Unless we were: after standing still, timers may come before what has arrived is read. So that is read first."""
        self._connections.waiting[self] = asyncio.get_running_loop().call_later(GRACE_S, self.close_now)

    def make_room(self) -> None:
        """A request may have arrived that nobody has looked at yet: after a 408 its sender would throw its events away."""
        self.close_now(_MANY if self._begun else b"")

    def close_now(self, answer: bytes = b"") -> None:
        self._connections.waiting.pop(self, None)
        self.receives(False)
        if self.transport is not None:
            if answer or self._begun:
                self.transport.write(answer or _LATE)
            transport = self.transport
            self.force_close()
            _break_off(transport)


def _break_off(transport: asyncio.Transport, left: int = 0) -> None:
    """A closed connection, unless more of what is written goes out: one whose client doesn't read would be there as long as that is."""
    now = transport.get_write_buffer_size()
    if now and now == left:
        transport.abort()
    elif now:
        asyncio.get_running_loop().call_later(KEEP_ALIVE_S, _break_off, transport, now)
