"""`sp-telemetry up`."""

from __future__ import annotations

import argparse

from sp_telemetry.home import Home
from sp_telemetry.setup import service

HELP = """Start the server in the background, by the setting `backend` ours or Docker Compose's, and wait until it is ready. One that runs
an older version is replaced."""
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
        print(f"{'Started' if started else 'Running already'}: {describe(server)}")
    return 0


def describe(server: service.Running) -> str:
    ports = server.ports
    otlp = f"OTLP on {server.bind}:{ports['otlp_grpc']} (gRPC) and :{ports['otlp_http']} (HTTP)"
    who = f"pid {server.pid}" if server.backend == service.EMBEDDED else server.who
    return f"{who}, {otlp}, ClickHouse HTTP on :{ports['clickhouse']}"
