"""`sp-telemetry restart`."""

from __future__ import annotations

import argparse

from sp_telemetry.cli.up import describe
from sp_telemetry.home import Home
from sp_telemetry.setup import service

HELP = "Stop the server if it runs, and start it again: after a change of settings, or of this program."
EPILOG = """\
example:
  sp-telemetry restart
"""


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    home = Home.open()
    service.down(home)
    server, _ = service.up(home)
    print(f"Started: {describe(server)}")
    return 0
