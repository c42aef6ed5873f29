"""`sp-telemetry uninstall`."""

from __future__ import annotations

import argparse
import json
import sys

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home

HELP = "Stop the server and put Claude Code's settings back as they were; with --purge remove the data too."
EPILOG = """\
examples:
  sp-telemetry uninstall --dry-run
  sp-telemetry uninstall                the data stay
  sp-telemetry uninstall --purge        shows what is removed, and asks

The plugin is removed by `claude plugin uninstall sp-telemetry@sp-telemetry`.
"""
PLUGIN = "The plugin, where it is installed, stays until `claude plugin uninstall sp-telemetry@sp-telemetry`."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--purge", action="store_true", help="remove the data too")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--json", action="store_true", help="for machines; needs --yes or --dry-run where it would ask")


def run(args: argparse.Namespace) -> int:
    from sp_telemetry.setup.uninstall import plan, uninstall

    home = Home.open()
    made = plan(home, args.purge)
    if args.json:
        if args.purge and not (args.yes or args.dry_run):
            raise UsageError("--json asks nothing.", "Add --yes to remove the data.")
        if not args.dry_run:
            uninstall(home, made)
        print(json.dumps({"ok": True, "dry_run": args.dry_run, **made.as_dict()}))
        return 0
    if args.dry_run or args.purge:
        _show(made)
    if args.dry_run:
        return 0
    if args.purge and made.purged and not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("There is nobody to ask whether the data may go.", "Add --yes.")
        if input("Remove all of it? There is no way back. [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was changed.")
            return 0
    uninstall(home, made, print)
    if made.left and not args.purge:
        print(f"The data stay: {made.data_bytes / 1e6:,.1f} MB in {made.home}.")
        print("`sp-telemetry setup` takes them up again; `sp-telemetry uninstall --purge` removes them.")
    print(PLUGIN)
    print("Sessions that run now go on exporting until they end; nobody listens, and that does not disturb them.")
    return 0


def _show(made) -> None:
    print(("The server is to be stopped." if made.server_runs else "No server runs.") + f"\n{made.settings_text}")
    if made.purged:
        print(f"To be removed from {made.home} ({made.data_bytes / 1e6:,.1f} MB of data): {', '.join(made.purged)}")
    if made.left:
        print(f"To be left in {made.home}: {', '.join(made.left)}")
