"""What it costs that parts are on the disk before they are acknowledged: the same load on the same server with fsync and without, in turns.

    python tests/bench/bench_fsync.py [--seconds N] [--turns N] [--json FILE]

`without` is what ClickHouse does by default: a crash of the machine, not of the process, may then take acknowledged events with it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent))

import server as servers
from bench_ingest import Measured, Shape, measure

SHAPES = (
    Shape("1 a request, 1 connection", 1, 1, 3_000),
    Shape("10 a request, 16 connections", 10, 16, 8_000),
    Shape("100 a request, 64 connections", 100, 64, 4_000),
)
SETTING = "ALTER TABLE telemetry.telemetry_events MODIFY SETTING fsync_after_insert = {0}, fsync_part_directory = {0}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4, help="how long each shape is loaded, each time (default 4)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    args = parser.parse_args()
    found: dict[tuple[str, bool], list[Measured]] = {}
    with servers.running() as server:
        measure(server, Shape("warm", 100, 16, 200), 0x0FFF, 2)
        run = 0x1000
        for _ in range(args.turns):
            for synced in (True, False):
                server.ask(SETTING.format(int(synced)))
                for shape in SHAPES:
                    run += 1
                    found.setdefault((shape.name, synced), []).append(measure(server, shape, run, args.seconds))
    rows, figures = [], []
    for shape in SHAPES:
        of = {}
        for synced in (True, False):
            measured = found[shape.name, synced]
            rate = median(m.sent_events / m.wall_s for m in measured)
            of[synced] = rate
            p50, p99 = (median(getattr(m, name) for m in measured) for name in ("p50_ms", "p99_ms"))
            cpu = median(m.cpu_s * 1e6 / m.sent_events for m in measured)
            ratio = f"{of[False] / of[True]:.2f}" if not synced else ""
            rows.append([shape.name, "with" if synced else "without", f"{rate:,.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{cpu:.0f}", ratio])
            named = {"events_a_second": rate, "p50_ms": p50, "p99_ms": p99, "cpu_ms_per_1000": cpu}
            figures.append({"name": shape.name, "fsync": synced, **named})
    heads = ["events a request", "fsync", "events/s", "p50 ms", "p99 ms", "CPU ms / 1,000", "without ÷ with"]
    servers.table(f"fsync before acknowledgement, medians of {args.turns} turns", heads, rows)
    servers.write(args.json, "fsync", {"shapes": figures})


if __name__ == "__main__":
    main()
