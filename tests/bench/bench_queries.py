"""Questions of 10 million stored events: every shipped query, one session's trace, and the whole `sp-telemetry report cost`.

    python tests/bench/bench_queries.py [--quick] [--json FILE] [--rows 10000000] [--cache DIR] [--checkout DIR]

The rows (generate.py, `fill`) are made once and kept in the cache directory; they are made again when the schema has changed or they are
more than two days old, for questions are about the last 30 days. `engine` is the time that the engine states in its answer, `HTTP`
what a client waits for it, with parsing, analysis and the way. All is asked as the reader, through the ClickHouse interface.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import generate
import server as servers

RUNS, PROCESS_RUNS = 7, 10
FRESH_S = 2 * 86400
NONE = dict.fromkeys(("from", "to", "user", "session", "chapter", "feature", "type"), "")
REPORTS = {  # file: groupings
    "cost.sql": ("day,chapter", "chapter", "feature", "user", "model", "session"),
    "tokens.sql": ("model", "day,user"),
    "sessions.sql": ("session", "day"),
    "tools.sql": ("tool", "chapter"),
    "errors.sql": ("type", "day"),
    "cost-computed.sql": ("chapter",),
    "cost-differences.sql": ("reason",),
    "coverage.sql": ("",),
}


def store(cache: Path, rows: int, checkout: Path) -> Path:
    """A home with so many rows, from the cache or made now."""
    schema = checkout / "telemetry-server" / "clickhouse" / "schema"
    of = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(schema.glob("*.sql"))) + generate.FILL.encode()).hexdigest()[:12]
    home = cache / f"{rows}-{of}"
    made = home / "made"
    if made.exists() and time.time() - made.stat().st_mtime < FRESH_S:
        return home
    shutil.rmtree(home, ignore_errors=True)
    for old in cache.glob(f"{rows}-*"):
        shutil.rmtree(old)
    begun = time.monotonic()
    server = servers.start(home, checkout)
    try:
        generate.fill(server, rows, lambda done, of: print(f"\r  {done:,} of {of:,} sessions", end="", file=sys.stderr, flush=True))
        filled = time.monotonic() - begun
    finally:
        ended = server.close()  # brings the summaries up to date
    made.write_text(json.dumps({"rows": rows, "fill_s": filled, "summaries_s": ended}))
    print(f"\r  {rows:,} rows made in {filled:.0f} s, summaries in {ended:.0f} s   ", file=sys.stderr)
    return home


BY_HAND = """SELECT toDate(timestamp) AS day, chapter_context, sum(cost_usd) AS cost_usd FROM telemetry.telemetry_events
WHERE event_type = 'api_request' AND timestamp >= now() - INTERVAL 30 DAY GROUP BY ALL ORDER BY ALL"""


def questions(checkout: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, SQL, parameters) of every report and ready query."""
    yield "cost by day and chapter, by hand", BY_HAND, {}
    folder = checkout / "telemetry-server" / "queries"
    files = sorted(folder.glob("*.sql"), key=lambda file: ([*REPORTS, file.name].index(file.name), file.name))
    for file in files:
        if file.name == "audit.sql":  # of transcripts: bench_transcripts.py
            continue
        text = file.read_text()
        if file.name in REPORTS or "{by:" in text:
            for by in REPORTS.get(file.name, ("chapter",)):
                yield f"{file.name} {by}".strip(), text, NONE | {"tz": "UTC", "limit": 50, "by": by}
            continue
        for number, statement in enumerate(re.split(r";\s*(?:\n|$)", text), 1):
            if statement.strip():
                yield f"{file.name}, {number}", statement, {}


def ask(server: servers.Server, sql: str, parameters: dict[str, Any], runs: int) -> dict[str, Any]:
    """Engine's and client's times in ms, rows read and returned."""
    engine, http, answer = [], [], {}
    for _ in range(runs):
        begun = time.perf_counter()
        text = server.ask(sql, parameters, "JSONCompact", "telemetry_reader")
        http.append((time.perf_counter() - begun) * 1000)
        answer = json.loads(text)
        engine.append(answer["statistics"]["elapsed"] * 1000)
    return {
        "engine_min_ms": min(engine),
        "engine_median_ms": statistics.median(engine),
        "http_median_ms": statistics.median(http),
        "first_ms": http[0],
        "rows_read": answer["statistics"]["rows_read"],
        "rows": answer["rows"],
    }


