"""A real `sp-telemetry serve` in a scratch home on free ports, and what it costs the machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[2]
READY_S, END_S = 120, 900
TICKS = os.sysconf("SC_CLK_TCK")
SETTINGS = {
    f"SP_TELEMETRY_{name}": "0"
    for name in (
        "OTLP_HTTP_PORT",
        "OTLP_GRPC_PORT",
        "CLICKHOUSE_PORT",
        "HEALTH_PORT",
        "METRICS_PORT",
        "RETENTION_EVENTS_DAYS",
        "RETENTION_SESSIONS_DAYS",
    )
} | {"SP_TELEMETRY_URL": "", "SP_TELEMETRY_BIND": "127.0.0.1", "SP_TELEMETRY_TIMEZONE": "UTC"}


def environment(home: Path, checkout: Path = ROOT) -> dict[str, str]:
    """What a process of sp-telemetry over `home` needs: the sources of `checkout`, ports that are free, no retention."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # nobody compiles it all each time
    return {**inherited, **SETTINGS, "SP_TELEMETRY_HOME": str(home), "PYTHONPATH": str(checkout / "src")}


@dataclass(frozen=True)
class Cost:
    """What a process has used so far (`cpu_s`) and holds now."""

    cpu_s: float
    rss_mib: float
    peak_rss_mib: float
    pss_mib: float


def cost(pid: int) -> Cost:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    rollup = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    mib = [int(text.split()[0]) / 1024 for text in (status["VmRSS"], status["VmHWM"], rollup["Pss"])]
    return Cost((int(fields[11]) + int(fields[12])) / TICKS, *mib)


def waits(pid: int) -> int:
    """How often the threads that it has now have gone to sleep."""
    statuses = (task / "status" for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(int(status.read_text().rpartition("nonvoluntary")[0].rpartition("voluntary_ctxt_switches:")[2]) for status in statuses)


class Refused(Exception):
    """The ClickHouse interface answered with an error."""


class Server:
    """A running server. `sql` and its kin ask its ClickHouse interface over one kept connection."""

    def __init__(self, home: Path, process: subprocess.Popen, started_s: float) -> None:
        self.home, self.process, self.started_s = home, process, started_s
        self.ports: dict[str, int] = json.loads((home / "server.json").read_text())["ports"]
        self._connection = http.client.HTTPConnection("127.0.0.1", self.ports["clickhouse"], timeout=3600)

    def cost(self) -> Cost:
        return cost(self.process.pid)

    def password(self, user: str) -> str:
        return (self.home / "secrets" / user).read_text().strip()

    def ask(self, sql: str, parameters: dict[str, Any] | None = None, format: str = "TabSeparated", user: str = "telemetry_user") -> bytes:
        asked = {"default_format": format} | {f"param_{name}": str(value) for name, value in (parameters or {}).items()}
        headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": self.password(user)}
        for attempt in (1, 2):
            try:
                self._connection.request("POST", f"/?{urlencode(asked)}", sql.encode(), headers)
                answer = self._connection.getresponse()
                text = answer.read()
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):  # kept too long
                self._connection.close()
                if attempt == 2:
                    raise
        if answer.status != 200:
            raise Refused(text.decode(errors="replace")[:2000])
        return text

    def number(self, sql: str) -> int:
        return int(self.ask(sql) or 0)

    def close(self) -> float:
        """End it as a service manager would; returns how long that took. Raises when it does not end, after killing it."""
        self._connection.close()
        begun = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        return time.monotonic() - begun


def start(home: Path, checkout: Path = ROOT, more: dict[str, str] | None = None) -> Server:
    """Start the server of `home`, with `more` in its environment; returns when its health check answers."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "server.json").unlink(missing_ok=True)
    begun = time.monotonic()
    with open(home / "serve.err", "ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "sp_telemetry.cli.main", "serve"],
            env=environment(home, checkout) | (more or {}),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    while time.monotonic() < begun + READY_S:
        if process.poll() is not None:
            raise SystemExit(f"the server did not start:\n{(home / 'serve.err').read_text()[-2000:]}")
        with contextlib.suppress(OSError, ValueError):
            port = json.loads((home / "server.json").read_text())["ports"]["health"]
            health = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            health.request("GET", "/")
            if health.getresponse().status == 200:
                health.close()
                return Server(home, process, time.monotonic() - begun)
        time.sleep(0.005)
    process.kill()
    raise SystemExit(f"the server was not ready after {READY_S} s")


@contextlib.contextmanager
def running(home: Path | None = None, checkout: Path = ROOT, more: dict[str, str] | None = None) -> Iterator[Server]:
    """A server over `home`, or over a scratch home that is removed afterwards."""
    scratch = None if home else Path(tempfile.mkdtemp(prefix="sp-telemetry-bench-"))
    try:
        server = start(home or scratch / "home", checkout, more)
        try:
            yield server
        finally:
            server.close()
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def machine() -> dict[str, Any]:
    """What kind of machine this is; nothing that names it."""
    memory = int(next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")).split()[1]) / (
        1 << 20
    )
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )

    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "processor": model,
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d"),
        "load": round(os.getloadavg()[0], 1),
    }


def table(title: str, heads: list[str], rows: list[list[str]]) -> None:
    """Print a table: the first column to the left, all others to the right."""
    widths = [max(len(str(row[i])) for row in [heads, *rows]) for i in range(len(heads))]
    print(f"\n{title}\n")
    for row in [heads, *rows]:
        print(
            "  ".join(
                str(cell).ljust(width) if i == 0 else str(cell).rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        )
    sys.stdout.flush()


def write(path: str | None, kind: str, figures: dict[str, Any]) -> None:
    """With --json: the figures with the machine and the command that made them, for report.py."""
    if path:
        words = [word for word in sys.argv[1:] if word not in (path, "--json")]
        words = ["DIR" if before in ("--cache", "--checkout") else word for before, word in zip(["", *words], words, strict=False)]
        command = shlex.join(["python", f"tests/bench/{Path(sys.argv[0]).name}", *words])
        Path(path).write_text(json.dumps({"kind": kind, "command": command, "machine": machine(), **figures}, indent=1) + "\n")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))] if values else float("nan")
