"""THE STAND-IN for ClickHouse's image: what runs in it. No ClickHouse server image can be had where these tests run.

It is sp-telemetry's embedded engine behind the embedded server's own HTTP interface, and nothing else of the server: no schema, no
upkeep, no OTLP. So whatever the store has, came through 8123 as it would to a server. Its users are those whose passwords' hashes
stand in the file that users.xml includes, as they would be for a server. What it does not have: port 9000, grants, quotas, limits
of config.xml. It says that it is a stand-in in its log, in its answers' `X-ClickHouse-Server-Display-Name`, and in the image's label.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import signal
import sys
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

from aiohttp import web

from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve import clickhouse_http, clickhouse_run
from sp_telemetry.serve.clickhouse_access import Access
from sp_telemetry.serve.clickhouse_request import Asked, refuse
from sp_telemetry.serve.clickhouse_statement import READS, Statement
from sp_telemetry.store.engine import Engine

DATA = Path("/var/lib/clickhouse")
USERS = "/etc/clickhouse-server/users.d/telemetry.xml"


def hashes() -> dict[str, str]:
    """user -> SHA-256 of its password, as the mounted users.xml has it."""
    document = xml.parse(USERS).getroot()
    included = {node.tag: (node.text or "").strip() for node in xml.parse(document.findtext("include_from").strip()).getroot()}
    return {user.tag: included[user.find("password_sha256_hex").get("incl")] for user in document.find("users") if not user.get("remove")}


class Hashed(Access):
    """Who may ask, told by hashes in place of passwords."""

    def user(self, given: Any) -> str:
        expected = known.get(given.user, "")
        if expected and hmac.compare_digest(hashlib.sha256(given.password.encode()).hexdigest(), expected):
            return given.user
        what = "Authentication failed: password is incorrect, or there is no user with such name."
        raise refuse(516, "AUTHENTICATION_FAILED", f"{given.user}: {what}")


class AsServer(clickhouse_run.Control):
    """A server's telemetry_user makes functions and sees every table, which the embedded server's does not."""

    def examine(self, asked: Asked, user: str) -> Statement:
        try:
            return super().examine(asked, user)
        except QueryFailed:
            if user != WRITER:
                raise
            words = asked.sql.split()
            kind = next((kind for kind in READS if words[0].upper() == kind), words[0].upper())
            format = re.search(r"\bFORMAT\s+(\w+)\s*$", asked.sql)
            return Statement(asked.sql, kind, kind in ("SELECT", "WITH"), format[1] if format else "", {}, "otel_")


async def serve() -> None:
    ending, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    engine = Engine(DATA / "store", DATA / "engine", Path("/backups"))
    try:
        with engine.handle() as handle:
            handle.run("CREATE DATABASE IF NOT EXISTS telemetry")
        clickhouse_http.Control = AsServer
        clickhouse_http.socket.gethostname = lambda: "STAND-IN"
        runner = web.AppRunner(clickhouse_http.application(engine, Hashed("", "")), access_log=None, shutdown_timeout=3)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", 8123).start()
        print("ready: ClickHouse's HTTP interface on 8123", flush=True)
        await ending.wait()
        await runner.cleanup()
    finally:
        engine.close()


print("STAND-IN for clickhouse/clickhouse-server: sp-telemetry's embedded engine answers here, not ClickHouse's server.", flush=True)
known = hashes()
if set(known) != {WRITER, READER}:
    sys.exit(f"STAND-IN: the users that users.xml names are {sorted(known)}; expected {WRITER}, {READER}.")
asyncio.run(serve())
