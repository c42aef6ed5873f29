"""`sp-telemetry backfill`: what telemetry missed, filled in from Claude Code's own transcripts."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sp_telemetry.transcripts.backfill import Figures

HELP = "Fill in what telemetry missed, and what came before it, from Claude Code's own transcripts."
EPILOG = """\
examples:
  sp-telemetry backfill --dry-run          what is missing, and what it would add
  sp-telemetry backfill                    all that transcripts still have and the store still keeps
  sp-telemetry backfill --since 7d
  sp-telemetry backfill --remove           take back what was filled in

Only requests are filled in: tokens, model, time, branch, directory; no content. Their cost is computed from the price list as of their
day (telemetry-server/prices/), chapter and feature come from branch and directory, and each row says so: source = 'transcript'.
It can be run at any time and twice. When the event itself arrives after all, it takes its row's place.

`sp-telemetry setup --backfill` lets the start of a session do this once an hour.
"""
NO_TRANSCRIPTS = "There are no transcripts to fill in from; CLAUDE_CONFIG_DIR names another folder of Claude Code."
PATIENCE_S = 20
TIMEOUT_S = 900  # a first run reads and writes all there is


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="AGE", help="12h, 7d, 4w: days and weeks from midnight (default: as long as events are kept)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be filled in, or with --remove taken back")
    parser.add_argument("--remove", action="store_true", help="take back what was filled in")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--quiet", action="store_true", help="for hooks: say nothing, stand back, wait for a server that starts")


def run(args: argparse.Namespace) -> int:
    import time
    from datetime import UTC, datetime

    from sp_telemetry.cli.progress import Progress
    from sp_telemetry.errors import ServerUnreachable
    from sp_telemetry.home import WRITER, Home
    from sp_telemetry.reports.parameters import age, refuse_empty, zone_in_force
    from sp_telemetry.store.client import connect
    from sp_telemetry.transcripts import audit, backfill, files, kept_since, links, reading

    if args.quiet:
        os.nice(10)
    home = Home.open()
    settings = home.settings()
    where = zone_in_force(timezone=settings.timezone)
    refuse_empty(since=args.since)
    asked = age(args.since, where, datetime.now(UTC)).timestamp() if args.since else 0.0
    client = connect(home, settings, WRITER, TIMEOUT_S)
    for _ in range(PATIENCE_S if args.quiet else 0):
        try:
            client.query("SELECT 1")
            break
        except ServerUnreachable:
            time.sleep(1)
            client = connect(home, settings, WRITER, TIMEOUT_S)
    kept = kept_since(client)  # what is older would be thrown away at once
    since = max(asked, kept.timestamp() if kept else 0.0)
    if args.remove:
        removed = backfill.standing(client, since) if args.dry_run else backfill.remove(client, since)
        if removed.requests and not args.dry_run:
            audit.refresh(client, where.key)
        return _tell(args, removed, "would be taken back" if args.dry_run else "taken back", "Nothing that was filled in is there.")
    secret = home.secret("transcripts")
    found = files.find(os.environ, secret)
    with Progress("reading transcripts") as progress:
        read = reading.bring(client, found, secret, (lambda done, of: None) if args.quiet else progress.show)
    left_out = reading.left_out(found, read)
    machine = files.machine(secret)
    with links.linking(client, read):
        if args.dry_run:
            missing = backfill.missing(client, machine, since)
            nothing = "Nothing is missing." if found.files else NO_TRANSCRIPTS
            return _tell(args, missing, "would be filled in from transcripts", nothing, left_out)
        done = backfill.fill(client, machine, since, settings.person)
    if read.changed or done.requests:
        audit.refresh(client, where.key)  # what stands under reports
    nothing = "Nothing was missing." if found.files else NO_TRANSCRIPTS
    return _tell(args, done, "filled in from transcripts", nothing, left_out)


def _tell(args: argparse.Namespace, figures: Figures, what: str, nothing: str, left_out: Mapping[str, Any] | None = None) -> int:
    """`left_out`: what could not be read, which may be what is missing."""
    from sp_telemetry.transcripts.summary import unread

    if args.json:
        told = {"dry_run": args.dry_run, "removed" if args.remove else "filled": figures.as_dict()}
        print(json.dumps(told | ({"transcripts": left_out} if left_out else {}), indent=2))
    elif not args.quiet:
        print("\n".join([_text(figures, what) if figures.requests else nothing, *(unread(left_out) if left_out else ())]))
    return 0


def _text(figures: Figures, what: str) -> str:
    from sp_telemetry.reports.coverage import counted
    from sp_telemetry.reports.figures import money, printable

    days = " to ".join(dict.fromkeys((figures.first_at[:10], figures.last_at[:10])))
    lines = [
        f"{counted(figures.requests, 'request')} of {counted(figures.sessions, 'session')} {what}: {days}, {figures.tokens:,} tokens, "
        f"{money(figures.cost_usd)} by the price list."
    ]
    if figures.unpriced_requests:
        models = ", ".join(map(printable, figures.unpriced_models))
        lines.append(f"{counted(figures.unpriced_requests, 'request')} unpriced ({models}), {figures.unpriced_tokens:,} tokens.")
    return "\n".join(lines)
