"""The server of a home: start, stop, ask. The setting `backend` picks: the embedded one is a background process of ours, that of
Docker Compose (compose.py) is its containers.

Whether an embedded one runs is decided by the lock that it holds on its home, never by a pid in a file: the kernel lets go of the lock
when the process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sp_telemetry import __version__, resources
from sp_telemetry.errors import ServerUnreachable, SpTelemetryError, StoreBusy, UsageError
from sp_telemetry.home import Home
from sp_telemetry.settings import Settings, reached_at
from sp_telemetry.setup import compose, listeners
from sp_telemetry.store import room

try:
    import fcntl
except ImportError:  # Windows, where no engine runs and so nobody holds a home
    LOCKS = False
else:
    LOCKS = True

EMBEDDED, COMPOSE = "embedded", "compose"
START_S = 60
STOP_S = 60
POLL_S = 0.02
LOG_BYTES, LOG_FILES = 5 << 20, 3
OURS, SENTENCE = "sp-telemetry: ", 300  # what begins what `cli` says of a failure, and how much of it is passed on


@dataclass(frozen=True)
class Running:
    """A server that answers: what its state file says, and what its health check does."""

    pid: int
    ports: dict[str, int]
    bind: str
    started_at: float
    version: str
    health: dict[str, Any]
    backend: str = EMBEDDED
    build: str = ""

    @property
    def address(self) -> str:
        """Where programs of this machine reach it."""
        return reached_at(self.bind)

    @property
    def who(self) -> str:
        return f"pid {self.pid}, version {self.version}" if self.backend == EMBEDDED else f"Compose: {self.version}"

    @property
    def is_outdated(self) -> bool:
        """Whether it runs other sources than ours, and not those of a later version: who updates the plugin has the old server still."""
        return self.backend == EMBEDDED and self.build != resources.build() and _numbers(self.version) <= _numbers(__version__)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def backend(home: Home, environ: Mapping[str, str] = os.environ) -> str:
    """EMBEDDED or COMPOSE."""
    return Settings.load(home.path, environ).backend


def is_up(home: Home) -> bool:
    """Whether a server of `home` runs, ready or not."""
    return compose.is_up(home) if backend(home) == COMPOSE else is_held(home)


def is_held(home: Home) -> bool:
    """Whether an embedded server, ready or still starting, serves `home`."""
    if not LOCKS:
        return False
    try:
        with open(home.path / "server.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def need_engine() -> None:
    """Raise UsageError on a platform that has no embedded server."""
    if not LOCKS:
        what = "The embedded server does not run here: the database engine has no build for Windows."
        raise UsageError(what, "Run it in WSL or on another machine, and name that server's ClickHouse address in SP_TELEMETRY_URL.")


def running(home: Home) -> Running | None:
    """The server of `home`, or None when there is none. Raises ServerUnreachable when one is there and does not answer."""
    if backend(home) == COMPOSE:
        found = compose.state(home)
        return Running(backend=COMPOSE, **found) if found else None
    if not is_held(home):
        return None
    state = home.server()
    if state is None:
        raise ServerUnreachable(
            f"The server of {home.path} is starting, or ending.", "Try again in a few seconds; `sp-telemetry logs` shows what it does."
        )
    url = f"http://{reached_at(state['bind'])}:{state['ports']['health']}/"
    try:
        with listeners.ask(url, 5) as answer:
            health = json.load(answer)
    except urllib.error.HTTPError as error:
        health = json.load(error)
    except OSError as error:
        full = _too_many_files(state["pid"])
        more = "`ulimit -n` before that lets it open more" if full else "`sp-telemetry logs` shows why"
        raise ServerUnreachable(
            f"The server (pid {state['pid']}) does not answer at {url}: {full or error}.", f"`sp-telemetry restart` starts it anew; {more}."
        ) from None
    told = {name: state[name] for name in ("pid", "ports", "bind", "started_at", "version")}
    return Running(health=health, build=state.get("build", ""), **told)


def _too_many_files(pid: int) -> str:
    """That it can open no more, so that it accepts no connection and can't say so itself; '' where that isn't so, or isn't known."""
    process = Path("/proc", str(pid))
    try:
        limit = re.search(r"^Max open files +(\d+)", (process / "limits").read_text(), re.MULTILINE)
        held = len(os.listdir(process / "fd"))
    except OSError:
        return ""
    return f"it has {held} files open and may have {limit[1]}" if limit and held >= int(limit[1]) else ""


def settled(home: Home) -> Running | None:
    """As `running`, but a server that is starting or ending is waited for: a session, or another set-up, may just have begun it."""
    if backend(home) != COMPOSE and is_held(home) and home.server() is None:
        return _wait_ready(home, None)
    return running(home)


