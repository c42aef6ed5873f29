"""The server shape as a background service: Docker Compose runs it from a folder of the home, as a person could by hand there.

    <home>/compose/   docker-compose.yml and what it mounts, copied from the package so that an update of that never pulls a file away
                      from under a container; .env (0600), whose other lines are the person's; privacy.yaml, the policy as it is
    <home>/secrets/   the passwords and the salt; .env only names the folder
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sp_telemetry import resources
from sp_telemetry.errors import ServerUnreachable, SpTelemetryError
from sp_telemetry.home import READER, WRITER, Home
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.settings import Settings, reached_at
from sp_telemetry.setup import env_file, listeners
from sp_telemetry.store import tightening
from sp_telemetry.store.client import Client, Statements, connect

FOLDER, SALT = "compose", "telemetry_salt"
SHIPPED = (
    "docker-compose.yml", "prepare.sh", ".env.template", "clickhouse/config/config.xml", "clickhouse/config/users.xml",
    "otel-collector/config.yaml", "otel-collector/reserve.sh",
)  # fmt: skip
#: variable of .env -> setting
PORTS = {
    "OTLP_GRPC_PORT": "otlp_grpc_port", "OTLP_HTTP_PORT": "otlp_http_port", "CLICKHOUSE_PORT": "clickhouse_port",
    "CLICKHOUSE_NATIVE_PORT": "clickhouse_native_port", "METRICS_PORT": "metrics_port", "HEALTH_PORT": "health_port",
    "PROMETHEUS_PORT": "prometheus_port",
}  # fmt: skip
SERVICES = ("clickhouse", "collector")
OLDEST_COMPOSE = (2, 20)
START_S, READY_S, MIGRATE_S, COMMAND_S = 300, 60, 600, 120
UP = "`sp-telemetry up` starts it; `sp-telemetry logs` shows what it says."


def version() -> str:
    """Docker's and Compose's. Raises SpTelemetryError where one is missing, too old, or does not answer."""
    if not shutil.which("docker"):
        raise SpTelemetryError("There is no `docker` on PATH.", "Install Docker, or use the embedded server: `sp-telemetry setup`.")
    engine = _run(["docker", "version", "--format", "{{.Server.Version}}"], None)
    if engine.returncode:
        raise SpTelemetryError(f"Docker does not answer: {_last_line(engine.stderr)}", "Start it, and see that you may use it.")
    plugin = _run(["docker", "compose", "version", "--short"], None)
    found = re.match(r"v?(\d+)\.(\d+)", plugin.stdout.strip())
    if plugin.returncode or not found:
        raise SpTelemetryError("Docker has no Compose plugin.", "Install docker-compose-plugin, at least version 2.20.")
    if (int(found[1]), int(found[2])) < OLDEST_COMPOSE:
        raise SpTelemetryError(f"Compose is version {plugin.stdout.strip()}.", "Version 2.20 is the oldest that this stack works with.")
    return f"Docker {engine.stdout.strip()}, Compose {plugin.stdout.strip()}"


def folder(home: Home) -> Path:
    return home.path / FOLDER


def is_up(home: Home) -> bool:
    """Whether containers of the stack run, healthy or not."""
    return any(one["State"] == "running" for one in _containers(home))


def state(home: Home) -> dict[str, Any] | None:
    """bind, ports, started_at, version and health, as `service.Running` has them; None where no container runs. Raises where Docker
    does not answer."""
    found = {one["Service"]: one for one in _containers(home)}
    if not any(one["State"] == "running" for one in found.values()):
        return None
    environ = read_env(home)
    started = [one["CreatedAt"] for name, one in found.items() if name in SERVICES]
    health: dict[str, Any] = {"status": "Server available"}
    # Asked themselves: what Docker knows of their health is some seconds old.
    asked = {"clickhouse": ("clickhouse", "ping"), "collector": ("health", "")}
    ports = {setting.removesuffix("_port"): int(environ[name]) for name, setting in PORTS.items() if environ.get(name)}
    bind = environ.get("TELEMETRY_BIND", "127.0.0.1")
    wrong = [f"{name} {_condition(found.get(name))}" for name in asked if _condition(found.get(name)) != "running"]
    if not wrong:
        wrong = [f"{name} does not answer" for name, (port, path) in asked.items() if not _answers(f"http://{reached_at(bind)}:{ports[port]}/{path}")]
    if wrong:
        health = {"status": "Server not available", "reason": f"{', '.join(wrong)}.", "mend": "sp-telemetry logs; sp-telemetry restart"}
    return {
        "pid": 0,
        "bind": bind,
        "ports": ports,
        "started_at": min(map(_moment, started)),
        "version": ", ".join(found[name]["Image"] for name in ("collector", "clickhouse") if name in found),
        "health": health,
    }


def up(home: Home, environ: Mapping[str, str] = os.environ) -> bool:
    """Start the stack, or bring it to what the settings say, make or update the schema, and wait until all is healthy. Whether it did
    not run before."""
    version()
    started = not is_up(home)
    settings = Settings.load(home.path, environ)
    prepare(home, settings)
    arguments = ("up", "--detach", "--wait", "--wait-timeout", str(START_S), "--remove-orphans", "--quiet-pull")
    # The store first, and its tables: the collector's exporter looks at them when it starts.
    _compose(home, *arguments, "clickhouse", timeout=START_S + 60)
    migrate(home, settings)
    _compose(home, *arguments, timeout=START_S + 60)
    deadline = time.monotonic() + READY_S  # Docker may still take something for healthy that was, before it was started again
    while (said := state(home)) is None or "reason" in said["health"]:
        if time.monotonic() > deadline:
            raise ServerUnreachable(f"The stack is not ready: {said['health']['reason'] if said else 'it has ended.'}", UP)
        time.sleep(0.5)
    return started


def prepare(home: Home, settings: Settings) -> None:
    """Write what the stack is run from, where it is not there already as it should be."""
    from sp_telemetry.privacy import collector, own

    home.make()
    for name in (WRITER, READER, SALT):
        home.secret(name)
    texts = {name: resources.path(f"telemetry-server/{name}").read_text("utf-8") for name in SHIPPED}
    texts["privacy.yaml"] = collector.render(own.read(home.path / own.NAME).policy(settings.privacy_level))
    place = folder(home)
    place.mkdir(mode=0o700, exist_ok=True)
    for name, text in texts.items():
        file = place / name
        if not file.exists() or file.read_text("utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            home.write_atomically(file, text, mode=0o644)  # containers read them as users of their own; the home keeps others out
    of_clickhouse = {name: text for name, text in texts.items() if name.startswith("clickhouse/")}
    of_collector = {name: text for name, text in texts.items() if name.startswith(("otel-collector/", "privacy"))}
    mine = {
        "TELEMETRY_BIND": settings.bind,
        "TELEMETRY_SECRETS": str(home.path / "secrets"),
        "TELEMETRY_PRIVACY": "./privacy.yaml",
        "CLICKHOUSE_CONFIGURATION": _checksum(of_clickhouse),
        "COLLECTOR_CONFIGURATION": _checksum(of_collector),
    }
    mine |= {name: str(settings.values[setting]) for name, setting in PORTS.items()}
    present = (place / ".env").read_text("utf-8") if (place / ".env").exists() else ""
    text = env_file.merged(texts[".env.template"], present, mine)
    if text != present:
        home.write_atomically(place / ".env", text)


def _checksum(texts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]


def read_env(home: Home) -> dict[str, str]:
    """What .env says; nothing where there is none."""
    file = folder(home) / ".env"
    return env_file.values(file.read_text("utf-8")) if file.exists() else {}


def migrate(home: Home, settings: Settings) -> list[str]:
    """Bring the stack's store to this version's shape. What was applied."""
    from sp_telemetry.store import server

    runner = Statements(writer(home, settings))
    applied = server.migrate(runner, home, settings, home.secret(SALT))
    server.check_salt(runner, home.secret(SALT))
    return applied


def writer(home: Home, settings: Settings) -> Client:
    """A client of telemetry_user with no database chosen, and with patience for a migration."""
    local = connect(home, Settings({**settings.values, "url": ""}, settings.origins))
    return Client(local.address, WRITER, home.secret(WRITER), timeout_s=MIGRATE_S, database="")


def not_yet(home: Home, policy: Policy) -> dict[str, int]:
    """Rows by table that `policy`, which is in force, would keep otherwise than they are stored."""
    return tightening.pending(Statements(writer(home, home.settings())), policy)


def tighten(home: Home, policy: Policy) -> dict[str, int]:
    """Bring what is stored down to `policy`, which is in force, for good. Rows by table."""
    return tightening.tighten(Statements(writer(home, home.settings())), policy)


def down(home: Home, volumes: bool = False) -> bool:
    """Stop the stack; whether there was one. `volumes`: and forget all data, queued ones too."""
    if not (folder(home) / "docker-compose.yml").exists():
        return False
    there = bool(_containers(home))
    _compose(home, "down", *(("--volumes",) if volumes else ()), timeout=180)
    return there


def tail(home: Home, lines: int) -> list[str]:
    """The last lines of each service's log."""
    if not (folder(home) / "docker-compose.yml").exists():
        return []
    return _compose(home, "logs", "--no-color", "--tail", str(lines)).stdout.splitlines()


