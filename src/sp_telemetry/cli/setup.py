"""`sp-telemetry setup`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home, here
from sp_telemetry.privacy.policy import LEVELS

HELP = "Switch Claude Code's telemetry on for you, start the server, and prove that an event arrives."
EPILOG = """\
examples:
  sp-telemetry setup                            asks before it changes anything
  sp-telemetry setup --dry-run                  what it finds and would change
  sp-telemetry setup --yes --json --person Ada  for programs
  sp-telemetry setup --traces                   spans too (beta)
  sp-telemetry setup --port metrics=18888       where 8888 is taken
  sp-telemetry setup --backend compose          a collector and ClickHouse in containers, for who wants a server

It can be run again at any time, also after having been interrupted. `sp-telemetry uninstall` takes it back.
"""
BACKFILL = """\
When the server was down or telemetry off, Claude Code's own transcripts still
know each request. Read them at the start of a session, at most hourly, and
fill in what is missing? Only tokens, models, times, branches and directories
are kept. [y/N] """
MARKS = {"ok": "✓", "warning": "!", "error": "✗"}


def configure(parser: argparse.ArgumentParser) -> None:
    switch = argparse.BooleanOptionalAction
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    parser.add_argument("--yes", action="store_true", help="ask nothing; refuses to replace what somebody else set")
    parser.add_argument("--force", action="store_true", help="replace what somebody else set, and go on against managed settings")
    parser.add_argument("--json", action="store_true", help="for machines; needs --yes or --dry-run")
    parser.add_argument("--person", metavar="NAME", help="under whose name the cost is reported")
    parser.add_argument("--autostart", action=switch, help="let the start of a session start the server [yes]")
    parser.add_argument("--backfill", action=switch, help="let the start of a session fill in, at most hourly, what telemetry missed [no]")
    parser.add_argument("--backend", choices=("embedded", "compose"), help="one process of ours, or containers [embedded]")
    parser.add_argument("--privacy", choices=LEVELS, help="the client's own words; error texts and names too; content too [strict]")
    parser.add_argument("--console", action=switch, help="export to the terminal too, for debugging `claude -p`")
    parser.add_argument("--prometheus", action=switch, help="serve the metrics to Prometheus too, on port 9464")
    parser.add_argument("--traces", action=switch, help="export spans too (beta)")
    parser.add_argument(
        "--bare-names", action=switch, help="put the commands' bare names into your commands folder, where another plugin has taken them"
    )
    parser.add_argument(
        "--port", metavar="NAME=NUMBER", action="append", default=[],
        help="another port: otlp_http, otlp_grpc, clickhouse, health, metrics; of compose also clickhouse_native, prometheus",
    )


def run(args: argparse.Namespace) -> int:
    if args.json and not (args.yes or args.dry_run):
        raise UsageError("--json asks nothing.", "Add --yes, or --dry-run to see first.")
    from sp_telemetry.setup.installation import install
    from sp_telemetry.setup.onboarding import Options, plan, refuse

    home = Home.open()
    options = Options(
        args.person, args.autostart, args.console, args.prometheus, args.traces, dict(map(_port, args.port)), args.force, args.bare_names,
        args.backfill, args.privacy, args.backend,
    )  # fmt: skip
    made = plan(home, os.environ, here(), options)
    if not args.json:
        _show(made)
    if args.dry_run:
        if args.json:
            print(json.dumps({"ok": not made.errors, "dry_run": True, **made.as_dict()}))
        return 1 if made.errors else 0
    if not args.yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError("There is nobody to ask.", "Add --yes, or --dry-run to see first.")
        if args.person is None and (name := _ask_person(made.offered)) != made.person:
            options = replace(options, person=name)
            made = plan(home, os.environ, here(), options)
        if made.conflicts and not args.force:
            options = replace(
                options, force=_agreed("Replace what stands there already? `sp-telemetry uninstall` brings it back. [y/N] ", False)
            )
        refuse(made, options.force)
        if made.taken and args.bare_names is None:
            made = replace(made, put_bare_names=_agreed(f"Put {_names(made.taken)} into your commands folder? [Y/n] ", True) or None)
        if args.backfill is None and not home.settings().backfill and (chosen := _agreed(BACKFILL, False)):
            made = replace(made, config=made.config | {"backfill": chosen})
        if not _agreed("Go on? [Y/n] ", True):
            print("Nothing was changed.")
            return 0
    refuse(made, options.force)
    result = install(home, made, os.environ, lambda text: None if args.json else print(text, flush=True))
    if args.json:
        print(json.dumps({"ok": True, "dry_run": False, **made.as_dict(), **result}))
        return 0
    print(f"An event arrived and was read back under the name {made.person}; all took {result['seconds']:.1f} s.\n")
    print("\n".join(result["next"]))
    return 0


def _show(made) -> None:
    for check in made.checks:
        print(f" {MARKS[check.level]} {check.what}" + (f"\n     {check.hint}" if check.hint else ""))
    for one in made.bare_names:
        if one.by:
            print(
                f" ! {one.what}" + ("\n     `--bare-names` puts ours into your commands folder, which wins." if one in made.taken else "")
            )
    where = made.home if made.backend == "embedded" else "volumes of Docker"
    print(f"\n{f'Reports name you {made.person}. ' if made.person else ''}The data lie in {where}.")
    if not made.changes:
        print(f"{made.settings_file} needs no change.\n")
        return
    print(f"To be changed in the env block of {made.settings_file}:")
    for change in made.as_dict()["changes"]:
        before = f"   (was {change['before']}{', not from here' if change['theirs'] else ''})" if change["before"] is not None else ""
        print(
            f"   {change['variable']} = {change['after']}{before}"
            if change["after"] is not None
            else f"   {change['variable']} is removed{before}"
        )
    print()


def _names(commands: list) -> str:
    return " and ".join(f"/{one.name}" for one in commands)


def _ask_person(offered: list[str]) -> str:
    others = f" (or {', '.join(offered[1:])})" if offered[1:] else ""
    answer = input(f"Name to report under [{offered[0]}]{others}: " if offered else "Name to report under: ").strip()
    return answer or next(iter(offered), "")


def _agreed(question: str, default: bool) -> bool:
    answer = input(question).strip().lower()
    return default if not answer else answer in ("y", "yes")


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not (number.isdecimal() and len(number) <= len("65535")):
        raise UsageError(f"--port is {text!r}; expected a name and a number, as in metrics=18888.")
    return name, int(number)
