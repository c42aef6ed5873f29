"""Ingest through the real sockets of a real `sp-telemetry serve`, and beside rotel in the same run.

    python tests/bench/bench_ingest.py [--quick] [--json FILE] [--only NAME …] [--checkout DIR] [--no-rotel]

Each row: requests of so many events over so many kept connections, as fast as they are answered. An answer means committed; after each
row the store is asked for the distinct events that it holds of it, so `lost` counts what was acknowledged and is not there. Server and
load generator share the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import generate
import server as servers


@dataclass(frozen=True)
class Shape:
    """`events` a request over `connections`. `pace`: requests a second, 0 for as fast as can be."""

    name: str
    events: int
    connections: int
    most: int  # requests made beforehand
    pace: float = 0
    grpc: bool = False
    seconds: float = 0  # of a paced shape


SHAPES = (
    Shape("1 a request, 192 connections", 1, 192, 60_000),
    Shape("10 a request, 192 connections", 10, 192, 40_000),
    Shape("100 a request, 64 connections", 100, 64, 12_000),
    Shape("100 a request, 192 connections", 100, 192, 12_000),
    Shape("1,000 a request, 16 connections", 1000, 16, 1_200),
    Shape("100 a request, 64 connections, gRPC", 100, 64, 8_000, grpc=True),
    Shape("1,000 events/s: 100 requests of 10", 10, 32, 1_500, pace=100, seconds=15),
    Shape("1,000 events/s: 10 requests of 100", 100, 16, 150, pace=10, seconds=15),
    Shape("10 events/s: 1 request of 10", 10, 2, 60, pace=1, seconds=60),
    Shape("10 events/s: 50 each 5 s", 50, 2, 12, pace=0.2, seconds=60),
)


@dataclass
class Measured:
    name: str
    events: int
    connections: int
    sent_events: int
    stored: int
    wall_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_s: float
    rss_mib: float
    peak_rss_mib: float
    generator_core: float
    bytes_an_event: float
    paced: bool
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        return self.sent_events - self.stored

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {
            "lost": self.lost,
            "events_a_second": self.sent_events / self.wall_s,
            "cpu_ms_per_1000": self.cpu_s * 1e6 / self.sent_events,
            "server_core": self.cpu_s / self.wall_s,
        }


@contextlib.contextmanager
def loaded(asked: dict[str, Any]) -> Iterator[subprocess.Popen]:
    """A load generator that is ready to start."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("load.py"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("the load generator did not get ready")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def asked(shape: Shape, port: int, run: int, seconds: float) -> dict[str, Any]:
    room = generate.LAST - generate.FIRST + 1
    sessions = max(shape.connections, -(-shape.most * shape.events // (room - shape.events)))
    return {
        "port": port,
        "events": shape.events,
        "connections": shape.connections,
        "requests": shape.most,
        "seconds": shape.seconds or seconds,
        "pace": shape.pace,
        "grpc": shape.grpc,
        "run": run,
        "sessions": sessions,
    }


def go(process: subprocess.Popen) -> dict[str, Any]:
    process.stdin.write("go\n")
    process.stdin.flush()
    text = process.stdout.readline()
    if not text:
        raise SystemExit("the load generator broke off")
    return json.loads(text)


def stored(server: servers.Server, run: int) -> int:
    """Distinct events of a run in the store, by what makes an event of the generator one."""
    return server.number(
        f"SELECT uniqExact(session_id, event_sequence) FROM telemetry.telemetry_events WHERE startsWith(session_id, '{run:08x}-')"
    )


def measure(server: servers.Server, shape: Shape, run: int, seconds: float) -> Measured:
    port = server.ports["otlp_grpc" if shape.grpc else "otlp_http"]
    with loaded(asked(shape, port, run, seconds)) as process:
        before = server.cost()
        seen = go(process)
        ended = time.monotonic()
        server.number("SELECT 1")  # the last events wait in the journal for their insert: who asks settles
        settling_s = time.monotonic() - ended
        after = server.cost()
    return Measured(
        shape.name,
        shape.events,
        shape.connections,
        seen["events"],
        stored(server, run),
        seen["wall_s"] + settling_s,
        seen["p50_ms"],
        seen["p99_ms"],
        seen["max_ms"],
        after.cpu_s - before.cpu_s,
        after.rss_mib,
        after.peak_rss_mib,
        seen["cpu_s"] / seen["wall_s"],
        seen["bytes_an_event"],
        bool(shape.pace),
        seen["statuses"],
    )


# --- rotel ---------------------------------------------------------------------------------------------------------------------------

PLAIN = "bench_logs"  # the columns that rotel sends, into a plain table: no types, no policy, no attribution
COLUMNS = """
CREATE TABLE IF NOT EXISTS telemetry.bench_logs
(
    Timestamp DateTime64(9), TraceId String, SpanId String, TraceFlags UInt8, SeverityText LowCardinality(String),
    SeverityNumber UInt8, ServiceName LowCardinality(String), Body String, ResourceSchemaUrl LowCardinality(String),
    ResourceAttributes Map(LowCardinality(String), String), ScopeSchemaUrl LowCardinality(String), ScopeName String,
    ScopeVersion LowCardinality(String), ScopeAttributes Map(LowCardinality(String), String),
    LogAttributes Map(LowCardinality(String), String)
)
ENGINE = MergeTree PARTITION BY toDate(Timestamp) ORDER BY (ServiceName, Timestamp)
"""


def agent() -> tuple[list[str], dict[str, str]] | str:
    """rotel's program and its environment, or why it can't run here."""
    program = Path(sysconfig.get_path("purelib")) / "rotel" / "rotel-agent"
    if not program.exists():
        return "not installed: pip install --no-deps -r tests/bench/requirements.txt"
    path = os.pathsep.join(filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]))
    environment = {**os.environ, "LD_LIBRARY_PATH": path}
    try:
        tried = subprocess.run([str(program), "--version"], env=environment, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it does not start: {error}"
    if tried.returncode:
        return f"it does not start: {(tried.stderr or tried.stdout).strip().splitlines()[-1][:200]}"
    return [str(program)], environment


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def rotel(server: servers.Server, prefix: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """rotel in front of the server's ClickHouse interface, writing `<prefix>_logs`; (process, port of its OTLP/HTTP)."""
    program, environment = agent()
    http_port = free_port()
    arguments = {
        "otlp-grpc-endpoint": f"127.0.0.1:{free_port()}",
        "otlp-http-endpoint": f"127.0.0.1:{http_port}",
        "exporter": "clickhouse",
        "clickhouse-exporter-endpoint": f"http://127.0.0.1:{server.ports['clickhouse']}",
        "clickhouse-exporter-database": "telemetry",
        "clickhouse-exporter-table-prefix": prefix,
        "clickhouse-exporter-user": "telemetry_user",
        "clickhouse-exporter-compression": "none",
    }
    environment |= {"ROTEL_CLICKHOUSE_EXPORTER_PASSWORD": server.password("telemetry_user")}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*program, "start", *(word for name, value in arguments.items() for word in (f"--{name}", value))],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=tempfile.gettempdir(),
        )
        try:
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", http_port), 1):
                    break
                if process.poll() is not None:
                    said.seek(0)
                    raise RuntimeError(f"rotel ended: {said.read().decode(errors='replace').strip()[-300:]}")
                time.sleep(0.05)
            yield process, http_port
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def beside(server: servers.Server, shape: Shape, run: int, target: str) -> dict[str, Any]:
    """The same load through rotel. It acknowledges before it stores, so its rate is over the time until nothing more is being stored."""
    counted = (
        f"SELECT count() FROM telemetry.{PLAIN} WHERE startsWith(LogAttributes['session.id'], '{run:08x}-')"
        if target == PLAIN
        else f"SELECT count() FROM telemetry.telemetry_events WHERE startsWith(session_id, '{run:08x}-')"
    )
    with rotel(server, target.removesuffix("_logs")) as (process, port), loaded(asked(shape, port, run, 3600)) as load:
        before, own_before = server.cost(), servers.cost(process.pid)
        begun = time.monotonic()
        seen = go(load)
        accepted_s = time.monotonic() - begun
        rows, changed = 0, time.monotonic()
        while rows < seen["events"] and time.monotonic() < changed + 20:
            time.sleep(0.05)
            found = server.number(counted)
            if found != rows:
                rows, changed = found, time.monotonic()
        spent = changed - begun
        after, own = server.cost(), servers.cost(process.pid)
    own_cpu = own.cpu_s - own_before.cpu_s
    return {
        "target": target,
        "events": shape.events,
        "connections": shape.connections,
        "sent_events": seen["events"],
        "stored": rows,
        "accepted_s": accepted_s,
        "wall_s": spent,
        "events_a_second": rows / spent,
        "cpu_ms_per_1000": (own_cpu + after.cpu_s - before.cpu_s) * 1e6 / max(rows, 1),
        "rotel_cpu_ms_per_1000": own_cpu * 1e6 / max(rows, 1),
        "rotel_peak_rss_mib": own.peak_rss_mib,
        "statuses": seen["statuses"],
    }