def follow(home: Home, lines: int) -> int:
    """Show the logs, and go on until Ctrl-C."""
    return subprocess.call(["docker", "compose", "logs", "--tail", str(lines), "--follow"], cwd=folder(home))


def _containers(home: Home) -> list[dict[str, Any]]:
    if not (folder(home) / "docker-compose.yml").exists():
        return []
    said = _compose(home, "ps", "--all", "--no-trunc", "--format", "json").stdout
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def _condition(container: Mapping[str, Any] | None) -> str:
    """running, restarting, exited, …; missing where there is no container."""
    return "missing" if container is None else container["State"]


def _answers(url: str) -> bool:
    try:
        with listeners.ask(url, 5):
            return True
    except (OSError, http.client.HTTPException):
        return False


def _moment(text: str) -> float:
    """Epoch seconds of `2026-11-23 11:34:55 +0000 UTC`."""
    try:
        return datetime.strptime(text.rpartition(" ")[0], "%Y-%m-%d %H:%M:%S %z").timestamp()
    except ValueError:
        return time.time()


def _compose(home: Home, *arguments: str, timeout: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
    """`docker compose …` in the stack's folder. Raises SpTelemetryError with what it said last."""
    if not shutil.which("docker"):
        raise ServerUnreachable("There is no `docker` on PATH, and the stack is Docker's.", "Install Docker.")
    done = _run(["docker", "compose", "--progress", "quiet", *arguments], folder(home), timeout)
    if done.returncode:
        doing = f"docker compose {arguments[0]}"
        raise SpTelemetryError(f"`{doing}` failed: {_last_line(done.stderr)}", f"`cd {folder(home)} && {doing}` shows all it says. {UP}")
    return done


def _run(command: list[str], where: Path | None, timeout: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
    # What .env says counts: nothing of the same name in the shell.
    told = env_file.values(resources.path("telemetry-server/.env.template").read_text("utf-8"))
    environ = {name: value for name, value in os.environ.items() if name not in told and not name.startswith("COMPOSE_")}
    try:
        return subprocess.run(command, cwd=where, env=environ, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise ServerUnreachable(f"`{' '.join(command[:3])} …` did not end within {timeout:.0f} s.", UP) from None


def _last_line(text: str) -> str:
    return next((line.strip()[:300] for line in reversed(text.splitlines()) if line.strip()), "it says nothing.")
