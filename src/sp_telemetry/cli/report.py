"""`sp-telemetry report`: what was spent, used, done and broken."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from sp_telemetry.reports.catalogue import COSTS, REPORTS

HELP = "cost, tokens, sessions, tools, errors: by chapter, feature, user, day, …"
EPILOG = """\
examples:
  sp-telemetry report cost                                   by chapter, the last 30 days
  sp-telemetry report cost --chapter 33 --by day --since 7d  one chapter, this week
  sp-telemetry report cost --by user,feature --from 2026-11-01 --to 2026-11-30 --format csv
  sp-telemetry report cost --cost both                       as reported, and by the price list
  sp-telemetry report cost-differences --by reason,model     where the two differ, and why
  sp-telemetry report tokens --by model
  sp-telemetry report errors --since 12h --json

A day is cut in --tz, else in the setting timezone, else in the machine's zone. --to with a day includes that day. `(unattributed)` is what
no chapter, feature … was known for at its moment; it can also be asked for: --chapter '(unattributed)'.
"""
_TABLE_ROWS = {"table": 50, "text": 20, "markdown": 50}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("report", metavar="REPORT", nargs="?", help=", ".join(REPORTS) + "; without one, what each says")
    parser.add_argument("--by", metavar="NAME[,NAME]", help="group by chapter, feature, user, day, session, step, branch, …")
    parser.add_argument("--since", metavar="AGE", help="12h, 7d, 4w: days and weeks from midnight (default 30d)")
    parser.add_argument("--from", dest="start", metavar="WHEN", help="a day or a moment: 2026-11-16, 2026-11-16T09:30")
    parser.add_argument("--to", dest="end", metavar="WHEN", help="a day, which is included, or a moment")
    parser.add_argument("--tz", metavar="ZONE", help="time zone in which days are cut, such as Europe/Berlin")
    parser.add_argument("--user", metavar="NAME")
    parser.add_argument("--feature", metavar="NAME", help="its name or its number: 017-usage-data-collection, 017")
    parser.add_argument("--chapter", metavar="NAME", help="its name or its number: 33-agent-telemetry, 33")
    parser.add_argument("--session", metavar="ID")
    parser.add_argument("--type", metavar="NAME", help="only events of this type, where a report reads several")
    parser.add_argument("--cost", choices=tuple(COSTS), help="of the report cost: as reported by Claude Code (default), computed from "
                        "tokens by the price list, or both")  # fmt: skip
    parser.add_argument("--format", choices=("table", "text", "json", "csv", "markdown"), default="table",
                        help="text is the table without colours, 80 wide or COLUMNS, at most a screen long")  # fmt: skip
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    parser.add_argument("--limit", type=int, metavar="N", help=f"groups to show; 0 is all (default {_TABLE_ROWS['table']} in a table)")


def run(args: argparse.Namespace) -> int:
    from sp_telemetry.errors import UsageError
    from sp_telemetry.home import Home
    from sp_telemetry.reports import render
    from sp_telemetry.reports.parameters import FILTERS, chosen, parameters
    from sp_telemetry.reports.run import ask
    from sp_telemetry.store.client import connect

    if args.report is None:
        return _list(args.format)
    if args.report == "audit":
        return _audit(args)
    report = chosen(args.report)
    if args.cost:
        if report.name != "cost":
            hint = "`report cost-differences` says where the two differ."
            raise UsageError(f"--cost belongs to the report cost, not to {report.name}.", hint)
        report = COSTS[args.cost]
    home = Home.open()
    settings = home.settings()
    limit = args.limit if args.limit is not None else _TABLE_ROWS.get(args.format, 0)
    filters = {name: getattr(args, name) for name in FILTERS}
    asked = parameters(
        report, by=args.by, since=args.since, start=args.start, end=args.end, tz=args.tz, timezone=settings.timezone, filters=filters,
        limit=limit,
    )
    result = ask(connect(home, settings), report, asked)
    if args.format == "table":
        terminal = sys.stdout.isatty()
        out = render.text(result, shutil.get_terminal_size().columns if terminal else 80, max_rows=0, color=terminal and _colours())
    else:
        given = {"width": _columns()} if args.format == "text" else {}
        out = render.FORMATS[args.format](result, **given)
    if args.format in ("json", "csv"):  # for programs: UTF-8 whatever the terminal shows, as of `sql`; no name loses a letter
        sys.stdout.buffer.write(out.encode())
    else:
        sys.stdout.write(out)
    return 0


def _audit(args: argparse.Namespace) -> int:
    """`/telemetry-report audit`, and whoever types it here: the command of that name."""
    from sp_telemetry.cli import audit
    from sp_telemetry.errors import UsageError

    unknown = [name for name in ("by", "tz", "user", "feature", "chapter", "type", "limit", "cost") if getattr(args, name) is not None]
    if unknown or args.format in ("csv", "markdown"):
        option = unknown[0] if unknown else f"format {args.format}"
        raise UsageError(f"The audit has no --{option}.", "Allowed are --since, --from, --to, --session and --json.")
    args.json, args.grace = args.format == "json", audit.GRACE_S
    return audit.run(args)


def _list(format: str) -> int:
    if format == "json":
        import json

        known = [{"report": each.name, "help": each.help, "by": each.groupings, "default_by": each.default_by} for each in REPORTS.values()]
        print(json.dumps(known, indent=2))
        return 0
    for report in REPORTS.values():
        print(f"{report.name:17} {report.help}")
        print(f"{'':17} --by {', '.join(report.groupings)} (default {report.default_by})")
    print(f"{'audit':17} every request in the transcripts against the telemetry: what is missing, and why")
    print("\nFor example: cost --chapter 33 --by day --since 7d")
    return 0


def _columns() -> int:
    """How wide whoever shows the text says that it may be."""
    said = os.environ.get("COLUMNS", "")
    return (int(said) if said.isdecimal() and len(said) < 5 else 0) or 80  # 0 is not known


def _colours() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
