"""`sp-telemetry context`: what the hooks would record here, and why."""

from __future__ import annotations

import argparse
import json
import os

from sp_telemetry.errors import UsageError

HELP = "show which feature, chapter and step hold here, and why"
EPILOG = """\
examples:
  sp-telemetry context                                       what holds in this directory
  sp-telemetry context --cwd ../book --json                  elsewhere, for a program
  sp-telemetry context --file book/05-part/33-agents/a.md    as if this file had been edited
  sp-telemetry context --branch ada/017-x --prompt /plan     as if this branch and command were under way

.claude/telemetry.toml in the repository changes the rules; each list replaces its default:
  project = "my-book"
  [feature]
  branches = ["{feature}", "*/{feature}", "worktree-{feature}"]   # 017-name, with one prefix, of a worktree
  specs = ["specs", ".specify/specs"]                             # where spec directories are
  trunks = ["main", "master", "develop", "dev", "trunk", "HEAD"]  # branches without a feature
  [chapter]
  paths = ["**/{part}/{chapter}/**", "**/chapters/{chapter}/**"]
  branches = ["chapter/{chapter}", "{chapter:word}"]
  [step]
  names = ["specify", "plan", "tasks", "implement", "validate"]
  [step.aliases]
  draft = "implement"
In a pattern, ** is any number of directories and * any name; {feature}, {part} and {chapter} are names that start
with their number, {chapter:word} is chapter-33…, {chapter:any} any name; .* at the end is an extension left off.
"""
_OF_A_MOMENT = ("session_id", "at_ns", "hook", "record_id", "person")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cwd", metavar="DIR", default="", help="look in this directory instead of the current one")
    parser.add_argument("--branch", metavar="NAME", help="as if this branch were checked out")
    parser.add_argument("--file", metavar="PATH", action="append", default=[], help="as if this file had been edited (the last wins)")
    help = "as if this prompt had been typed (its command counts, and a chapter that it names)"
    parser.add_argument("--prompt", metavar="TEXT", default="", help=help)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from sp_telemetry.context.observe import observe

    if args.cwd and not os.path.isdir(args.cwd):
        raise UsageError(f"--cwd is {args.cwd!r}; expected a directory that exists.")
    try:
        seen = observe(args.cwd, branch=args.branch, files=[os.path.abspath(file) for file in args.file], prompt=args.prompt)
    except FileNotFoundError:
        raise UsageError("The current directory no longer exists.", "Change to another one, or use --cwd DIR.") from None
    if args.json:
        context = {name: value for name, value in seen.record.as_dict().items() if name not in _OF_A_MOMENT}
        answer = {
            "context": context,
            "state": seen.repository.state,
            "explanation": [row._asdict() for row in seen.explanation],
            "configuration": str(seen.configuration) if seen.configuration else None,
            "notes": seen.notes,
        }
        print(json.dumps(answer, indent=2))
        return 0
    _show(seen)
    return 0


def _show(seen) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table("", "value", "source", "why", box=None, pad_edge=False, header_style="dim")
    for row in seen.explanation:
        table.add_row(row.dimension, Text(row.value or "-", style="bold" if row.value else "dim"), row.source, Text(row.why, style="dim"))
    with console.capture() as shown:  # rich ends the program with 1 where a pipe is closed, and so not by itself
        console.print(table)
        where = seen.configuration or "none, the defaults hold"
        console.print(Text(f"configuration: {where}", style="dim"), soft_wrap=True)
        for note in seen.notes:
            console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    print(shown.get(), end="")
