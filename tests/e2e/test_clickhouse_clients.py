"""The server process as people's own clients see it: clickhouse-connect, sync and async, and curl."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from sp_telemetry.home import READER, WRITER
from tests.server import Server, as_protobuf, log_request, server

SESSION = "00000000-0000-0000-0000-0000000000cc"
COSTS = [0.25, 0.5, 1.0]
QUERY = "SELECT event_type, count() AS events, sum(cost_usd) AS cost FROM telemetry_events GROUP BY event_type"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("asked")) as started:
        told = {"name": "api_request", "session.id": SESSION}
        events = [told | {"time_ns": time.time_ns(), "event.sequence": number, "cost_usd": cost} for number, cost in enumerate(COSTS)]
        started.stored("logs", as_protobuf(log_request(events)))
        started.stored("logs", as_protobuf(log_request(events)))  # readers see each once, with no FINAL in their queries
        yield started


def login(running: Server, user: str) -> dict:
    return {"host": "127.0.0.1", "port": running.ports["clickhouse"], "username": user, "password": running.home.secret(user),
            "database": "telemetry"}  # fmt: skip


def test_clickhouse_connect(running):
    client = clickhouse_connect.get_client(**login(running, READER))
    try:
        assert client.query(QUERY).result_rows == [("api_request", 3, sum(COSTS))]
        chosen = "SELECT cost_usd FROM telemetry_events WHERE cost_usd > {least:Float64} ORDER BY 1"
        assert client.query(chosen, parameters={"least": 0.3}).result_rows == [(0.5,), (1.0,)]
        with pytest.raises(DatabaseError):
            client.command("TRUNCATE TABLE telemetry_events")
    finally:
        client.close()


def test_clickhouse_connect_async(running):
    async def ask() -> list[tuple]:
        client = await clickhouse_connect.get_async_client(**login(running, READER))
        try:
            answers = await asyncio.gather(*(client.query(f"SELECT {number} + count() FROM telemetry_events") for number in range(8)))
            return [answer.result_rows[0][0] for answer in answers]
        finally:
            await client.close()

    assert asyncio.run(ask()) == [number + 3 for number in range(8)]


def test_clickhouse_connect_writes_what_it_read(running):
    client = clickhouse_connect.get_client(**login(running, WRITER))
    try:
        columns = "timestamp, event_type, session_id, event_id, cost_usd"
        rows = client.query(f"SELECT {columns} FROM telemetry_events WHERE cost_usd = 1").result_rows
        client.insert("telemetry_events", [[*rows[0][:2], "copied", *rows[0][3:]]], column_names=columns.split(", "))
        assert client.query("SELECT cost_usd FROM telemetry_events WHERE session_id = 'copied'").result_rows == [(1.0,)]
        client.command("ALTER TABLE telemetry_events DELETE WHERE session_id = 'copied' SETTINGS mutations_sync = 2")
    finally:
        client.close()


@pytest.mark.needs("curl")
def test_curl_as_people_write_it(running):
    def curl(*arguments: str) -> str:
        address = f"http://localhost:{running.ports['clickhouse']}/"
        return subprocess.run(["curl", "--silent", "--ipv4", address, *arguments], capture_output=True, text=True, check=True).stdout

    user = f"{READER}:{running.home.secret(READER)}"
    assert curl("-u", user, "--data-binary", f"{QUERY} FORMAT TSV") == "api_request\t3\t1.75\n"
    assert json.loads(curl("-u", user, "-G", "--data-urlencode", f"query={QUERY} FORMAT JSON"))["data"][0]["cost"] == sum(COSTS)
    assert curl("-u", user, "-G", "--data-urlencode", "query=SELECT {a:UInt8} + 1", "-d", "param_a=1") == "2\n"
    assert "516" in curl("-u", f"{READER}:wrong", "-d", "SELECT 1")
