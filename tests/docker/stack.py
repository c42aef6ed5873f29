"""The shipped stack on the tests' own Docker Engine, on free ports: what its tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docker.engine import Engine
from tests.ports import free_ports

PORTS = ("OTLP_GRPC", "OTLP_HTTP", "CLICKHOUSE", "CLICKHOUSE_NATIVE", "METRICS", "HEALTH", "PROMETHEUS")
SERVICES = ("clickhouse", "collector", "probe")


class Stack:
    """A person with a home of sp-telemetry's and one of Claude Code's, who uses the command line on this engine."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.home, self.user = folder / "sp home", folder / "user"
        self.user.mkdir(parents=True)
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("SP_TELEMETRY_", "CLAUDE", "OTEL_"))},
            **engine.environ,
            **{f"SP_TELEMETRY_{name}_PORT": str(port) for name, port in self.ports.items()},
            "SP_TELEMETRY_HOME": str(self.home),
            "HOME": str(self.user),
            "CLAUDE_CONFIG_DIR": str(self.user / ".claude"),
        }

    def command(self, *arguments: str, code: int | tuple[int, ...] = 0, timeout: float = 240) -> str:
        """What the command prints; it has to end with `code`, or one of these."""
        done = subprocess.run(
            [sys.executable, "-m", "sp_telemetry.cli.main", *arguments],
            env=self.environ, cwd=self.user, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode in (code if isinstance(code, tuple) else (code,)), (
            f"{arguments}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{self._said()}"
        )
        return done.stdout

    def _said(self) -> str:
        names = self.engine.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()
        return "\n".join(f"{name}: {self.engine.docker('logs', '--tail', '15', name, check=False)}" for name in names)

    def asked(self, *arguments: str, code: int | tuple[int, ...] = 0) -> dict[str, Any]:
        return json.loads(self.command(*arguments, "--json", code=code))

    def sql(self, statement: str) -> list[list[str]]:
        return [line.split("\t") for line in self.command("sql", statement, "--format", "TabSeparated").splitlines()]

    def container(self, service: str) -> dict[str, Any]:
        return self.engine.inspect("container", f"sp-telemetry-{service}-1")

    def volumes(self) -> set[str]:
        return set(self.engine.docker("volume", "ls", "--format", "{{.Name}}").stdout.split())
