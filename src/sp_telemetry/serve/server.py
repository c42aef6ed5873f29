"""The embedded server, assembled: one process that owns the store, five listeners, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import IO, Any

from aiohttp import web

from sp_telemetry import __version__, resources
from sp_telemetry.errors import QueryFailed, SpTelemetryError, StoreBusy, UsageError
from sp_telemetry.home import READER, WRITER, Home
from sp_telemetry.privacy import own, sql
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.serve import clickhouse_http, guard, health, listener, otlp_grpc, otlp_http, trouble
from sp_telemetry.serve.clickhouse_access import Access
from sp_telemetry.serve.counters import Counters
from sp_telemetry.serve.intake import Intake, memory_for
from sp_telemetry.serve.policy import PolicyKeeper
from sp_telemetry.serve.ports import is_taken, refusal, sentence
from sp_telemetry.serve.presence import Presence
from sp_telemetry.serve.upkeep import Upkeep
from sp_telemetry.settings import Settings
from sp_telemetry.store import maintenance, prices, privacy, schema
from sp_telemetry.store.engine import Engine
from sp_telemetry.store.journal import Journal

log = logging.getLogger("sp_telemetry")

CLOSE_CONNECTIONS_S = 3
LOCK_TRIES = 20
CRASHED_AGAIN_S = 60  # who crashes sooner after a start ends, so that nothing starts and crashes for ever
SETTLE_AT_START_S = 0.5  # most journals take 0.1; one whose events are spread over a thousand weeks takes 20, a part for each


class Laps:
    """What each step of a start took: said in the log, for a start that was slow is asked about afterwards."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._took: list[str] = []

    def done(self, step: str) -> None:
        now = time.monotonic()
        self._took.append(f"{step} {now - self._last:.2f}")
        self._last = now

    def __str__(self) -> str:
        return f"{self._last - self._begun:.2f} s ({', '.join(self._took)})"


async def serve(home: Home, settings: Settings, ready: Callable[[dict[str, int]], None] = lambda ports: None) -> None:
    """Serve `home` until SIGTERM or SIGINT. `ready` gets the ports when everything listens.

    Raises StoreBusy when another process serves this home or holds a port.
    """
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    loop.set_exception_handler(_uncaught)
    try:
        async with running(home, settings) as ports:
            ready(ports)
            await ending.wait()
            log.info("ending: committing what is in flight")
    except (QueryFailed, OSError) as error:  # pages of it, where the engine says it
        log.error("%s", error)
        reason = trouble.of_error(error)
        raise QueryFailed(
            f"{home.path} can't be served: {reason}", f"{reason.mend.partition(';')[0]}.", getattr(error, "code", 0)
        ) from None


