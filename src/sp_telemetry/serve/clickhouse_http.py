"""ClickHouse's HTTP interface over the embedded engine: the one seam to the store, for reports, curl, clickhouse-connect, dashboards."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aiohttp import http_exceptions, web

from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve import clickhouse_access, clickhouse_reply, listener, trouble
from sp_telemetry.serve.bodies import Bodies, Share
from sp_telemetry.serve.clickhouse_access import Access
from sp_telemetry.serve.clickhouse_reply import Reply
from sp_telemetry.serve.clickhouse_request import Asked, credentials, read, refuse
from sp_telemetry.serve.clickhouse_run import Control, Run
from sp_telemetry.serve.clickhouse_statement import WRITES, Statement
from sp_telemetry.serve.commit import Busy, Rejected, Unavailable
from sp_telemetry.serve.intake import Intake
from sp_telemetry.store.engine import Engine, Work
from sp_telemetry.store.pipeline import NATIVE

T = TypeVar("T")
MAX_BODY = 128 << 20  # decompressed
MAX_QUESTION = 4 << 20  # a reader brings no data: its body is a query, or a form of one and its parameters
QUERIES_AT_ONCE = {READER: 4, WRITER: 12}  # times query_memory_mib is what readers can take
WAIT_FOR_TURN_S = 10.0
HELD_BACK = 1 << 20  # of an answer before its headers go, so that an early error still gets its status
SLOW_READER_S = 60.0
BODY_S = {READER: 30.0, WRITER: 300.0}  # for a body to arrive: who inserts may still be making it
ROOM = {READER: 16 * MAX_QUESTION, WRITER: 4 * MAX_BODY}  # for bodies, until they are answered
_CHECK_CLIENT_S = 0.1
# What ClickHouse calls what keeps the store from taking events; all of it is told to come again.
_UNAVAILABLE = {
    trouble.FULL: (243, "NOT_ENOUGH_SPACE"),
    trouble.READ_ONLY: (242, "TABLE_IS_READ_ONLY"),
    trouble.MEMORY: (241, "MEMORY_LIMIT_EXCEEDED"),
}
_OTHER = (439, "CANNOT_SCHEDULE_TASK")


def application(engine: Engine, access: Access, intake: Intake | None = None) -> web.Application:
    """The interface as an application to mount. It ends all its queries when it is shut down, before the engine may be closed.

    `intake` takes what a Collector inserts, as it takes OTLP; without one the landing tables' own views do.
    """
    interface = _Interface(engine, access, intake)
    app = web.Application(client_max_size=MAX_QUESTION)
    app.router.add_get("/ping", _ping)
    app.router.add_get("/replicas_status", _ping)
    app.router.add_route("*", "/", interface.handle)
    app.on_shutdown.append(interface.stop)
    app.on_cleanup.append(interface.close)
    return app


async def _ping(_: web.Request) -> web.Response:
    return web.Response(text="Ok.\n", content_type="text/html", charset="UTF-8")


class _Interface:
    def __init__(self, engine: Engine, access: Access, intake: Intake | None) -> None:
        self._access, self._control, self._intake = access, Control(engine), intake
        self._threads = ThreadPoolExecutor(sum(QUERIES_AT_ONCE.values()) + 4, "clickhouse")
        self._turns = {user: asyncio.Semaphore(number) for user, number in QUERIES_AT_ONCE.items()}
        self._bodies = {user: Bodies(room) for user, room in ROOM.items()}
        self._running: dict[Run, web.Request] = {}
        self._stopping = False
        self._host = socket.gethostname()

    async def stop(self, _: web.Application) -> None:
        """Refuse what comes, end what runs, and wait until nothing does."""
        self._stopping = True
        grace = time.monotonic() + 1
        while self._running:
            for run, request in list(self._running.items()):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._control.kill, run.marker)
                if time.monotonic() > grace and request.transport is not None:
                    request.transport.abort()  # its client does not read
            await asyncio.sleep(0.05)

    async def close(self, app: web.Application) -> None:
        await self.stop(app)
        self._threads.shutdown(wait=True)
        self._control.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        started = time.perf_counter_ns()
        reply = Reply(self._host, started)
        anonymous, limit = True, MAX_QUESTION
        try:
            if request.method not in ("GET", "POST", "HEAD"):
                raise refuse(36, "BAD_ARGUMENTS", f"The method {request.method} is not offered")
            values = dict(request.query)
            anonymous = False
            given = credentials(values, request.headers)
            anonymous = not given.given
            if request.method != "POST" and not values.get("query"):
                return await _ping(request)
            user = self._access.user(given)
            limit = MAX_BODY if user == WRITER else MAX_QUESTION
            with self._bodies[user].share() as share:
                body = await _body(request, values, limit, BODY_S[user], share)
                asked = read(values, request.headers, body)
                reply.query_id = asked.query_id
                del body
                async with _Turn(self._turns[user]):
                    return await self._answer(request, reply, asked, user)
        except QueryFailed as error:
            # A 401 makes a browser or curl ask for a password; ClickHouse says 403 to one that is wrong.
            return clickhouse_reply.failure(reply, error, 401 if error.code == 516 and anonymous else None)
        except web.HTTPRequestEntityTooLarge:
            return clickhouse_reply.failure(reply, refuse(298, "QUERY_IS_TOO_LARGE", f"A request may have {limit} bytes"), 413)
        except ConnectionError:  # nobody is left to answer, or to read what is written already
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=499)
        except listener.OF_CLIENTS as error:  # a body that is not what its headers say
            return clickhouse_reply.failure(reply, _unreadable(error))

    async def _answer(self, request: web.Request, reply: Reply, asked: Asked, user: str) -> web.StreamResponse:
        if asked.database not in ("", clickhouse_access.DATABASE):
            raise refuse(81, "UNKNOWN_DATABASE", f"Database {asked.database[:100]} does not exist; the one here is telemetry")
        if not asked.sql.strip():
            raise refuse(62, "SYNTAX_ERROR", "Syntax error: Empty query")
        if self._stopping:
            raise refuse(394, "QUERY_WAS_CANCELLED", "The server is stopping")
        statement = await asyncio.get_running_loop().run_in_executor(self._threads, self._control.examine, asked, user)
        if request.method != "POST" and statement.kind in WRITES:
            raise refuse(164, "READONLY", "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. "
                         "You should use method POST for modifying queries.")  # fmt: skip
        # The reader's handle refuses any change, but not a change to what is set already: so a query's own SETTINGS are set before. So
        # are those of an INSERT that brings data, for it is put together anew.
        known = self._control.known_settings
        settings = self._access.settings(user, {**asked.settings, **statement.settings}, known)
        if user != READER and asked.data is None:
            settings = self._access.settings(user, asked.settings, known)
        if self._intake and asked.data is not None and asked.insert_format == "Native" and statement.target in NATIVE:
            return await self._take_in(self._intake, reply, asked, statement)
        if self._intake and self._intake.held and statement.kind == "INSERT INTO":  # into tables whose views apply the policy, say
            raise refuse(*_OTHER, str(self._intake.held))
        if self._intake:
            await self._intake.settle()
        run = Run(self._control, asked, user, statement, settings)
        reply.format = run.format
        if self._stopping:
            raise refuse(394, "QUERY_WAS_CANCELLED", "The server is stopping")
        self._running[run] = request
        pieces = run.pieces()
        try:
            return await self._send(request, reply, asked, run, pieces)
        finally:
            # Whatever happened (also a cancelled handler): the query ends and its handle is closed before this request is over.
            if inspect.getgeneratorstate(pieces) == inspect.GEN_CLOSED:
                del self._running[run]
            else:
                await asyncio.shield(asyncio.ensure_future(self._end(run, pieces)))

    async def _take_in(self, intake: Intake, reply: Reply, asked: Asked, statement: Statement) -> web.StreamResponse:
        """A Collector's insert: it goes the way of OTLP, shares an insert with others, and is answered when it is committed."""
        try:
            await intake.store_rows(statement.target, asked.data or b"")
        except Rejected as error:
            raise refuse(117, "INCORRECT_DATA", f"These rows can't be stored: {str(error)[:300]}") from None
        except Unavailable as error:
            raise refuse(*_UNAVAILABLE.get(error.trouble.what, _OTHER), str(error)) from None
        except Busy as error:
            raise refuse(202, "TOO_MANY_SIMULTANEOUS_QUERIES", str(error)) from None
        return clickhouse_reply.whole(reply, b"", Work(), asked)

    async def _end(self, run: Run, pieces: Generator[bytes]) -> None:
        try:
            while True:
                try:
                    await asyncio.get_running_loop().run_in_executor(self._threads, pieces.close)
                    return
                except ValueError:  # "generator already executing": its thread is still in the engine
                    await asyncio.get_running_loop().run_in_executor(self._threads, self._control.kill, run.marker)
                    await asyncio.sleep(0.05)
        finally:
            del self._running[run]

    async def _send(self, request: web.Request, reply: Reply, asked: Asked, run: Run, pieces: Generator[bytes]) -> web.StreamResponse:
        limit = MAX_BODY if asked.wait_end_of_query else HELD_BACK
        held, done = await self._result(request, run, lambda: _first(pieces, limit))
        if asked.wait_end_of_query and not done:
            raise refuse(396, "TOO_MANY_ROWS_OR_BYTES", f"With wait_end_of_query an answer may have {MAX_BODY} bytes")
        if done:
            return clickhouse_reply.whole(reply, b"".join(held), run.work, asked)
        tag = secrets.token_hex(8)
        response = clickhouse_reply.beginning(reply, run.work, asked, tag)
        await response.prepare(request)
        packer = zlib.compressobj(3, zlib.DEFLATED, 31) if asked.gzip else None
        try:
            for piece in held:
                await _write(response, packer, piece)
            held.clear()
            while (piece := await self._result(request, run, lambda: next(pieces, None))) is not None:
                await _write(response, packer, piece)
        except QueryFailed as error:
            # The status has gone. ClickHouse's way: the error as a marked last block, and the connection broken off.
            await _write(response, packer, clickhouse_reply.late_failure(error, tag))
            if packer:
                await response.write(packer.flush())
            if request.transport is not None:
                await asyncio.sleep(0)
                request.transport.close()
            return response
        if packer:
            await response.write(packer.flush())
        await response.write_eof()
        return response

    async def _result(self, request: web.Request, run: Run, call: Callable[[], T]) -> T:
        """What `call`, a step of the query, returns. Gives up when the client has gone meanwhile; `handle` then ends the query."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, call)
        while True:
            finished, _ = await asyncio.wait({future}, timeout=_CHECK_CLIENT_S)
            if finished:
                return future.result()
            gone = request.transport is None or request.transport.is_closing()
            if gone and not run.is_insert:  # an insert that has arrived whole is carried out
                future.add_done_callback(lambda f: f.exception())
                raise ConnectionResetError("the client has gone")


def _first(pieces: Generator[bytes], limit: int) -> tuple[list[bytes], bool]:
    """The answer's beginning, and whether that is all of it."""
    held, size = [], 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > limit:
            return held, False
    return held, True