def compare(server: servers.Server, ours: list[Measured], quick: bool) -> list[dict[str, Any]] | str:
    usable = agent()
    if isinstance(usable, str):
        return usable
    shape = Shape("", 100, 64, 500 if quick else 4_000)
    same = next((m for m in ours if m.name == "100 a request, 64 connections"), None)
    server.ask(COLUMNS)
    found = []
    for run, target in enumerate(("otel_logs", PLAIN), 0x7000):
        try:
            one = beside(server, shape, run, target)
        except (RuntimeError, SystemExit, servers.Refused) as error:
            return f"{target}: {error}"
        one["ratio"] = same.sent_events / same.wall_s / one["events_a_second"] if same and one["events_a_second"] else None
        found.append(one)
    server.ask(f"DROP TABLE telemetry.{PLAIN}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a second of each, no shape that takes a minute")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only shapes whose name begins with one of these")
    parser.add_argument("--seconds", type=float, default=8, help="how long each shape is loaded (default 8)")
    parser.add_argument("--checkout", type=Path, default=servers.ROOT, help="measure the sources of another checkout")
    parser.add_argument("--no-rotel", action="store_true")
    args = parser.parse_args()
    shapes = [shape for shape in SHAPES if not args.only or shape.name.startswith(tuple(args.only))]
    if args.quick:
        shapes = [shape for shape in shapes if shape.seconds < 60]
    with servers.running(checkout=args.checkout) as server:
        measure(server, Shape("warm", 100, 16, 200), 0x0FFF, 2)
        measured = []
        for run, shape in enumerate(shapes, 0x1000):
            if args.quick:
                shape = Shape(
                    shape.name, shape.events, shape.connections, max(shape.most // 8, 100), shape.pace, shape.grpc, shape.seconds and 3
                )
            measured.append(measure(server, shape, run, 1.5 if args.quick else args.seconds))
            print(f"  {shape.name}: {measured[-1].as_dict()['events_a_second']:,.0f} events/s", file=sys.stderr)
        others = "left out" if args.no_rotel else compare(server, measured, args.quick)
    report(measured, others)
    rows = [m.as_dict() for m in measured]
    servers.write(args.json, "ingest", {"shapes": rows, "rotel": others})
    if any(m.lost for m in measured) or any(set(m.statuses) != {"200"} for m in measured):
        sys.exit("something that was acknowledged is missing, or something was refused")


def report(measured: list[Measured], others: list[dict[str, Any]] | str) -> None:
    rows = []
    for m in measured:
        d = m.as_dict()
        rows.append(
            [
                m.name,
                f"{d['events_a_second']:,.0f}",
                f"{m.p50_ms:.1f}",
                f"{m.p99_ms:.1f}",
                f"{d['cpu_ms_per_1000']:.0f}",
                f"{d['server_core']:.1%}",
                f"{m.rss_mib:.0f}",
                f"{m.sent_events:,}",
                m.lost,
                f"{m.generator_core:.1%}",
            ]
        )
    heads = ["events a request", "events/s", "p50 ms", "p99 ms", "CPU ms / 1,000", "of a core", "RSS MiB", "sent", "lost", "generator"]
    servers.table("Ingest, acknowledged after commit", heads, rows)
    if isinstance(others, str):
        print(f"\nrotel: {others}")
        return
    rows = [
        [
            o["target"],
            f"{o['events_a_second']:,.0f}",
            f"{o['accepted_s']:.2f}",
            f"{o['wall_s']:.2f}",
            f"{o['cpu_ms_per_1000']:.0f}",
            f"{o['rotel_peak_rss_mib']:.0f}",
            f"{o['sent_events']:,}",
            o["sent_events"] - o["stored"],
            f"{o['ratio']:.2f}" if o["ratio"] else "-",
        ]
        for o in others
    ]
    heads = [
        "rotel, 100 a request, into",
        "events/s",
        "accepted s",
        "stored s",
        "CPU ms / 1,000",
        "RSS MiB",
        "sent",
        "lost",
        "ours ÷ rotel",
    ]
    servers.table("rotel before the same ClickHouse interface (acknowledges before it stores)", heads, rows)


if __name__ == "__main__":
    main()
