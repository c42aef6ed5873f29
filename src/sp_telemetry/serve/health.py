"""Health (13133) and the pipeline's own metrics (8888)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from aiohttp import web

from sp_telemetry import __version__
from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve import trouble
from sp_telemetry.serve.counters import Counters, prometheus
from sp_telemetry.serve.intake import Intake
from sp_telemetry.serve.policy import PolicyKeeper
from sp_telemetry.serve.trouble import Trouble
from sp_telemetry.store import maintenance
from sp_telemetry.store.engine import Engine

FIGURES_FRESH_S = 15
REFUSED_FRESH_S = 30  # a refused insert is news for so long, unless the next one is accepted


class Observer:
    """What a look from outside sees. Figures of the store are asked for at most every few seconds. Made when the engine is open."""

    def __init__(self, engine: Engine, store: Path, intake: Intake, counters: Counters, keeper: PolicyKeeper) -> None:
        self._handle, self._checker = engine.handle(), engine.handle()  # figures may wait for the disk; whether it answers may not
        self._store, self._inode = store, store.stat().st_ino
        self._asking, self._checking = asyncio.Lock(), asyncio.Lock()
        self._intake = intake
        self._counters = counters
        self._keeper = keeper
        self._started = self._counted_since = time.time()
        self._figures: dict[str, float] = {}
        self._figures_at = float("-inf")

    async def figures(self) -> dict[str, float]:
        """Those of the store; none when it does not answer. events_duplicate is exact for what came as OTLP and is still there."""
        async with self._asking:
            if time.monotonic() - self._figures_at > FIGURES_FRESH_S:
                await self._intake.settle()
                arrived = self._counters.records["logs"]
                self._counted_since = min(self._counted_since, self._intake.inserts_since.ever)  # the clock may have been set back
                try:
                    found = await asyncio.to_thread(maintenance.figures, self._handle, self._counted_since)
                except (QueryFailed, OSError):
                    return {}
                self._figures = {**found, "events_duplicate": max(arrived - found.pop("events_new"), 0)}
                self._figures_at = time.monotonic()
        return self._figures

    async def trouble(self) -> Trouble | None:
        """Why the store takes or answers nothing, as far as can be seen without writing to it."""
        if held := self._intake.held:
            return held
        if found := trouble.of_place(self._store, self._inode):
            return found
        try:
            async with self._checking:
                await asyncio.to_thread(self._checker.run, "SELECT 1")
        except (QueryFailed, OSError) as error:
            return trouble.of_error(error)
        refused = self._intake.trouble
        return refused if refused and time.monotonic() - refused.at < REFUSED_FRESH_S else None

    async def health(self, _: web.Request) -> web.Response:
        """200 while the store takes events, answers and follows the policy; 503 with the reason, and what mends it, when it does not."""
        state = {
            "status": "Server available",
            "version": __version__,
            "up_since": self._started,
            "queued_requests": self._intake.queued_requests,
            "queued_bytes": self._intake.queued_bytes,
        }
        if notices := list(filter(None, (await asyncio.to_thread(trouble.of_journal, self._store), self._keeper.unanswered))):
            state["notice"] = " ".join(notices)
        if self._keeper.unanswered:
            state["unanswered"] = self._keeper.unanswered  # for who has asked
        found, waiting = await self.trouble(), self._keeper.waiting
        if found:
            state["status"] = "Store unavailable"
        if told := waiting or found:  # what keeps a policy waiting is mostly that very trouble, and says so
            state |= {"reason": str(told), "mend": told.mend}
        return web.json_response(state, status=503 if told else 200)

    async def metrics(self, _: web.Request) -> web.Response:
        figures = {**await self.figures(), "available": 0 if await self.trouble() else 1}
        intake = self._intake
        text = prometheus(self._counters, intake.queued_requests, intake.queued_bytes, intake.journal_bytes, figures)
        return web.Response(text=text, content_type="text/plain")

    async def close(self) -> None:
        async with self._asking, self._checking:
            self._handle.close()
            self._checker.close()


def health_application(observer: Observer) -> web.Application:
    app = web.Application()
    app.router.add_get("/", observer.health)
    return app


def metrics_application(observer: Observer) -> web.Application:
    app = web.Application()
    app.router.add_get("/metrics", observer.metrics)
    return app
