"""`sp-telemetry sql`: any question that the reading user may ask, as typed."""

from __future__ import annotations

import argparse
import sys

HELP = "ask the store in SQL, as the user who may only read"
EPILOG = """\
examples:
  sp-telemetry sql "SELECT event_type, count() FROM telemetry_events GROUP BY 1 ORDER BY 2 DESC"
  sp-telemetry sql "SELECT * FROM telemetry_events LIMIT 5" --format Vertical
  sp-telemetry sql "SELECT sum(cost_usd) FROM telemetry_events WHERE user_id = {user:String}" --param user=ada
  sp-telemetry sql - --format CSVWithNames < question.sql

--format is any format of ClickHouse's: PrettyCompact, TSVWithNames, CSVWithNames, JSONEachRow, JSON, Vertical, Markdown, Parquet, …
Events that arrived twice are counted once with FINAL behind the table's name. Ready questions: telemetry-server/queries/.
"""
_SHORT = {"table": "PrettyCompactMonoBlock", "json": "JSON", "csv": "CSVWithNames", "markdown": "Markdown", "tsv": "TSVWithNames"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sql", metavar="SQL", help="one statement; - reads it from standard input")
    parser.add_argument("--format", metavar="NAME", help="table, json, csv, markdown, tsv, or ClickHouse's name of one "
                        "(default: table on a terminal, else tsv)")  # fmt: skip
    parser.add_argument("--json", action="store_const", const="JSON", dest="format", help="the same as --format json")
    parser.add_argument("--param", metavar="NAME=VALUE", action="append", default=[], help="value of a {name:Type} in the statement")


def run(args: argparse.Namespace) -> int:
    from sp_telemetry.errors import UsageError
    from sp_telemetry.home import Home
    from sp_telemetry.store.client import connect

    pairs = [each.partition("=") for each in args.param]
    for name, equals, _ in pairs:
        if not equals or not name.isidentifier():
            raise UsageError(f"--param is {name!r}; expected NAME=VALUE.")
    sql = sys.stdin.buffer.read().decode("utf-8-sig", "surrogateescape") if args.sql == "-" else args.sql
    if not sql.strip():
        raise UsageError("There is no statement.", 'For example: sp-telemetry sql "SELECT count() FROM telemetry_events"')
    format = args.format or ("table" if sys.stdout.isatty() else "tsv")
    home = Home.open()
    answer = connect(home, home.settings()).stream(sql, _SHORT.get(format.lower(), format), {name: value for name, _, value in pairs})
    for piece in answer:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0
