"""Health (13133) and the pipeline's own metrics (8888)."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from sp_telemetry import __version__
from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve.counters import Counters, prometheus
from sp_telemetry.serve.intake import Intake
from sp_telemetry.store import maintenance
from sp_telemetry.store.engine import Engine

FIGURES_FRESH_S = 15


class Observer:
    """What a look from outside sees. Figures of the store are asked for at most every few seconds."""

    def __init__(self, engine: Engine, intake: Intake, counters: Counters) -> None:
        self._handle = engine.handle()
        self._asking = asyncio.Lock()
        self._intake = intake
        self._counters = counters
        self._started = time.time()
        self._figures: dict[str, float] = {}
        self._figures_at = float("-inf")

    async def figures(self) -> dict[str, float]:
        async with self._asking:
            if time.monotonic() - self._figures_at > FIGURES_FRESH_S:
                arrived = self._counters.records["logs"]
                found = await asyncio.to_thread(maintenance.figures, self._handle, self._started)
                self._figures = {**found, "events_duplicate": max(arrived - found.pop("events_new"), 0)}
                self._figures_at = time.monotonic()
        return self._figures

    async def health(self, _: web.Request) -> web.Response:
        """200 while the store answers, 503 with the reason when it does not."""
        try:
            async with self._asking:
                await asyncio.to_thread(self._handle.run, "SELECT 1")
        except QueryFailed as error:
            return web.json_response({"status": "Store unavailable", "reason": str(error)}, status=503)
        return web.json_response(
            {
                "status": "Server available",
                "version": __version__,
                "up_since": self._started,
                "queued_requests": self._intake.queued_requests,
                "queued_bytes": self._intake.queued_bytes,
            }
        )

    async def metrics(self, _: web.Request) -> web.Response:
        text = prometheus(self._counters, self._intake.queued_requests, self._intake.queued_bytes, await self.figures())
        return web.Response(text=text, content_type="text/plain")

    async def close(self) -> None:
        async with self._asking:
            self._handle.close()


def health_application(observer: Observer) -> web.Application:
    app = web.Application()
    app.router.add_get("/", observer.health)
    return app


def metrics_application(observer: Observer) -> web.Application:
    app = web.Application()
    app.router.add_get("/metrics", observer.metrics)
    return app
