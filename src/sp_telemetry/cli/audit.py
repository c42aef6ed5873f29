"""`sp-telemetry audit`: is every request counted, and counted right."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from sp_telemetry.transcripts import GRACE_S, kept_since

if TYPE_CHECKING:
    from sp_telemetry.transcripts.audit import Audit

HELP = "every API request in Claude Code's own transcripts against the telemetry, one by one"
EPILOG = """\
examples:
  sp-telemetry audit                                         the last 30 days
  sp-telemetry audit --since 7d
  sp-telemetry audit --session 9bf4ead3-b54e-4dae-a4a7-c5f44eaf8a3f --json

Transcripts are read from CLAUDE_CONFIG_DIR, ~/.claude and ~/.config/claude; what was read before and has not changed is not read again.
Nothing of their content is stored.

exit code 0: clean. 1: not clean, that is requests are missing in telemetry, or model, tokens or cost differ, without being explained.
Others: 2 wrong parameter, 3 nobody answers at the store's address, 5 the engine refused, 6 nothing to audit.
`sp-telemetry backfill` fills what is missing from the transcripts.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="AGE", help="12h, 7d, 4w: days and weeks from midnight (default 30d)")
    parser.add_argument("--from", dest="start", metavar="WHEN", help="a day or a moment")
    parser.add_argument("--to", dest="end", metavar="WHEN", help="a day, which is included, or a moment")
    parser.add_argument("--session", metavar="ID", help="only this session")
    parser.add_argument(
        "--grace", type=int, metavar="SECONDS", default=GRACE_S, help=f"younger requests may still be under way (default {GRACE_S})"
    )
    parser.add_argument("--json", action="store_true", help="for machines: also each request on one side alone and the missing numbers")


def run(args: argparse.Namespace) -> int:
    done = perform(args)
    if args.json:
        print(json.dumps(done.as_dict(), indent=2))
    else:
        from sp_telemetry.transcripts.summary import text

        print(text(done))
    return 0 if done.clean else 1


def perform(args: argparse.Namespace) -> Audit:
    """Read what is new, match, explain. Raises NothingStored where there is neither a transcript nor an event, UsageError for a session
    that neither knows."""
    from datetime import UTC, datetime

    from sp_telemetry.cli.progress import Progress
    from sp_telemetry.errors import NothingStored, UsageError
    from sp_telemetry.home import WRITER, Home
    from sp_telemetry.reports.parameters import refuse_empty, time_range, zone_in_force
    from sp_telemetry.setup.client_versions import loses_events
    from sp_telemetry.store.client import connect
    from sp_telemetry.transcripts import audit, files, reading

    home = Home.open()
    settings = home.settings()
    where = zone_in_force(timezone=settings.timezone)
    refuse_empty(session=args.session)
    if args.grace < 0:
        raise UsageError(f"--grace is {args.grace}; expected seconds, 0 or more.")
    begin, end = time_range(args.since, args.start, args.end, where, datetime.now(UTC))
    client = connect(home, settings, WRITER)
    if (kept := kept_since(client)) and begin < kept:
        begin = kept.astimezone(where)
        print(f"Events before {begin:%Y-%m-%d %H:%M} are no longer kept in full, so nothing before is looked at.", file=sys.stderr)
    secret = home.secret("transcripts")
    found = files.find(os.environ, secret)
    with Progress("reading transcripts") as progress:
        read = reading.bring(client, found, secret, progress.show)
    done = audit.audit(
        client, found, read,
        start=_utc(begin), end=_utc(end) if end else "", tz=where.key, session=args.session or "", loses=loses_events, grace_s=args.grace,
        details=audit.DETAILS if args.json else 0,
    )  # fmt: skip
    if not done.rows:
        if args.session and not audit.is_known(client, args.session):
            raise UsageError(
                f"No session {args.session!r} is known, neither in telemetry nor in transcripts.",
                "--session takes a whole id like 9bf4ead3-b54e-4dae-a4a7-c5f44eaf8a3f; `sp-telemetry report sessions` lists them.",
            )
        looked = ", ".join(found.folders) or "none of the folders of Claude Code"
        of = f" of session {args.session}" if args.session else ""
        when = f"from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}" if end else f"since {begin:%Y-%m-%d %H:%M}"
        raise NothingStored(
            f"There is no request{of} {when}, neither in telemetry nor in transcripts ({looked}).",
            "--since goes further back; CLAUDE_CONFIG_DIR names another folder of Claude Code.",
        )
    return done


def _utc(when: Any) -> str:
    from datetime import UTC

    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
