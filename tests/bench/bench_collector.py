"""Events through a real collector beside events straight into the server, in one run.

    python tests/bench/bench_collector.py [--quick] [--json FILE] [--policy FILE | --no-policy]

Both roads take the same requests, one road after the other, into one `sp-telemetry serve`; the collector runs as it is shipped, with the
policy of level strict. It acknowledges when a request lies in its queue, fsynced, so each road's rate is over the time until the last
event can be read. CPU and memory are of all that a road needs: server, or server and collector.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
sys.path.insert(2, str(Path(__file__).resolve().parents[2] / "src"))

import bench_ingest
import generate
import server as servers

from tests.collector import running as collectors

STRAIGHT, COLLECTED = "straight", "through the collector"
SHAPE = bench_ingest.Shape("", 100, 64, 4_000)
STALLED_S = 60
HEADS = ["road", "accepted/s", "stored/s", "CPU ms / 1,000", "the collector's", "RSS MiB", "the collector's", "visible ms", "sent", "lost"]


@contextlib.contextmanager
def collecting(server: servers.Server, policy: Path) -> Iterator[collectors.Collector]:
    with tempfile.TemporaryDirectory(prefix="sp-telemetry-bench-") as folder:
        url = f"http://127.0.0.1:{server.ports['clickhouse']}"
        password, salt = server.password("telemetry_user"), secrets.token_hex(16)
        with collectors.running(Path(folder), url, password, policy=policy, salt=salt) as collector:
            yield collector


def spent(server: servers.Server, collector: collectors.Collector | None) -> list[servers.Cost]:
    return [server.cost(), *([servers.cost(collector.process.pid)] if collector and collector.process else [])]


def measure(server: servers.Server, collector: collectors.Collector | None, run: int, requests: int) -> dict[str, Any]:
    port = collector.ports["HTTP"] if collector else server.ports["otlp_http"]
    asked = bench_ingest.asked(SHAPE, port, run, 3600) | {"requests": requests}
    sessions = f"startsWith(session_id, '{run:08x}-')"
    with bench_ingest.loaded(asked) as load:
        before, begun = spent(server, collector), time.monotonic()
        seen = bench_ingest.go(load)
        rows, changed = 0, time.monotonic()
        while rows < seen["events"] and time.monotonic() < changed + STALLED_S:
            found = server.number(f"SELECT count() FROM telemetry.telemetry_events WHERE {sessions}")
            if found != rows:
                rows, changed = found, time.monotonic()
            time.sleep(0.1)
        after = spent(server, collector)
    wall = changed - begun
    stored = bench_ingest.stored(server, run)
    cpu = [now.cpu_s - then.cpu_s for now, then in zip(after, before, strict=True)]
    return {
        "road": COLLECTED if collector else STRAIGHT,
        "sent_events": seen["events"],
        "lost": seen["events"] - stored,
        "accepted_a_second": seen["events"] / seen["wall_s"],
        "events_a_second": stored / wall,
        "cpu_ms_per_1000": sum(cpu) * 1e6 / seen["events"],
        "collector_cpu_ms_per_1000": (cpu[1] if collector else 0) * 1e6 / seen["events"],
        "peak_rss_mib": after[0].peak_rss_mib,
        "collector_peak_rss_mib": after[1].peak_rss_mib if collector else 0,
        "statuses": seen["statuses"],
    }


def visible_ms(server: servers.Server, collector: collectors.Collector | None, run: int, times: int) -> list[float]:
    """From sending one request of ten events until a query shows all of them, with nothing else to do."""
    port = collector.ports["HTTP"] if collector else server.ports["otlp_http"]
    found = []
    for number, body in enumerate(generate.Requests(10, 1, run).make(times), 1):
        begun = time.perf_counter()
        assert collectors.post(port, "logs", body) == 200
        while server.number(f"SELECT count() FROM telemetry.telemetry_events WHERE startsWith(session_id, '{run:08x}-')") < number * 10:
            time.sleep(0.005)
        found.append((time.perf_counter() - begun) * 1000)
        time.sleep(0.2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the events")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--policy", type=Path, default=collectors.CONFIGURATION / "privacy" / "strict.yaml")
    parser.add_argument("--no-policy", action="store_true", help="a collector that lets everything through")
    args = parser.parse_args()
    policy = collectors.NO_POLICY if args.no_policy else args.policy
    requests, times = (500, 3) if args.quick else (SHAPE.most, 15)
    rows = []
    with servers.running() as server, collecting(server, policy) as collector:
        for warm, by in ((0x0FFE, None), (0x0FFF, collector)):
            measure(server, by, warm, 100)
        for run, by in ((0x1000, None), (0x1001, collector)):
            row = measure(server, by, run, requests)
            row["visible_ms"] = statistics.median(visible_ms(server, by, run + 0x100, times))
            rows.append(row)
            print(f"  {row['road']}: {row['events_a_second']:,.0f} events/s", file=sys.stderr)
    servers.table("Through a collector, 100 events a request, 64 connections", HEADS, [cells(row) for row in rows])
    name = "none" if args.no_policy else policy.stem
    servers.write(args.json, "collector", {"roads": rows, "policy": name})
    if any(row["lost"] for row in rows) or any(set(row["statuses"]) != {"200"} for row in rows):
        sys.exit(f"something that was acknowledged is missing, or something was refused: {json.dumps([row['statuses'] for row in rows])}")


def cells(row: dict[str, Any]) -> list[str]:
    return [
        row["road"],
        f"{row['accepted_a_second']:,.0f}",
        f"{row['events_a_second']:,.0f}",
        f"{row['cpu_ms_per_1000']:.0f}",
        f"{row['collector_cpu_ms_per_1000']:.0f}",
        f"{row['peak_rss_mib']:.0f}",
        f"{row['collector_peak_rss_mib']:.0f}",
        f"{row['visible_ms']:.0f}",
        f"{row['sent_events']:,}",
        str(row["lost"]),
    ]


if __name__ == "__main__":
    main()
