"""`sp-telemetry migrate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from sp_telemetry.errors import UsageError
from sp_telemetry.home import WRITER, Home

HELP = "Bring a ClickHouse server to this version's shape: schema, privacy policy, prices, retention, upkeep. Twice does no harm."
EPILOG = """\
examples:
  sp-telemetry migrate                       the server of the setting `url`, or Docker Compose's
  sp-telemetry migrate --url http://127.0.0.1:8123 --password-file secrets/telemetry_user --salt-file secrets/telemetry_salt

The embedded server does this to its store at each start, and `sp-telemetry up` to that of Docker Compose. On a server at an address, which
others may bring up to date too, retention and privacy level stay as they are unless they are set here.
"""
TIMEOUT_S = 600


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="the ClickHouse HTTP interface [the setting url, or the stack's]")
    parser.add_argument("--password-file", metavar="FILE", help="holds the password of telemetry_user [secrets/telemetry_user in the home]")
    parser.add_argument("--salt-file", metavar="FILE", help="holds the salt of the hashes, which the collector has too, for a new store")


def run(args: argparse.Namespace) -> int:
    from sp_telemetry.setup import compose, service
    from sp_telemetry.store import server
    from sp_telemetry.store.client import Client, Statements

    home = Home.open()
    settings = home.settings()
    url = args.url or settings.url
    if not url and settings.backend != service.COMPOSE:
        raise UsageError("The embedded server brings its store to this version's shape itself.", "--url names a ClickHouse server.")
    salt = _read(args.salt_file) if args.salt_file else home.secret(compose.SALT) if not args.url else ""
    password = _read(args.password_file) if args.password_file else home.secret(WRITER)
    client = Client(url, WRITER, password, timeout_s=TIMEOUT_S, local=False, database="") if url else compose.writer(home, settings)
    runner = Statements(client)
    applied = server.migrate(runner, home, settings, salt, shared=bool(url))
    if salt:
        server.check_salt(runner, salt)
    print(f"Applied: {', '.join(applied)}." if applied else "Nothing to do.")
    return 0


def _read(file: str) -> str:
    try:
        return Path(file).read_text("utf-8").strip()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}.") from None