class _Turn:
    """A place among the queries that may run at once. Who waits too long is told to come again."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns

    async def __aenter__(self) -> None:
        try:
            await asyncio.wait_for(self._turns.acquire(), WAIT_FOR_TURN_S)
        except TimeoutError:
            raise refuse(202, "TOO_MANY_SIMULTANEOUS_QUERIES", "Too many simultaneous queries of this user") from None

    async def __aexit__(self, *_: object) -> None:
        self._turns.release()


async def _write(response: web.StreamResponse, packer: Any, piece: bytes) -> None:
    """Write, and wait for the client to read. One that doesn't for long is given up, for it holds a query."""
    data = packer.compress(piece) if packer else piece
    for at in range(0, len(data), 1 << 18):
        try:
            await asyncio.wait_for(response.write(data[at : at + (1 << 18)]), SLOW_READER_S)
        except TimeoutError:
            raise ConnectionResetError("the client does not read") from None


async def _body(request: web.Request, values: dict[str, str], limit: int, seconds: float, share: Share) -> bytes:
    """The request's body, decompressed, of at most `limit` bytes. Fields of a form are parameters, as clickhouse-connect sends them
    when they are long."""
    try:
        if request.content_type != "multipart/form-data":
            body = await share.read(request, limit, seconds)
            return clickhouse_reply.unpacked(body, request.headers.get("Content-Encoding", ""), limit)
        form = await share.read_by(request.post, request, MAX_QUESTION, seconds)
    except TimeoutError:
        raise refuse(209, "SOCKET_TIMEOUT", "Timeout exceeded while reading from socket: the body came too slowly") from None
    except Busy as error:
        raise refuse(202, "TOO_MANY_SIMULTANEOUS_QUERIES", str(error)) from None
    except (ValueError, TypeError, LookupError, RuntimeError, http_exceptions.HttpProcessingError) as error:
        raise _unreadable(error) from None  # aiohttp's words quote the form
    for name, value in form.items():
        if not isinstance(value, str):
            raise refuse(48, "NOT_IMPLEMENTED", "External data are not offered")
        values[name] = value
    return b""


def _unreadable(error: Exception) -> QueryFailed:
    if memory := trouble.of_memory(error):
        return refuse(*_UNAVAILABLE[trouble.MEMORY], str(trouble.of_error(memory)))
    return refuse(36, "BAD_ARGUMENTS", f"The body can't be read: {listener.kind(error)}")