@contextlib.asynccontextmanager
async def running(home: Home, settings: Settings) -> AsyncIterator[dict[str, int]]:
    """The server within a running event loop; yields its ports (otlp_http, otlp_grpc, clickhouse, health, metrics)."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_sole_owner(home))
        laps = Laps()
        engine, policy = await asyncio.to_thread(_open_store, home, settings, laps)
        engine.crashed = partial(_begin_anew, home, time.monotonic())
        stack.callback(engine.close)
        counters = Counters()
        largest = settings.max_request_mib << 20
        intake = Intake(engine, counters, settings.max_queued_mib << 20, Journal(home.store / "journal"), memory_for(largest))
        stack.push_async_callback(intake.close)
        intake.begin_warming()
        laps.done("statements")
        upkeep = Upkeep(engine, intake)
        stack.push_async_callback(upkeep.close)
        keeper = PolicyKeeper(engine, home, intake, policy, upkeep.working)
        stack.push_async_callback(keeper.close)
        observer = health.Observer(engine, home.store, intake, counters, keeper)
        stack.push_async_callback(observer.close)
        await intake.begin_settling(SETTLE_AT_START_S)
        laps.done("journal")
        access = Access(
            home.secret(WRITER), home.secret(READER), settings.anonymous_reads, settings.query_timeout_s, settings.query_memory_mib
        )

        applications = {
            "otlp_http": (otlp_http.application(intake, largest), settings.otlp_http_port),
            "clickhouse": (clickhouse_http.application(engine, access, intake), settings.clickhouse_port),
            "health": (health.health_application(observer), settings.health_port),
            "metrics": (health.metrics_application(observer), settings.metrics_port),
        }
        ports = {name: await _listen(stack, app, settings, port) for name, (app, port) in applications.items()}
        try:
            grpc_server, ports["otlp_grpc"] = await otlp_grpc.start(
                intake, settings.bind, settings.otlp_grpc_port, largest, settings.other_users
            )
        except StoreBusy:
            port = settings.otlp_grpc_port
            error = refusal(settings.bind, port) or OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))  # gRPC does not say which
            raise _not_listening(error, settings.bind, port) from None
        stack.push_async_callback(grpc_server.stop, CLOSE_CONNECTIONS_S)
        laps.done("listeners")
        await upkeep.start()
        laps.done("attribution")
        await keeper.start()
        presence = Presence(engine, home.secret("server_id")[:16])
        stack.push_async_callback(presence.close)
        await presence.start()

        state = {"pid": os.getpid(), "version": __version__, "build": resources.build(), "started_at": time.time()}
        state |= {"bind": settings.bind, "ports": ports}
        home.write_atomically(home.server_file, json.dumps(state))
        stack.callback(home.server_file.unlink, missing_ok=True)
        laps.done("presence")
        log.info("serving %s on %s, after %s", home.path, ", ".join(f"{name} {port}" for name, port in ports.items()), laps)
        yield ports


def _open_store(home: Home, settings: Settings, laps: Laps) -> tuple[Engine, Policy]:
    """The engine over the store as this version has it, and the policy that is in force there."""
    engine = Engine(home.store, home.path / "engine", home.backups)
    laps.done("engine")
    try:
        with engine.handle() as handle:
            policy = own.load(home.path, settings.privacy_level, handle.query)
            laps.done("policy")
            applied = schema.migrate(handle, privacy=sql.render(policy))
            privacy.enforce(handle, policy)
            laps.done("schema")
            if applied:
                log.info("schema: applied %s", ", ".join(applied))
            try:
                prices.load(handle, prices.own_file(home.path, settings.prices))
            except UsageError as error:  # to receive what is sent matters more
                log.error("prices: %s %s", error, error.hint)
            laps.done("prices")
            maintenance.apply_retention(handle, dict(settings.values))
            laps.done("retention")
    except BaseException:
        engine.close()
        raise
    return engine, policy


def _begin_anew(home: Home, started: float) -> None:
    """The engine has crashed, and this process with it, though it still listens. Another program takes its place, under the same number:
    the kernel lets go of all that it holds. What was acknowledged is in the store or in the journal."""
    log.critical("The engine has crashed. The server begins anew.")
    home.server_file.unlink(missing_ok=True)
    if time.monotonic() - started < CRASHED_AGAIN_S:
        os._exit(os.EX_SOFTWARE)
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            os.set_inheritable(int(name), int(name) < 3)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _uncaught(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody caught in the event loop. Without free file descriptors each listener says so a hundred times a second."""
    error = context.get("exception")
    if context.get("message") == "socket.accept() out of system resource":
        listener.log.warning("New connections wait: %s", trouble.of_error(context["exception"]))  # which says each thing seldom
    elif isinstance(context.get("protocol"), listener.Connection) and error:  # with what it has sent
        listener.log.error(context["message"], exc_info=error)
    else:
        loop.default_exception_handler(context)


def _taken(lock: IO[str]) -> bool:
    """Whether the lock is ours now. Not at once: who only asks whether a server runs (service.is_held) holds it for a moment too."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        time.sleep(0.01)
        return False
    return True


@contextlib.contextmanager
def _sole_owner(home: Home):
    """Hold the home's lock. The kernel lets go of it when this process ends, however it ends."""
    os.umask(0o077)  # the store and its backups hold the salt of all hashes
    home.make()
    with open(home.path / "server.lock", "a+") as lock:
        if not any(_taken(lock) for _ in range(LOCK_TRIES)):
            lock.seek(0)
            raise StoreBusy(
                f"{home.path} is served by process {lock.read().strip() or '?'} already.",
                "`sp-telemetry status` shows it, `sp-telemetry down` ends it.",
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


async def _listen(stack: contextlib.AsyncExitStack, app: web.Application, settings: Settings, port: int) -> int:
    app.middlewares.extend([listener.busy, guard.guard((settings.bind,))])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_CONNECTIONS_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        listening = await listener.listen(runner, settings.bind, port, settings.other_users)
    except OSError as error:
        raise _not_listening(error, settings.bind, port) from None
    stack.callback(listening.close)
    return listening.sockets[0].getsockname()[1]


def _not_listening(error: OSError, bind: str, port: int) -> SpTelemetryError:
    kind, mend = (StoreBusy, "End that program") if is_taken(error) else (UsageError, "Mend the setting bind")
    return kind(sentence(error, bind, port), f"{mend}, or choose another port in config.toml (see `sp-telemetry serve --help`).")
