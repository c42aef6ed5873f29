"""What it costs that events are on the disk before they are acknowledged: the same load on two servers, of which one syncs nothing.

    python tests/bench/bench_fsync.py [--seconds N] [--turns N] [--quick] [--json FILE]

They are loaded in turns. Events are acknowledged when the journal is synced; an insert, which takes them over within seconds, syncs its
parts and folders. The server `without` does neither: Python's fsync and fdatasync do nothing there, and the table's settings are
ClickHouse's own. A crash of the machine, not of the process, may take acknowledged events from it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import server as servers
from bench_ingest import Measured, Shape, measure

SHAPES = (
    Shape("1 a request, 1 connection", 1, 1, 3_000),
    Shape("10 a request, 16 connections", 10, 16, 8_000),
    Shape("100 a request, 64 connections", 100, 64, 4_000),
)
SETTING = "ALTER TABLE telemetry.telemetry_events MODIFY SETTING fsync_after_insert = 0, fsync_part_directory = 0"
NO_SYNC = "import os\nos.fsync = os.fdatasync = lambda file: None\n"
HEADS = ["events", "fsync", "events/s", "p50 ms", "p99 ms", "CPU ms / 1,000", "without ÷ with"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=4, help="how long each shape is loaded, each time (default 4)")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a second, one turn")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    args = parser.parse_args()
    seconds, turns = (1, 1) if args.quick else (args.seconds, args.turns)
    found: dict[tuple[str, bool], list[Measured]] = {}
    with tempfile.TemporaryDirectory(prefix="sp-telemetry-bench-") as patch:
        Path(patch, "sitecustomize.py").write_text(NO_SYNC)
        path = servers.environment(Path(patch), servers.ROOT)["PYTHONPATH"]
        with servers.running() as synced, servers.running(more={"PYTHONPATH": f"{patch}{os.pathsep}{path}"}) as loose:
            loose.ask(SETTING)
            run = 0x1000
            for turn in range(turns + 1):
                for sync, server in ((True, synced), (False, loose)):
                    for shape in SHAPES:
                        run += 1
                        measured = measure(server, shape, run, seconds)
                        if turn:  # the first one warms
                            found.setdefault((shape.name, sync), []).append(measured)
    figures = [_figures(shape, sync, found[shape.name, sync]) for shape in SHAPES for sync in (True, False)]
    servers.table(f"fsync before acknowledgement, medians of {turns} turns", HEADS, table({"shapes": figures}))
    servers.write(args.json, "fsync", {"shapes": figures, "turns": turns})


def _figures(shape: Shape, sync: bool, measured: list[Measured]) -> dict[str, Any]:
    return {
        "name": shape.name,
        "fsync": sync,
        "events_a_second": median(each.sent_events / each.wall_s for each in measured),
        "p50_ms": median(each.p50_ms for each in measured),
        "p99_ms": median(each.p99_ms for each in measured),
        "cpu_ms_per_1000": median(each.cpu_s * 1e6 / each.sent_events for each in measured),
    }


def table(figures: dict[str, Any]) -> list[list[Any]]:
    """A row under HEADS for each shape, with fsync and without."""
    rates = {(each["name"], each["fsync"]): each["events_a_second"] for each in figures["shapes"]}
    return [
        [
            each["name"], "with" if each["fsync"] else "without", f"{each['events_a_second']:,.0f}", f"{each['p50_ms']:.1f}",
            f"{each['p99_ms']:.1f}", f"{each['cpu_ms_per_1000']:.0f}",
            "" if each["fsync"] else f"{rates[each['name'], False] / rates[each['name'], True]:.2f}",
        ]
        for each in figures["shapes"]
    ]  # fmt: skip


if __name__ == "__main__":
    main()
