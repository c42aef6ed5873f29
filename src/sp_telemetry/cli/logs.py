"""`sp-telemetry logs`."""

from __future__ import annotations

import argparse
import time

from sp_telemetry.home import Home
from sp_telemetry.setup import service

HELP = "Show the embedded server's log."
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
    home = Home.open()
    lines = service.tail(home, args.lines)
    print("\n".join(lines) if lines else f"There is no log yet in {home.logs}.")
    if args.follow:
        _follow(home)
    return 0


def _follow(home: Home) -> None:
    file = home.logs / "server.log"
    log, position = None, file.stat().st_size if file.exists() else 0
    while True:
        if file.exists() and (log is None or file.stat().st_ino != inode):  # new, or rotated away
            log, position = open(file, errors="replace"), position if log is None else 0  # noqa: SIM115
            inode = file.stat().st_ino
            log.seek(position)
        if log and (text := log.read()):
            print(text, end="", flush=True)
        time.sleep(0.3)