def up(home: Home, environ: Mapping[str, str] = os.environ) -> tuple[Running, bool]:
    """Start the server of `home` unless it runs, and wait until it is ready: (it, whether it was started now). One of an older version
    is ended first."""
    if backend(home, environ) == COMPOSE:
        started = compose.up(home, environ)
        return Running(backend=COMPOSE, **(compose.state(home) or {})), started
    need_engine()
    if is_held(home):
        found = _wait_ready(home, None)
        if found and not found.is_outdated:
            return found, False
        if found:
            _end(home, found.pid)
            return up(home, environ)  # somebody else may have seen it too, and have started another one by now
    home.make()
    home.server_file.unlink(missing_ok=True)
    with open(home.logs / "server.err", "ab") as errors:
        said_before = errors.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "sp_telemetry.cli.main", "serve", "--log-file", str(home.logs / "server.log")],
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
            cwd=home.path,
            env={**environ, "SP_TELEMETRY_HOME": str(home.path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    found = _wait_ready(home, process, said_before)
    return found or up(home, environ)[0], True


def down(home: Home) -> bool:
    """Stop the server and wait until it has ended; False when none ran."""
    if backend(home) == COMPOSE:
        return compose.down(home)
    if not is_held(home):
        return False
    deadline = time.monotonic() + STOP_S
    while not (pid := int((home.path / "server.lock").read_text("utf-8") or 0)):  # it has taken the lock and not yet said who it is
        if not is_held(home):
            return True
        if time.monotonic() > deadline:
            raise SpTelemetryError(f"Nobody says who holds {home.path / 'server.lock'}.")
        time.sleep(POLL_S)
    _end(home, pid)
    return True


def _end(home: Home, pid: int) -> None:
    """Stop the server that is process `pid`, and no other that holds the home by now."""
    deadline = time.monotonic() + STOP_S
    lock = home.path / "server.lock"
    if lock.read_text("utf-8") == str(pid):
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(pid, signal.SIGTERM)
    while is_held(home) and lock.read_text("utf-8") == str(pid):
        if time.monotonic() > deadline:
            raise SpTelemetryError(
                f"Process {pid} did not end within {STOP_S} s.", f"`kill -9 {pid}` ends it; what it acknowledged is safe."
            )
        time.sleep(POLL_S)


def tail(home: Home, lines: int) -> list[str]:
    """The last lines of the server's log, with what it could not log itself (a crash) after them."""
    if backend(home) == COMPOSE:
        return compose.tail(home, lines)
    found: list[str] = []
    for name in ("server.log", "server.err"):
        try:
            with open(home.logs / name, encoding="utf-8", errors="replace") as log:
                found.extend(line.rstrip("\n") for line in deque(log, min(lines, sys.maxsize)))
        except FileNotFoundError:
            pass
    return found[-lines:]


def _not_started(home: Home, code: int, said_before: int) -> SpTelemetryError:
    """The last that it said in this start, in a sentence, and where the whole is."""
    with open(home.logs / "server.err", encoding="utf-8", errors="replace") as errors:
        errors.seek(said_before)
        lines = [line.strip() for line in errors if line.strip()]
    ours = [number for number, line in enumerate(lines) if line.startswith(OURS)]
    said = lines[ours[-1] :] if ours else lines[-1:]
    what = said[0].removeprefix(OURS)[:SENTENCE] if said else f"it ended with exit code {code}."
    if not said and room.is_full(home.path):  # it could not even write that
        what = f"the disk of {home.path} is full."
    mend = f"{said[1][:SENTENCE]} " if len(said) > 1 else ""
    kind = {kind.exit_code: kind for kind in (UsageError, StoreBusy)}.get(code, SpTelemetryError)
    return kind(f"The server did not start: {what}", f"{mend}More is in {home.logs}: server.log, server.err.")


def _wait_ready(home: Home, process: subprocess.Popen | None, said_before: int = 0) -> Running | None:
    """The server when it is ready; None when somebody else's, which was waited for, has ended instead."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            if is_held(home):  # somebody else's was faster: theirs is as good
                process = None
                continue
            raise _not_started(home, process.returncode, said_before)
        if home.server_file.exists():
            try:
                found = running(home)
            except ServerUnreachable:
                found = None
            if found:
                return found
        if process is None and not is_held(home):
            return None
        time.sleep(POLL_S)
    raise ServerUnreachable(f"The server is not ready after {START_S} s.", "`sp-telemetry logs` shows what it does.")