def sessions(server: servers.Server) -> list[str]:
    """Some sessions of different ages."""
    found = server.ask("SELECT session_id FROM telemetry.telemetry_events WHERE event_sequence = 7 ORDER BY timestamp").decode().split()
    return [found[len(found) * share // 100] for share in (2, 20, 40, 60, 80, 95, 99)]


def traces(server: servers.Server) -> dict[str, Any]:
    """All columns of one session's events by its id alone; each run another session."""
    sql = "SELECT * FROM telemetry.telemetry_events WHERE session_id = {id:String} ORDER BY timestamp, event_sequence"
    each = [ask(server, sql, {"id": session}, 2) for session in sessions(server)]
    together = {name: statistics.median(one[name] for one in each) for name in each[0]}
    return together | {"engine_min_ms": min(one["engine_min_ms"] for one in each), "first_ms": max(one["first_ms"] for one in each)}


def process(home: Path, checkout: Path, runs: int) -> list[dict[str, Any]]:
    """`sp-telemetry report cost` as a whole process, and Python doing nothing, in turns."""
    report = [sys.executable, "-m", "sp_telemetry.cli.main", "report", "cost"]
    commands = {
        "sp-telemetry report cost": report,
        "sp-telemetry report cost --by day,chapter": [*report, "--by", "day,chapter"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs + 1):
        for name, command in commands.items():
            begun = time.perf_counter()
            subprocess.run(command, env=servers.environment(home, checkout), check=True, stdout=subprocess.DEVNULL)
            times[name].append((time.perf_counter() - begun) * 1000)
    return [
        {"name": name, "median_ms": statistics.median(all[1:]), "min_ms": min(all[1:]), "max_ms": max(all[1:])}
        for name, all in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="200,000 rows and three runs")
    parser.add_argument("--json", metavar="FILE", help="write the figures there")
    parser.add_argument("--rows", type=int, default=0, help="stored events (default 10,000,000)")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "sp-telemetry-bench-stores", help="where they are kept")
    parser.add_argument("--checkout", type=Path, default=servers.ROOT, help="measure the sources of another checkout")
    args = parser.parse_args()
    rows = args.rows or (200_000 if args.quick else 10_000_000)
    runs = 3 if args.quick else RUNS
    home = store(args.cache, rows, args.checkout)
    with servers.running(home, args.checkout) as server:
        figures = {}
        for name, sql, parameters in questions(args.checkout):
            figures[name] = ask(server, sql, parameters, runs)
        figures["one session's trace by its id"] = traces(server)
        processes = process(home, args.checkout, 3 if args.quick else PROCESS_RUNS)
        about = {
            "rows": server.number("SELECT count() FROM telemetry.telemetry_events"),
            "parts": server.number("SELECT count() FROM system.parts WHERE table = 'telemetry_events' AND active"),
            "bytes": server.number("SELECT sum(bytes_on_disk) FROM system.parts WHERE table = 'telemetry_events' AND active"),
            "rss_mib": server.cost().rss_mib,
        }
    heads = ["question", "engine min ms", "median ms", "HTTP median ms", "first ms", "rows read", "rows"]
    lines = []
    for name, f in figures.items():
        times = (f["engine_min_ms"], f["engine_median_ms"], f["http_median_ms"], f["first_ms"])
        lines.append([name, *(f"{ms:.1f}" for ms in times), f"{f['rows_read']:,.0f}", f"{f['rows']:,.0f}"])
    servers.table(f"{about['rows']:,} events in {about['parts']} parts, {about['bytes'] / about['rows']:.0f} bytes each", heads, lines)
    lines = [[p["name"], f"{p['median_ms']:.0f}", f"{p['min_ms']:.0f}", f"{p['max_ms']:.0f}"] for p in processes]
    servers.table("Whole processes", ["command", "median ms", "min ms", "max ms"], lines)
    servers.write(args.json, "queries", {"store": about, "questions": figures, "processes": processes})


if __name__ == "__main__":
    main()
