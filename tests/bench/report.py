"""Writes the figures that the benches left with --json into the tables of docs/performance.md.

    python tests/bench/report.py FILE … [--document docs/performance.md]

Only what lies between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` is replaced, and only for the kinds of figures given.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_collector
import bench_fsync
import bench_start
import bench_transcripts
import server as servers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="what the benches wrote with --json")
    parser.add_argument("--document", type=Path, default=servers.ROOT / "docs" / "performance.md")
    args = parser.parse_args()
    text = args.document.read_text()
    given = [json.loads(file.read_text()) for file in args.files]
    asked = sorted((figures for figures in given if figures["kind"] == "queries"), key=lambda figures: figures["store"]["rows"])
    if len(asked) > 1:  # of stores of several sizes; the table of all questions is of the usual one
        given = [figures for figures in given if figures["kind"] != "queries" or figures["store"]["rows"] == ROWS]
        text = _put(text, "growth", _growth(asked), asked[-1], args.document)
    for figures in given:
        for name, block in BLOCKS[figures["kind"]](figures).items():
            text = _put(text, name, block, figures, args.document)
    args.document.write_text(text)


def _put(text: str, name: str, block: str, figures: dict[str, Any], document: Path) -> str:
    marks = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    inside = f"{marks[0]}\n{_origin(figures)}\n\n{block}\n{marks[1]}"
    text, found = re.subn(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", lambda _: inside, text, flags=re.DOTALL)
    if not found:
        sys.exit(f"{document} has no place for {name!r}")
    return text


def _origin(figures: dict[str, Any]) -> str:
    on = figures["machine"]
    shared = f"; load average {on['load']} when it ended" if "load" in on else ""
    kind = f"{on['cores']} cores ({on['processor']}), {on['memory_gib']} GiB, Python {on['python']}"
    return f"`{figures['command']}`, {on['date']}, {kind}{shared}."


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _ingest(figures: dict[str, Any]) -> dict[str, str]:
    full, paced = [], []
    for s in figures["shapes"]:
        times, counted = (f"{s['p50_ms']:.0f}", f"{s['p99_ms']:.0f}"), (f"{s['sent_events']:,}", s["lost"])
        if s["paced"]:
            paced.append([s["name"], *times, f"{s['server_core']:.2%}", *counted])
        else:
            cost = f"{s['cpu_ms_per_1000']:.0f}", f"{s['peak_rss_mib']:.0f}"
            full.append([s["name"], f"{s['events_a_second']:,.0f}", *times, *cost, *counted, f"{s['generator_core']:.1%}"])
    heads = ["events", "events/s", "p50 ms", "p99 ms", "CPU ms / 1,000", "peak RSS MiB", "sent", "lost", "generator's core"]
    blocks = {"ingest": _table(heads, full), "paced": _table(["events", "p50 ms", "p99 ms", "of a core", "sent", "lost"], paced)}
    others = figures["rotel"]
    if isinstance(others, str):
        blocks["rotel"] = f"rotel was not measured: {others}."
    else:
        rows = []
        for o in others:
            rates = f"{o['events_a_second']:,.0f}", f"{o['cpu_ms_per_1000']:.0f}", f"{o['rotel_cpu_ms_per_1000']:.0f}"
            ratio = f"{o['ratio']:.2f}" if o["ratio"] else "-"
            rows.append([o["target"], *rates, f"{o['sent_events']:,}", o["sent_events"] - o["stored"], ratio])
        heads = ["rotel into", "events/s", "CPU ms / 1,000, both", "rotel's own", "sent", "lost", "sp-telemetry ÷ rotel"]
        blocks["rotel"] = _table(heads, rows)
    return blocks


def _queries(figures: dict[str, Any]) -> dict[str, str]:
    store = figures["store"]
    rows = [
        [f"`{name}`", f"{f['engine_min_ms']:.0f}", f"{f['engine_median_ms']:.0f}", f"{f['http_median_ms']:.0f}", f"{f['rows_read']:,.0f}"]
        for name, f in figures["questions"].items()
    ]
    about = f"{store['rows']:,} events in {store['parts']} parts, {store['bytes'] / store['rows']:.0f} bytes each on disk."
    heads = ["question", "engine, least ms", "engine, median ms", "HTTP, median ms", "rows read"]
    processes = [[f"`{p['name']}`", f"{p['median_ms']:.0f}", f"{p['min_ms']:.0f}", f"{p['max_ms']:.0f}"] for p in figures["processes"]]
    return {
        "queries": f"{about}\n\n{_table(heads, rows)}",
        "processes": _table(["process", "median ms", "least ms", "most ms"], processes),
    }


def _growth(stores: list[dict[str, Any]]) -> str:
    """The same questions of stores of several sizes, smallest first."""
    rows = [
        [f"`{name}`, engine, median ms", *(f"{each['questions'][name]['engine_median_ms']:,.0f}" for each in stores)]
        for name in GROWING
        if all(name in each["questions"] for each in stores)
    ]
    for process in stores[0]["processes"]:
        times = [next(p["median_ms"] for p in each["processes"] if p["name"] == process["name"]) for each in stores]
        rows.append([f"`{process['name']}`, median ms", *(f"{ms:,.0f}" for ms in times)])
    rows.append(["on disk, MB", *(f"{each['store']['bytes'] / 1e6:,.0f}" for each in stores)])
    rows.append(["server's RSS afterwards, MiB", *(f"{each['store']['rss_mib']:,.0f}" for each in stores)])
    return _table(["events", *(f"{each['store']['rows']:,}" for each in stores)], rows)


def _collector(figures: dict[str, Any]) -> dict[str, str]:
    rows = [bench_collector.cells(row) for row in figures["roads"]]
    return {"collector": f"Policy `{figures['policy']}`.\n\n{_table(bench_collector.HEADS, rows)}"}


def _start(figures: dict[str, Any]) -> dict[str, str]:
    starts = [[name, f"{statistics.median(all):.2f}", f"{max(all):.2f}", len(all)] for name, all in figures["starts"].items()]
    month = figures["disk"]
    tables = [
        [f"`{name}`", f"{month['as_inserted'].get(name, 0) / 1e6:.2f}", f"{size / 1e6:.2f}"] for name, size in month["merged"].items()
    ]
    tables.append(["all", f"{sum(month['as_inserted'].values()) / 1e6:.2f}", f"{sum(month['merged'].values()) / 1e6:.2f}"])
    event = (
        f"{month['events']:,} events (the recordings {month['copies']} times) with their metrics, spans and contexts. An event is"
        f" {month['protobuf_an_event']:.0f} bytes as protobuf and {month['stored_an_event']:.0f} stored:"
        f" {month['protobuf_an_event'] / month['stored_an_event']:.1f} times less."
    )
    return {
        "start": _table(["start", "median s", "most s", "runs"], starts),
        "first": _table(bench_start.FIRST_HEADS, bench_start.first_table(figures)),
        "idle": _table(bench_start.IDLE_HEADS, bench_start.idle_table(figures)),
        "disk": f"{event}\n\n{_table(['table', 'as inserted MB', 'merged MB'], tables)}",
    }


def _hooks(figures: dict[str, Any]) -> dict[str, str]:
    blocks = {}
    if hooks := figures.get("hooks"):
        keys = ("p50_ms", "p95_ms"), ("p50_times", "p95_times")
        rows = [[r["name"], *(f"{r[key]:.1f}" for key in keys[0]), *(f"{r[key]:.2f}" for key in keys[1])] for r in hooks["rows"]]
        blocks["hooks"] = _table(["hook", "p50 ms", "p95 ms", "p50, bare = 1", "p95, bare = 1"], rows)
    if turns := figures.get("turns"):
        cells = ((r, f"{r['low_ms']:+.0f} to {r['high_ms']:+.0f}") for r in turns["rows"])
        rows = [[r["name"], f"{r['off_ms']:.0f}", f"{r['median_ms']:+.0f}", quartiles] for r, quartiles in cells]
        first = f"four tool calls, Claude Code {turns['client']}, {turns['pairs']} pairs"
        heads = [first, "off, median ms", "on - off, median ms", "quartiles ms"]
        blocks["turns"] = _table(heads, rows)
    if reports := figures.get("reports"):
        rows = [[r["name"], f"{r['p50_ms']:.0f}", f"{r['p95_ms']:.0f}"] for r in reports["rows"]]
        blocks["reports"] = _table([f"Claude Code {reports['client']} in tmux, {reports['runs']} runs", "p50 ms", "p95 ms"], rows)
    return blocks


def _fsync(figures: dict[str, Any]) -> dict[str, str]:
    return {"fsync": f"Medians of {figures['turns']} turns.\n\n{_table(bench_fsync.HEADS, bench_fsync.table(figures))}"}


def _transcripts(figures: dict[str, Any]) -> dict[str, str]:
    rounds = len(figures["runs"]["ccusage"])
    about = f"{figures['bytes'] / 1e6:,.0f} MB, median of {rounds} rounds; ccusage {figures['ccusage']} `claude daily --offline --json`."
    name = "transcripts" if figures["requests"] == bench_transcripts.DENSE else "transcripts-sparse"
    return {name: f"{about}\n\n{_table(bench_transcripts.HEADS, bench_transcripts.table(figures))}"}


ROWS = 10_000_000
GROWING = (
    "cost by day and chapter, by hand",
    "cost.sql day,chapter",
    "cost.sql chapter",
    "tokens.sql day,user",
    "sessions.sql day",
    "coverage.sql",
    "one session's trace by its id",
)
BLOCKS = {
    "collector": _collector,
    "fsync": _fsync,
    "ingest": _ingest,
    "queries": _queries,
    "start": _start,
    "hooks": _hooks,
    "transcripts": _transcripts,
}


if __name__ == "__main__":
    main()
