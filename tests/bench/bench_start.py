"""What the server costs while nobody asks: start-up, the first events after it, idle memory and CPU, and what a month of use takes on disk.

    python tests/bench/bench_start.py [--quick] [--json FILE] [--rows 10000000] [--cache DIR] [--checkout DIR]

Disk: the recordings of the real client, sent again as often as one heavy person would work in 30 days (5,000 events on each of 22 days),
each time with other ids, another day and hour, other numbers. With --rows: also the start over so many stored events (kept by
bench_queries.py).
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_queries
import generate
import server as servers

STARTS = 5
IDLE_HEADS = ["store", "RSS MiB", "PSS MiB", "of a core", "wake-ups a second"]
FIRST_HEADS = ["first events", "acknowledged, median ms", "most ms", "runs"]
SETTLE_S, WATCH_S = 10, 20
WORKING_DAYS, EVENTS_A_DAY = 22, 5_000
RECORDING = generate.RECORDINGS / "book-2.1.330-http-protobuf"
IDENTIFIER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=req_)\w{12,}|(?<=toolu_)\w{12,}|(?<=msg_)\w{12,}")
STRETCH = 60  # the recordings' sessions take seconds; a person's take minutes
NUMBERS = re.compile(r".*(tokens|_ms|_bytes|_length|_chars)|cost_usd|cost_usd_micros")


class Copies:
    """The recording again and again. Each copy is as real as the first: ids, times and numbers differ, their relations stay."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self._messages = {"logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest, "traces": ExportTraceServiceRequest}
        about = json.loads((RECORDING / "recording.json").read_text())
        self._requests = [(r["signal"], (RECORDING / r["file"]).read_bytes()) for r in about["requests"]]
        self._contexts = json.loads((RECORDING / "context.logs.json").read_text())
        self._first_ns = min(r["received_at"] for r in about["requests"]) - 60_000_000_000
        logs = [ExportLogsServiceRequest.FromString(body) for signal, body in self._requests if signal == "logs"]
        self.events = sum(len(s.log_records) for log in logs for r in log.resource_logs for s in r.scope_logs)

    def copy(self, number: int, begin_ns: int) -> Iterator[tuple[str, str, bytes]]:
        """(signal, content type, body) of each request of copy `number`."""
        chance = random.Random(number)
        names: dict[str, str] = {}
        mask = chance.getrandbits(128)

        def renamed(match: re.Match) -> str:
            old = match[0]
            if old not in names:
                names[old] = re.sub(r"[0-9a-zA-Z]", lambda _: f"{chance.getrandbits(4):x}", old)
            return names[old]

        def moved(at_ns: int) -> int:
            return begin_ns + (at_ns - self._first_ns) // 1_000_000 * STRETCH * 1_000_000 if at_ns else 0

        def other(raw: bytes) -> bytes:
            return (int.from_bytes(raw) ^ mask >> (128 - len(raw) * 8)).to_bytes(len(raw)) if raw else raw

        text = re.sub(r'(?<="timeUnixNano": ")\d+', lambda match: str(moved(int(match[0]))), json.dumps(self._contexts))
        yield "logs", "application/json", IDENTIFIER.sub(renamed, text).encode()
        for signal, body in self._requests:
            message = self._messages[signal].FromString(body)
            for node in _nodes(message):
                for field in ("time_unix_nano", "observed_time_unix_nano", "start_time_unix_nano", "end_time_unix_nano"):
                    if hasattr(node, field):
                        setattr(node, field, moved(getattr(node, field)))
                for field in ("trace_id", "span_id", "parent_span_id"):
                    if hasattr(node, field):
                        setattr(node, field, other(getattr(node, field)))
                if hasattr(node, "as_double"):
                    node.as_double *= chance.lognormvariate(0, 0.7)
                for attribute in getattr(node, "attributes", ()):
                    if NUMBERS.fullmatch(attribute.key):
                        _vary(attribute.value, chance.lognormvariate(0.5, 0.9))
                    elif text := attribute.value.string_value:
                        attribute.value.string_value = IDENTIFIER.sub(renamed, text)
            yield signal, "application/x-protobuf", message.SerializeToString()


def _nodes(message: Any) -> Iterator[Any]:
    """Log records, spans, span events and data points."""
    for outer in ("resource_logs", "resource_spans", "resource_metrics"):
        for resource in getattr(message, outer, ()):
            for scope in (
                *getattr(resource, "scope_logs", ()),
                *getattr(resource, "scope_spans", ()),
                *getattr(resource, "scope_metrics", ()),
            ):
                yield from getattr(scope, "log_records", ())
                for span in getattr(scope, "spans", ()):
                    yield span
                    yield from span.events
                for metric in getattr(scope, "metrics", ()):
                    yield from metric.sum.data_points


