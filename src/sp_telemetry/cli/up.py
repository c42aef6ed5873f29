"""`sp-telemetry up`."""

from __future__ import annotations

import argparse

from sp_telemetry.home import Home
from sp_telemetry.setup import service

HELP = "Start the embedded server in the background and wait until it is ready."
EPILOG = """\
examples:
  sp-telemetry up
  sp-telemetry up --quiet
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="say nothing when all is well")


def run(args: argparse.Namespace) -> int:
    server, started = service.up(Home.open())
    if not args.quiet:
        print(f"{'Started' if started else 'Running already'}: pid {server.pid}, {describe(server)}")
    return 0


def describe(server: service.Running) -> str:
    ports = server.ports
    return f"OTLP on {server.bind}:{ports['otlp_grpc']} (gRPC) and :{ports['otlp_http']} (HTTP), ClickHouse HTTP on :{ports['clickhouse']}"
