"""Whether each user of the store may do what it must, and nothing that it must not: tried on the server that is in use.

`telemetry-server/clickhouse/access.sql` lists the statements under `-- <user> may`, `-- <user> may not`, and with `, server` those that
only a ClickHouse server knows. The embedded server holds its users by other means (serve/clickhouse_access.py) and answers alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sp_telemetry import resources
from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import READER, WRITER, Home
from sp_telemetry.settings import Settings
from sp_telemetry.setup import service
from sp_telemetry.setup.doctor import ERROR, OK, Finding
from sp_telemetry.store import schema, server
from sp_telemetry.store.client import Client, Statements, connect

#: how ClickHouse says that it refuses: not what is wrong with a statement, but who asks it
REFUSALS = (164, 392, 452, 497, 514)  # READONLY, QUERY_IS_PROHIBITED, SETTING_CONSTRAINT_VIOLATION, ACCESS_DENIED, no storage for users
MEND = "Compare the server's users with telemetry-server/clickhouse/config/users.xml"
AUTHENTICATION = (192, 193, 194, 516)
_HEADING = re.compile(r"^-- (\w+) (may not|may)(, server)?$", re.M)


def statements() -> Iterator[tuple[str, bool, bool, str]]:
    """(user, whether it may, whether only a server knows it, the statement)."""
    text = resources.path("telemetry-server/clickhouse/access.sql").read_text("utf-8")
    pieces = _HEADING.split(text)[1:]
    for user, may, only_server, body in zip(*(pieces[number::4] for number in range(4)), strict=True):
        for statement in schema.statements(body):
            yield user, may == "may", bool(only_server), statement


def examine(home: Home, settings: Settings) -> list[Finding]:
    """Raises ServerUnreachable where nobody answers."""
    is_server = bool(settings.url) or settings.backend == service.COMPOSE
    clients = {user: connect(home, settings, user) for user in (WRITER, READER)}
    for client in clients.values():
        client.query("SELECT 1")
    found = [*_strangers(clients[READER].address)]
    kept = {True: 0, False: 0}
    for user, may, only_server, statement in statements():
        if only_server and not is_server:
            continue
        code, said = _try(clients[user], statement)
        short = f"{statement[:80]}{' …' if len(statement) > 80 else ''}"
        if may and code:
            what = f"{user} can't do what it must: {short} ({said})"
            found.append(Finding(ERROR, "access", "too-little", what, "Reports or events fail.", MEND, {"code": code}))
        elif not may and not code:
            what = f"{user} can do what it must not: {short}"
            found.append(Finding(ERROR, "access", "too-much", what, "The store is open further than it should be.", MEND))
        elif not may and code not in REFUSALS:
            what = f"Whether {user} may is unknown: {short} ({said})"
            found.append(Finding(ERROR, "access", "unknown", what, "It failed for another reason than a refusal.", "", {"code": code}))
        else:
            kept[may] += 1
    found.append(Finding(OK, "access", "access", f"{kept[True]} statements that must work do, {kept[False]} that must not are refused"))
    if is_server:
        writer = Client(clients[WRITER].address, WRITER, home.secret(WRITER))
        for view, why in server.failing(writer).items():
            mend = "sp-telemetry migrate"
            found.append(Finding(ERROR, "upkeep", "view-fails", f"{view} fails: {why}", "Attribution or summaries fall behind.", mend))
        if not Statements(writer).query("SELECT count() FROM system.view_refreshes WHERE database = 'telemetry'").strip().strip(b"0"):
            why = "Nothing attributes late context and makes summaries."
            found.append(Finding(ERROR, "upkeep", "no-views", "The views for upkeep are missing.", why, "sp-telemetry migrate"))
    return found


def _strangers(address: str) -> Iterator[Finding]:
    """Nobody else is let in."""
    for user, password in (("default", ""), (READER, ""), (WRITER, "wrong"), ("nobody", "wrong")):
        code, _ = _try(Client(address, user, password), "SELECT 1")
        if code not in AUTHENTICATION:
            what = f"{user} is let in {'without a password' if not password else 'with a wrong password'}."
            yield Finding(ERROR, "access", "stranger", what, "Whoever reaches the port reads the store.", MEND)


def _try(client: Client, statement: str) -> tuple[int, str]:
    """ClickHouse's code for why it failed, 0 where it did not, and what it said."""
    try:
        for _ in client.stream(statement, "Null"):
            pass
    except QueryFailed as error:
        return error.code or -1, str(error)[:200]
    return 0, ""
