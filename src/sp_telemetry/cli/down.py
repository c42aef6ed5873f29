"""`sp-telemetry down`."""

from __future__ import annotations

import argparse

from sp_telemetry.home import Home
from sp_telemetry.setup import service

HELP = "Stop the embedded server. What is in flight is committed first."
EPILOG = """\
example:
  sp-telemetry down
"""


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    print("Stopped." if service.down(Home.open()) else "No server was running.")
    return 0
