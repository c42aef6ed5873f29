"""`sp-telemetry demo`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from sp_telemetry import resources
from sp_telemetry.home import Home
from sp_telemetry.setup import service
from sp_telemetry.setup.replay import Recording, replay

HELP = "Store, attribute and report recorded sessions of the real Claude Code, in a scratch directory that is removed at the end."
EPILOG = """\
examples:
  sp-telemetry demo
  sp-telemetry demo --json

It leaves nothing running and nothing behind.
"""
RECORDING = "recordings/book-2.1.330-http-protobuf"
SCRATCH_SETTINGS = {
    "SP_TELEMETRY_OTLP_HTTP_PORT": "0",
    "SP_TELEMETRY_OTLP_GRPC_PORT": "0",
    "SP_TELEMETRY_CLICKHOUSE_PORT": "0",
    "SP_TELEMETRY_HEALTH_PORT": "0",
    "SP_TELEMETRY_METRICS_PORT": "0",
    "SP_TELEMETRY_RETENTION_EVENTS_DAYS": "0",  # the recordings grow older than any retention
    "SP_TELEMETRY_RETENTION_SESSIONS_DAYS": "0",
    "SP_TELEMETRY_URL": "",
    "SP_TELEMETRY_BIND": "",
}
NEXT = """\
Each request was attributed to what its session worked on at that moment, and the sum is what Claude Code itself said: ${cost:.4f}.

Next: sp-telemetry up               the server, in the background
      sp-telemetry report --help    what else can be asked
      README.md                     the plugin, and how your own sessions get here
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the reports as one JSON object")


def run(args: argparse.Namespace) -> int:
    recording = Recording(resources.path(RECORDING))
    scratch = Path(tempfile.mkdtemp(prefix="sp-telemetry-demo-"))
    os.environ.update(SCRATCH_SETTINGS, SP_TELEMETRY_HOME=str(scratch))
    home = Home(scratch)
    try:
        _say(f"Starting the embedded server in {scratch} …")
        server, _ = service.up(home)
        sessions = len(recording.sessions)
        _say(f"Replaying {sessions} recorded sessions of Claude Code {recording.about['client_version']} over OTLP …")
        begun = time.monotonic()
        replay(recording, server.address, server.ports, _progress)
        _say(f"\rStored in {time.monotonic() - begun:.1f} s." + " " * 30)
        _report(args.json, home, recording)
    finally:
        try:
            service.down(home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _report(as_json: bool, home: Home, recording: Recording) -> None:
    from sp_telemetry.reports import render
    from sp_telemetry.reports.catalogue import REPORTS
    from sp_telemetry.reports.parameters import FILTERS, parameters
    from sp_telemetry.reports.run import ask
    from sp_telemetry.store.client import connect

    client = connect(home, home.settings())
    report, results = REPORTS["cost"], {}
    day = recording.about["recorded_at"][:10]
    for by in ("feature", "chapter"):
        asked = parameters(report, by=by, since=None, start=day, end=day, tz="UTC", filters=dict.fromkeys(FILTERS), limit=0)
        results[by] = ask(client, report, asked)
    if as_json:
        print(json.dumps({by: json.loads(render.as_json(result)) for by, result in results.items()}))
        return
    width = min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else 80
    for result in results.values():
        print("\n" + render.text(result, width=width, color=sys.stdout.isatty() and not os.environ.get("NO_COLOR")), end="")
    print("\n" + NEXT.format(cost=_reported(recording)), end="")


def _reported(recording: Recording) -> float:
    """What Claude Code printed as total_cost_usd: of a resumed session this version prints the whole session's cost each time."""
    return sum(session["runs"][-1]["total_cost_usd"] for session in recording.about["sessions"])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"\r  {done} of {of} requests", end="", file=sys.stderr, flush=True)
