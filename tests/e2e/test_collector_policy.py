"""The policy in a real collector against the policy in SQL: the same rows by either road, and nothing on its disk that SQL takes away.

The collector runs the shipped configuration and sends what it made to a recorder; what it made is then stored as what was sent is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import LEVELS, Policy
from sp_telemetry.setup.replay import Recording as Replayed
from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.client import OtlpRecorder
from tests.collector.build import CONFIGURATION
from tests.collector.running import Collector, running
from tests.recordings.clean import empty_message
from tests.recordings.reading import recordings
from tests.secrets_search import files, search
from tests.server import JSON, PROTOBUF, as_json, as_protobuf, context, log_request, pairs, wait_for

pytestmark = [pytest.mark.needs("go"), pytest.mark.timeout(1500)]  # the collector may have to be built first

SALT = "5a17" * 8
START = 1_790_000_000 * 10**9
SIGNALS = ("logs", "metrics", "traces")
OF = {"logs": "resourceLogs", "metrics": "resourceMetrics", "traces": "resourceSpans"}
MOMENTS = {"telemetry_events": "received_at, version", "telemetry_metrics": "received_at", "telemetry_spans": "received_at",
           "session_context": "received_at"}  # fmt: skip
Request = tuple[str, str, bytes]  # signal, content type, body


def policy_of(level: str) -> Path:
    return CONFIGURATION / "privacy" / f"{level}.yaml"


class Road:
    """A store in memory of this process, and a collector of the same level and salt."""

    def __init__(self, level: str, handle: Handle, collector: Collector, recorder: OtlpRecorder) -> None:
        self.level, self.handle, self.collector, self.recorder = level, handle, collector, recorder
        self.pipeline = Pipeline(handle)

    def through(self, requests: list[Request]) -> list[Request]:
        """What the collector makes of them."""
        before = len(self.recorder.requests)
        for signal, kind, body in requests:
            assert self.collector.post(signal, body, kind) == 200, self.collector.log.read_text()[-2000:]

        def made() -> list[Request]:
            return [(one.signal, PROTOBUF, one.body) for one in self.recorder.requests[before:]]

        wanted = {signal: items(signal, requests) for signal in SIGNALS}
        assert wait_for(lambda: {signal: items(signal, made()) for signal in SIGNALS} == wanted, 60), self.collector.log.read_text()[-2000:]
        return made()

    def rows(self, requests: list[Request]) -> dict[str, list[str]]:
        """What the store keeps of them, by table."""
        for table in MOMENTS:
            self.handle.query(f"TRUNCATE TABLE telemetry.{table}")
        for signal in SIGNALS:
            for kind in (JSON, PROTOBUF):  # the hooks' context records are JSON, and come before what they explain
                if bodies := [body for of, type_, body in requests if (of, type_) == (signal, kind)]:
                    self.pipeline.store(Lane(signal, "json" if kind == JSON else "protobuf"), bodies)
        maintenance.reattribute(self.handle, 0)
        return {table: self._dump(table) for table in MOMENTS}

    def _dump(self, table: str) -> list[str]:
        names = self.handle.query(f"SELECT name, type LIKE 'Map%' FROM system.columns WHERE database = 'telemetry' AND table = '{table}'")
        columns = [line.split("\t") for line in names.decode().splitlines()]
        shown = [f"mapSort({name}) AS {name}" if is_map == "1" else name for name, is_map in columns if name not in MOMENTS[table]]
        shown = [name for name in shown if name != "written_ns"]
        dump = self.handle.query(f"SELECT {', '.join(shown)} FROM telemetry.{table} FINAL ORDER BY ALL", "JSONCompactEachRow")
        return dump.decode().splitlines()


def items(signal: str, requests: list[Request]) -> int:
    """How many records, points or spans they hold."""
    found = 0
    for of, kind, body in requests:
        if of != signal:
            continue
        message = empty_message(signal)
        if kind == JSON:
            from google.protobuf.json_format import Parse

            Parse(re.sub(rb'"(trace|span|parentSpan)Id": ?"[^"]*"', rb'"\1Id": ""', body), message, ignore_unknown_fields=True)
        else:
            message.ParseFromString(body)
        if signal == "logs":
            found += sum(len(scope.log_records) for one in message.resource_logs for scope in one.scope_logs)
        elif signal == "traces":
            found += sum(len(scope.spans) for one in message.resource_spans for scope in one.scope_spans)
        else:
            metrics = [metric for one in message.resource_metrics for scope in one.scope_metrics for metric in scope.metrics]
            found += sum(len(getattr(metric, metric.WhichOneof("data")).data_points) for metric in metrics)
    return found


@pytest.fixture(scope="module", params=LEVELS)
def road(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Road]:
    level, folder = request.param, tmp_path_factory.mktemp(request.param)
    engine = Engine(folder / "store")
    with engine.handle() as handle, OtlpRecorder(grpc=False) as recorder:
        schema.migrate(handle, privacy=sql.render(Policy(level)), salt=SALT)
        maintenance.apply_retention(handle, {"retention_events_days": 0, "retention_sessions_days": 0})
        chosen = {"COLLECTOR_EXPORTERS": "[otlp_http]", "TELEMETRY_FORWARD_ENDPOINT": recorder.http_url}
        with running(folder / "collector", "http://127.0.0.1:1", "-", policy=policy_of(level), salt=SALT, **chosen) as collector:
            yield Road(level, handle, collector, recorder)
    engine.close()


def recorded() -> list[Request]:
    every = [request for one in recordings() for request in Replayed(one.directory).requests()]
    return [(signal, JSON if "json" in kind else PROTOBUF, body) for signal, kind, body in every]


def test_the_recordings_are_the_same_rows_by_either_road(road: Road) -> None:
    requests = recorded()
    straight = road.rows(requests)
    assert min(len(rows) for rows in straight.values()) > 50
    through = road.rows(road.through(requests))
    for table, rows in straight.items():
        assert through[table] == rows, table
