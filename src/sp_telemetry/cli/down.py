"""`sp-telemetry down`."""

from __future__ import annotations

import argparse
import sys

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home
from sp_telemetry.setup import compose, service

HELP = "Stop the server. What is in flight is committed first; of Docker Compose's, what the collector has taken waits on its disk."
EPILOG = """\
examples:
  sp-telemetry down
  sp-telemetry down --volumes     backend compose: and forget all data; asks
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--volumes", action="store_true", help="backend compose: remove all data too, backups in its volumes with them")
    parser.add_argument("--yes", action="store_true", help="ask nothing")


def run(args: argparse.Namespace) -> int:
    home = Home.open()
    if not args.volumes:
        print("Stopped." if service.down(home) else "No server was running.")
        return 0
    if service.backend(home) != service.COMPOSE:
        raise UsageError("--volumes is for the backend compose.", "`sp-telemetry uninstall --purge` removes the embedded server's data.")
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("There is nobody to ask whether the data may go.", "Add --yes.")
        if input("Remove all that is stored, and what waits for it? There is no way back. [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was changed.")
            return 0
    compose.down(home, volumes=True)
    print("Stopped, and all data removed.")
    return 0
