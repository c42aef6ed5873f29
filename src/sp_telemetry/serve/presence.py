"""Records when this server ran, so that an audit can tell what was lost because it did not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial

from sp_telemetry.errors import QueryFailed
from sp_telemetry.store.engine import Engine

log = logging.getLogger("sp_telemetry")

EVERY_S = 60


class Presence:
    """One row in server_runs for this run, renewed while it lasts. Work of a millisecond, on a handle of its own."""

    def __init__(self, engine: Engine, server: str) -> None:
        self._handle = engine.handle()
        self._server = server
        self._started_at = time.time()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._note()
        self._task = asyncio.create_task(self._renew())

    async def close(self) -> None:
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._note(ended=True)
        self._handle.close()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            await asyncio.shield(self._note())

    async def _note(self, ended: bool = False) -> None:
        values = f"'{self._server}', {self._started_at:.3f}, {time.time():.3f}, {ended}"
        statement = f"INSERT INTO telemetry.server_runs (server, started_at, seen_at, ended) SELECT {values}"
        try:
            await asyncio.get_running_loop().run_in_executor(None, partial(self._handle.run, statement))
        except QueryFailed as error:  # a full disk, say: the audit then knows less
            log.debug("presence: %s", error)
