"""Does what a plan says, in an order in which each end leaves something that works and can be run again.

Server and proof come before Claude Code's settings: nothing points at a server that does not answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sp_telemetry.errors import SpTelemetryError, StoreBusy
from sp_telemetry.home import READER, WRITER, Home
from sp_telemetry.setup import bare_names, claude_settings, configuration, service, verify
from sp_telemetry.setup.onboarding import Plan

NEXT = (
    "Restart Claude Code: it reads these settings once, at its start.",
    "From then on each session is stored on this machine, and nowhere else.",
    "In a session /telemetry-report cost answers; in a terminal `sp-telemetry report cost` does.",
    "`sp-telemetry doctor` says what is wrong if nothing arrives; `sp-telemetry uninstall` takes everything back.",
)


def install(
    home: Home, made: Plan, environ: Mapping[str, str] = os.environ, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Carry `made` out and prove it. `say` is told each step. Raises at the first that fails; then it can be run again."""
    begun = time.monotonic()
    home.make()
    with _alone(home):
        home.secret(WRITER), home.secret(READER)
        if made.backend != service.backend(home) and service.down(home):
            say("Stopped the server that ran until now …")
        configuration.save(home, made.config)
        composed = made.backend == service.COMPOSE
        say("Starting the containers; the first time their images are pulled …" if composed else "Starting the server …")
        server, started = service.up(home, environ)
        if not started and _moved(home, server):
            say("Restarting the server on its new ports …")
            service.down(home)
            server, started = service.up(home, environ)
        say("Sending an event and reading it back …")
        proof = verify.send_and_read_back(home, made.endpoint, made.person)
        if proof.person != made.person:
            what = f"The store has the test event under {proof.person!r}, not {made.person!r}."
            raise SpTelemetryError(what, "Choose another name: `--person NAME`.")
        written = claude_settings.apply(home, Path(made.settings_file), {change.variable: change.after for change in made.changes})
        say(f"{'Wrote' if written else 'Nothing to change in'} {made.settings_file}")
        commands = _bare_names(home, made, environ)
        for file in commands:
            say(f"Wrote {file}")
    return {
        "server": {"endpoint": made.endpoint, "backend": made.backend, "pid": server.pid, "ports": server.ports, "started": started},
        "verified": {"event_id": proof.event_id, "person": proof.person, "seconds": round(proof.sent_s + proof.read_s, 3)},
        "settings_written": written,
        "commands_written": commands,
        "seconds": round(time.monotonic() - begun, 2),
        "next": list(NEXT),
    }


def _moved(home: Home, server: service.Running) -> bool:
    wanted = {name: home.settings().values[f"{name}_port"] for name in server.ports}
    return any(port and port != server.ports[name] for name, port in wanted.items())


def _bare_names(home: Home, made: Plan, environ: Mapping[str, str]) -> list[str]:
    if made.put_bare_names is False:
        bare_names.take_away(home)
        return []
    chosen = [one for one in made.bare_names if made.put_bare_names or one.state == bare_names.OURS]
    return bare_names.put(home, environ, chosen)


@contextmanager
def _alone(home: Home):
    """Two set-ups at once would each write a note of the other's work."""
    try:
        import fcntl
    except ImportError:  # Windows, where containers serve
        yield
        return
    with open(home.path / "setup.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreBusy(f"Another set-up of {home.path} is under way.", "Wait until it has ended.") from None
        yield
