"""What the tests of reports share: a store behind the HTTP interface, a reader of it, and what a report answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sp_telemetry.reports.catalogue import REPORTS
from sp_telemetry.reports.parameters import parameters
from sp_telemetry.reports.run import Result, ask
from sp_telemetry.store.client import Client
from tests.store.clickhouse_server import READER_PASSWORD, Server

ZONE = "Asia/Kathmandu"  # +05:45: no hour of UTC is one of its hours
CONTEXT = ("project", "branch", "feature", "chapter", "step")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("reports"))
    server.owner("ALTER TABLE telemetry.telemetry_events REMOVE TTL")  # recordings grow older than the retention
    yield server
    server.close()


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(f"http://127.0.0.1:{server.port}", "telemetry_reader", READER_PASSWORD)


def clear(server: Server) -> None:
    for table in ("telemetry_events", "session_context", "session_summaries", "usage_hourly"):
        server.owner(f"TRUNCATE TABLE telemetry.{table}")


def report(client: Client, name: str, by: str, **more: Any) -> Result:
    more = {"start": "2026-01-01", "tz": ZONE} | more
    return ask(client, REPORTS[name], parameters(REPORTS[name], by=by, **more))


def answered(result: Result) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows by name, without the one that says nothing is unattributed."""
    main = result.report.main
    return {
        tuple(row[name] for name in result.parameters.by): row
        for row in result.rows
        if row[main] or row.get("requests") or row.get("sessions")
    }