def _vary(value: Any, by: float) -> None:
    if value.HasField("int_value"):
        value.int_value = int(value.int_value * by)
    elif value.HasField("double_value"):
        value.double_value = round(value.double_value * by, 6)
    elif value.string_value.isdigit():
        value.string_value = str(int(int(value.string_value) * by))


def disk(checkout: Path, copies: int) -> dict[str, Any]:
    made = Copies()
    today = time.time_ns() // 86_400_000_000_000 * 86_400_000_000_000
    sent = {"logs": 0, "metrics": 0, "traces": 0}
    with servers.running(checkout=checkout) as server, ThreadPoolExecutor(16) as pool:

        def send(requests: list[tuple[str, str, bytes]]) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.ports["otlp_http"], timeout=120)
            for signal, kind, body in requests:
                connection.request("POST", f"/v1/{signal}", body, {"Content-Type": kind})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise SystemExit(f"{signal}: {answer.status} {text[:300]!r}")
            connection.close()

        sending = []
        for number in range(copies):
            day, hour = number * 30 // copies, 8 + number * 7 % 10
            requests = list(made.copy(number, today - (30 - day) * 86_400_000_000_000 + hour * 3_600_000_000_000))
            for signal, kind, body in requests:
                sent[signal] += len(body) if kind != "application/json" else 0
            sending.append(pool.submit(send, requests))
            while sum(not each.done() for each in sending) > 32:  # bounded memory
                time.sleep(0.01)
        for each in sending:
            each.result()
        events = server.number("SELECT count() FROM telemetry.telemetry_events")
        if events != copies * made.events:
            raise SystemExit(f"{events} events are stored, {copies * made.events} were sent")
        before = _bytes(server)
        for table in before:
            server.ask(f"OPTIMIZE TABLE telemetry.{table} FINAL")
        after = _bytes(server)
        home = server.home
        server.close()
        whole = sum(file.stat().st_blocks * 512 for file in (home / "store").rglob("*") if file.is_file() and not file.is_symlink())
    return {
        "copies": copies, "events": events, "sent_bytes": sent, "as_inserted": before, "merged": after, "files_bytes": whole,
        "protobuf_an_event": sent["logs"] / events, "stored_an_event": after["telemetry_events"] / events,
        "all_an_event": sum(after.values()) / events,
    }  # fmt: skip


def _bytes(server: servers.Server) -> dict[str, int]:
    sql = "SELECT table, sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'telemetry' GROUP BY table ORDER BY 2 DESC"
    found = (line.split("\t") for line in server.ask(sql).decode().splitlines())
    return {name: int(size) for name, size in found if name not in ("installation", "schema_migrations")}


def starts(home: Path, checkout: Path, times: int) -> list[float]:
    """Seconds from starting the process to its health check, `times` times over the same home."""
    found = []
    for _ in range(times):
        server = servers.start(home, checkout)
        found.append(server.started_s)
        server.close()
    return found


def first_events(home: Path, checkout: Path, times: int, wait_s: float) -> list[float]:
    """Milliseconds until the first log request that a server is sent is acknowledged, so long after its start; a start each."""
    about = json.loads((RECORDING / "recording.json").read_text())
    body = next((RECORDING / request["file"]).read_bytes() for request in about["requests"] if request["signal"] == "logs")
    found = []
    for _ in range(times):
        with servers.running(home, checkout) as server:
            time.sleep(wait_s)
            connection = http.client.HTTPConnection("127.0.0.1", server.ports["otlp_http"], timeout=60)
            begun = time.perf_counter()
            connection.request("POST", "/v1/logs", body, {"Content-Type": "application/x-protobuf"})
            status = connection.getresponse().status
            found.append((time.perf_counter() - begun) * 1000)
            connection.close()
        if status != 200:
            raise SystemExit(f"The first events were answered {status}.")
    return found


def idle(home: Path | None, checkout: Path, settle_s: float, watch_s: float) -> dict[str, float]:
    with servers.running(home, checkout) as server:
        time.sleep(settle_s)
        return watched(server.process.pid, watch_s)


