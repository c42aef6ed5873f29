"""`sp-telemetry logs`."""

from __future__ import annotations

import argparse
import time

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home
from sp_telemetry.setup import compose, service

POLL_S = 0.3
HELP = "Show the server's log; of Docker Compose's, those of its containers."
EPILOG = """\
examples:
  sp-telemetry logs
  sp-telemetry logs --lines 200
  sp-telemetry logs --follow
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lines", type=int, default=40, help="how many of the last lines [40]")
    parser.add_argument("--follow", action="store_true", help="go on showing new lines until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    if args.lines < 0:
        raise UsageError(f"--lines is {args.lines}; expected 0 or more.")
    home = Home.open()
    if args.follow and service.backend(home) == service.COMPOSE:
        return compose.follow(home, args.lines)
    lines = service.tail(home, args.lines)
    if lines or args.lines:
        print("\n".join(lines) if lines else f"There is no log yet in {home.logs}.")
    if args.follow:
        _follow(home)
    return 0


def _follow(home: Home) -> None:
    """Print what is added from now on. The file may be rotated away and begin anew."""
    file = home.logs / "server.log"
    inode, position = (file.stat().st_ino, file.stat().st_size) if file.exists() else (0, 0)
    while True:
        time.sleep(POLL_S)
        if not file.exists():
            continue
        if file.stat().st_ino != inode:
            inode, position = file.stat().st_ino, 0
        with open(file, "rb") as log:
            log.seek(position)
            new = log.read()
        position += len(new)
        print(new.decode(errors="replace"), end="", flush=True)
