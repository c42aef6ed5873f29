"""`sp-telemetry serve`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import logging.handlers

from sp_telemetry.home import Home
from sp_telemetry.settings import SETTINGS
from sp_telemetry.setup.service import LOG_BYTES, LOG_FILES

HELP = "Run the embedded server in the foreground, until Ctrl-C: OTLP in, the ClickHouse HTTP interface out, on loopback."
EPILOG = """\
examples:
  sp-telemetry serve
  SP_TELEMETRY_HOME=/data/telemetry SP_TELEMETRY_CLICKHOUSE_PORT=18123 sp-telemetry serve

settings (environment variable, or the name in lower case in config.toml of the home directory):
""" + "\n".join(f"  {setting.variable:38} {setting.help} [{setting.default}]" for setting in SETTINGS)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log-file", help="log there instead of to stderr; kept small")


def run(args: argparse.Namespace) -> int:
    from sp_telemetry.setup.service import need_engine

    need_engine()
    from sp_telemetry.serve.server import serve  # loads the engine: only here

    handler: logging.Handler = logging.StreamHandler()
    home = Home.open().make()
    if args.log_file:
        handler = logging.handlers.RotatingFileHandler(args.log_file, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[handler])
    asyncio.run(serve(home, home.settings()))
    return 0
