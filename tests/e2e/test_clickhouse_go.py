"""clickhouse-go 2.47 behind database/sql over HTTP, with the options and statements of Grafana's ClickHouse data source."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from sp_telemetry.home import READER
from sp_telemetry.setup.replay import Recording as Replayed
from sp_telemetry.setup.replay import replay
from tests.collector.build import CollectorUnavailable, clickhouse_go
from tests.conftest import require
from tests.recordings.reading import recordings
from tests.server import Server, server

pytestmark = [pytest.mark.needs("go"), pytest.mark.timeout(900)]

HOUR = "timestamp >= toDateTime64(1700000000, 3) AND timestamp <= toDateTime64(1900000000, 3)"
STATEMENTS = {  # as the data source sends them (src/data/CHDatasource.ts, sqlGenerator.ts, its own dashboards); tables are ours
    "version": "SELECT version()",
    "databases": "SHOW DATABASES",
    "tables": 'SHOW TABLES FROM "telemetry"',
    "columns": 'DESC TABLE "telemetry"."telemetry_events"',
    "names": "SELECT name, type, table FROM system.columns WHERE database IN ('telemetry') AND table = 'telemetry_events'",
    "keys": (
        "SELECT DISTINCT arrayJoin(mapKeys(`attributes`)) as keys"
        " FROM (SELECT `attributes` FROM `telemetry`.`telemetry_events` LIMIT 1000) LIMIT 1000"
    ),
    "values": "SELECT DISTINCT `event_type` FROM `telemetry`.`telemetry_events` WHERE `event_type` IS NOT NULL LIMIT 1000",
    "of a key": (
        "SELECT DISTINCT `attributes`['hook_event'] FROM `telemetry`.`telemetry_events`"
        " WHERE mapContains(`attributes`, 'hook_event') LIMIT 1000"
    ),
    "table": 'SELECT * FROM "telemetry"."telemetry_events" ORDER BY timestamp, event_sequence LIMIT 1000',
    "series": (
        'SELECT toStartOfInterval("timestamp", INTERVAL 60 second) as "time", sum(cost_usd) as cost, model'
        f' FROM "telemetry"."telemetry_events" WHERE ( {HOUR} ) AND event_type = \'api_request\''
        " GROUP BY time, model ORDER BY time ASC LIMIT 1000"
    ),
    "logs": (
        'SELECT timestamp as "timestamp", event_type as "body", attributes as "labels" FROM "telemetry"."telemetry_events"'
        f" WHERE ( {HOUR} ) ORDER BY timestamp DESC LIMIT 100"
    ),
    "spans": (
        'SELECT "trace_id" as traceID, "span_id" as spanID, "parent_span_id" as parentSpanID, "span_name" as operationName,'
        ' "timestamp" as startTime, multiply("duration_ns", 0.000001) as duration,'
        " arrayMap(key -> map('key', key, 'value',\"attributes\"[key]), mapKeys(\"attributes\")) as tags"
        ' FROM "telemetry"."telemetry_spans" WHERE duration > 0 ORDER BY timestamp DESC, duration DESC LIMIT 1000'
    ),
    "sizes": "SELECT sum(total_rows) as \"Number of rows\" FROM system.tables WHERE database IN ('telemetry');",
}


def test_grafanas_statements_are_answered_by_its_own_library(tmp_path: Path) -> None:
    try:
        program = clickhouse_go()
    except CollectorUnavailable as error:
        require(False, str(error))
    recording = next(each for each in recordings() if each.name == "book-2.1.330-http-protobuf")
    with server(tmp_path) as store:
        replay(Replayed(recording.directory), "127.0.0.1", store.ports)
        answers = asked(program, store)
        events = list(recording.events())
        assert answers["version"][0][0].startswith("26.") and ["telemetry"] in answers["databases"]
        assert {("telemetry_events",), ("session_summaries",)} <= set(map(tuple, answers["tables"]))
        assert [row[:2] for row in answers["columns"]] == [row[:2] for row in answers["names"]] and len(answers["columns"]) > 50
        assert {row[0] for row in answers["values"]} == {event.name for event in events}
        assert answers["keys"] and answers["of a key"] and len(answers["logs"]) == 100 and answers["spans"]
        assert len(answers["table"]) == len(events) and min(map(len, answers["table"])) > 50
        cost = sum(event.attributes["cost_usd"] for event in events if event.name == "api_request")
        assert sum(float(row[1]) for row in answers["series"]) == pytest.approx(cost, abs=1e-9)


def asked(program: Path, of: Server) -> dict[str, list[list[str]]]:
    address = f"http://{READER}:{of.home.secret(READER)}@127.0.0.1:{of.ports['clickhouse']}"
    done = subprocess.run([program, address], input=json.dumps(list(STATEMENTS.values())), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(zip(STATEMENTS, json.loads(done.stdout), strict=True))
