"""The interface on a free port of loopback, in a thread of its own, and how it is asked: for the tests of it."""

from __future__ import annotations

import asyncio
import http.client
import threading
import urllib.parse
from pathlib import Path

from aiohttp import web

from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve import listener
from sp_telemetry.serve.clickhouse_access import Access
from sp_telemetry.serve.clickhouse_http import application
from sp_telemetry.serve.guard import guard
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine
from tests.server import Server as RealServer

WRITER_PASSWORD, READER_PASSWORD = "writes-'\"&", "reads"


class Server:
    """One engine, and the interface over it on `port`. `anonymous` is a second one that lets anybody read."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine(folder / "the store", folder / "its engine")
        with self.engine.handle() as handle:
            schema.migrate(handle)
        self.passwords = {WRITER: WRITER_PASSWORD, READER: READER_PASSWORD}
        self.ports: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._ready.wait(30)
        self.port = self.ports["plain"]

    async def _serve(self) -> None:
        runners, listening = [], []
        for name, anonymous in (("plain", False), ("anonymous", True)):
            access = Access(WRITER_PASSWORD, READER_PASSWORD, anonymous, query_timeout_s=5, query_memory_mib=400)
            outer = application(self.engine, access)
            outer.middlewares.extend([listener.busy, guard()])
            runner = web.AppRunner(outer)
            await runner.setup()
            listening.append(await listener.listen(runner, "127.0.0.1", 0))
            self.ports[name] = listening[-1].sockets[0].getsockname()[1]
            runners.append(runner)
        self._ready.set()
        await self._stop.wait()
        for each in listening:
            each.close()
        for runner in runners:
            await runner.cleanup()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()
        self.engine.close()

    def owner(self, sql: str) -> str:
        with self.engine.handle() as handle:
            return handle.query(sql).decode()


class Process:
    """The interface of a server process, to be asked in the same way."""

    def __init__(self, running: RealServer) -> None:
        self.port = running.ports["clickhouse"]
        self.passwords = {user: running.home.secret(user) for user in (WRITER, READER)}


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def text(self) -> str:
        return self.body.decode()


def ask(
    server: Server | Process, sql: str = "", body: bytes | None = None, user: str = "telemetry_reader", method: str = "", **params: str
) -> Answer:
    headers = params.pop("headers", {})
    port = params.pop("port", server.port)
    if user:
        headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": server.passwords[user]} | headers
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    query = urllib.parse.urlencode(({"query": sql} if sql else {}) | params.pop("params", {}) | params)
    connection.request(method or ("GET" if body is None else "POST"), "/?" + query, body, headers)
    answer = Answer(connection.getresponse())
    connection.close()
    return answer


def write(server: Server, sql: str = "", body: bytes = b"", **params: str) -> Answer:
    return ask(server, sql, body, "telemetry_user", **params)