def sleeper(watch_s: float) -> dict[str, float]:
    """The same of a process that looks at three files each second, 20 us of work: there are virtual machines on which whatever has slept
    for a second takes 5 to 10 ms for that."""
    look = "import os, time\nwhile True:\n for name in 'abc': os.path.exists(name)\n time.sleep(1)"
    process = subprocess.Popen([sys.executable, "-c", look])
    try:
        time.sleep(2)
        return watched(process.pid, watch_s)
    finally:
        process.kill()
        process.wait()


def watched(pid: int, watch_s: float) -> dict[str, float]:
    before, waits = servers.cost(pid), servers.waits(pid)
    time.sleep(watch_s)
    share, wakeups = (servers.cost(pid).cpu_s - before.cpu_s) / watch_s, (servers.waits(pid) - waits) / watch_s
    return {"rss_mib": before.rss_mib, "pss_mib": before.pss_mib, "cpu_share": share, "wakeups_s": wakeups, "watched_s": watch_s}


def idle_table(figures: dict[str, Any]) -> list[list[Any]]:
    """A row under IDLE_HEADS for each store, and one of a process that only wakes."""
    return [
        [name, f"{i['rss_mib']:.0f}", f"{i['pss_mib']:.0f}", f"{i['cpu_share']:.2%}", f"{i['wakeups_s']:.0f}"]
        for name, i in figures["idle"].items()
    ]


def first_table(figures: dict[str, Any]) -> list[list[Any]]:
    """A row under FIRST_HEADS for each wait."""
    return [[name, f"{statistics.median(all):.0f}", f"{max(all):.0f}", len(all)] for name, all in figures["first_events"].items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer starts, shorter looks, a tenth of the month")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--rows", type=int, default=0, help="also start over a store with so many events")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sp-telemetry-bench-stores", help="where that is kept")
    parser.add_argument("--checkout", type=Path, default=servers.ROOT, help="measure the sources of another checkout")
    args = parser.parse_args()
    times, settle, watch = (2, 3, 5) if args.quick else (STARTS, SETTLE_S, WATCH_S)
    copies = -(-WORKING_DAYS * EVENTS_A_DAY // Copies().events)

    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sp-telemetry-bench-") as scratch:
        first = [starts(Path(scratch) / f"home{number}", args.checkout, 1)[0] for number in range(times)]
        again = starts(Path(scratch) / "home0", args.checkout, times)
        figures["first_events"] = {
            name: first_events(Path(scratch) / "home0", args.checkout, times, wait_s) for name, wait_s in (("at once", 0), ("2 s later", 2))
        }
    figures["starts"] = {"first, the schema is made": first, "again": again}
    figures["idle"] = {"empty": idle(None, args.checkout, settle, watch)}
    if args.rows:
        home = bench_queries.store(args.cache, args.rows, args.checkout)
        figures["starts"][f"over {args.rows:,} events"] = starts(home, args.checkout, times)
        figures["idle"][f"over {args.rows:,} events"] = idle(home, args.checkout, settle, watch)
    figures["idle"]["beside: a Python that looks at three files a second"] = sleeper(watch)
    figures["disk"] = disk(args.checkout, copies // 10 if args.quick else copies)

    lines = [
        [name, f"{statistics.median(all):.2f}", f"{min(all):.2f}", f"{max(all):.2f}", len(all)] for name, all in figures["starts"].items()
    ]
    servers.table("From start to ready", ["start", "median s", "min s", "max s", "runs"], lines)
    servers.table("The first events, after the start", FIRST_HEADS, first_table(figures))
    servers.table(f"Idle, after {settle} s, CPU over {watch} s", IDLE_HEADS, idle_table(figures))
    month = figures["disk"]
    lines = [[name, f"{month['as_inserted'].get(name, 0) / 1e6:.2f}", f"{size / 1e6:.2f}"] for name, size in month["merged"].items()]
    lines.append(["all", f"{sum(month['as_inserted'].values()) / 1e6:.2f}", f"{sum(month['merged'].values()) / 1e6:.2f}"])
    servers.table(
        f"Disk after {month['events']:,} events (recordings x {month['copies']})", ["table", "as inserted MB", "merged MB"], lines
    )
    print(
        f"\nan event: {month['protobuf_an_event']:.0f} bytes of protobuf, {month['stored_an_event']:.0f} stored"
        f" ({month['protobuf_an_event'] / month['stored_an_event']:.1f}x), {month['all_an_event']:.0f} with metrics, spans and summaries"
    )
    servers.write(args.json, "start", figures)


if __name__ == "__main__":
    main()
