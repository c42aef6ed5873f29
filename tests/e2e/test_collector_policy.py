"""The policy in a real collector against the policy in SQL: the same rows by either road, and nothing on its disk that SQL takes away.

The collector runs the shipped configuration and sends what it made to a recorder; what it made is then stored as what was sent is.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from sp_telemetry.home import WRITER, Home
from sp_telemetry.privacy import sql
from sp_telemetry.privacy.patterns import PATTERNS
from sp_telemetry.privacy.policy import LEVELS, Policy
from sp_telemetry.setup.replay import Recording as Replayed
from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.client import OtlpRecorder
from tests.collector.build import CONFIGURATION
from tests.collector.running import Collector, running
from tests.e2e.planting import Planter, by_hand
from tests.recordings.clean import empty_message
from tests.recordings.reading import recordings
from tests.secrets_search import files, search
from tests.server import JSON, PROTOBUF, as_json, context, log_request, pairs, server, wait_for
from tests.store.examples import example

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


def texts() -> list[str]:
    """Of every pattern its examples and some made from it, with something around them; and what is long, odd or nothing.
    Not of cards, where a collector takes away more."""
    chance = random.Random(7)
    found = [
        "",
        "<REDACTED>",
        "\x00\x1b[31m red\ttab\nline",
        "x" * 4000,
        "a word " * 900,
        "ü" * 400,
        "ends in password=" + "x" * 290,
        "17",
        "-0.5",
    ]
    for pattern in PATTERNS:
        if pattern.check:
            continue
        made = [example(pattern.regex, chance) for _ in range(2)]
        found += [
            *pattern.like,
            *pattern.unlike,
            *(f"{chance.choice(['', 'x ', 'a/', '('])}{text}{chance.choice(['', ' y', ','])}" for text in made),
        ]
    return found


def of_texts(names: list[str]) -> Request:
    """Each text as each of these attributes, in the record and in the resource, of an event, a context record and a span."""
    told = {"session.id": str(UUID(int=161)), "name": "api_error"}
    events = [told | {"time_ns": START + n, "event.sequence": n} | dict.fromkeys(names, text) for n, text in enumerate(texts())]
    return "logs", JSON, as_json(log_request(events))


def test_texts_are_treated_alike(road: Road) -> None:
    """Every kind of attribute, every pattern: by either road the same columns."""
    kinds = ["error", "model", "enduser.id", "tool_name", "service.version", "plugin.version", "agent_id", "prompt.id", "prompt",
             "tool_parameters", "user.email", "full_command", "mcp_tool.name", "cost_usd",
             "vcs.ref.head.name", "body", "no.such.attribute"]  # fmt: skip
    session = str(UUID(int=162))
    records = [context(session, START + n, branch=text, person=text, confidence=text, project="book") for n, text in enumerate(texts())]
    request = [of_texts(kinds), ("logs", JSON, as_json(log_request(records)))]
    spans = [{"name": text, "startTimeUnixNano": str(START + n), "endTimeUnixNano": str(START + n + 5), "status": {"message": text},
              "attributes": pairs({"session.id": session, "error": "", "tool_name": text, "prompt": text})}
             for n, text in enumerate(texts())]  # fmt: skip
    request.append(("traces", JSON, as_json({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})))
    straight, through = road.rows(request), road.rows(road.through(request))
    assert [len(straight[table]) for table in ("telemetry_events", "telemetry_spans", "session_context")] == [len(texts())] * 3
    for table, rows in straight.items():
        differ = [(one, other) for one, other in zip(rows, through[table], strict=True) if one != other]
        assert differ == [], table


def test_a_second_collector_changes_nothing(road: Road) -> None:
    once = road.through([*recorded()[:40], of_texts(["error", "model", "prompt", "tool_name", "agent_id"])])
    assert road.rows(road.through(once)) == road.rows(once)


def queued(level: str, folder: Path, planters: list[Planter]) -> list[tuple[str, str, str]]:
    """Where the planted secrets are in all that a collector writes while the store is away."""
    chosen = {"COLLECTOR_EXPORTERS": "[otlp_http]", "TELEMETRY_FORWARD_ENDPOINT": "http://127.0.0.1:1"}
    with running(folder, "http://127.0.0.1:1", "-", policy=policy_of(level), salt=SALT, **chosen) as collector:
        for plant in planters:
            for signal, request, _ in by_hand(plant):
                bare = re.sub(r'"(traceId|spanId)": "[^"]*"', r'"\1": ""', as_json(request).decode()).encode()
                assert collector.post(signal, bare, JSON) == 200, collector.log.read_text()[-2000:]
        wait_for(lambda: collector.metric("otelcol_exporter_queue_size") > 0)
        collector.stop()
    written = list(files(folder))
    queue = b"".join(data for name, data in written if name.startswith("queue"))
    assert queue.count(b"api_error") > 20, "nothing was queued, so nothing was shown"
    secrets = {f"{place} {number}": secret for number, plant in enumerate(planters) for place, secret in plant.secrets.items()}
    assert len(secrets) > 400
    return search(secrets, written)


@pytest.mark.parametrize("level", ["strict", "standard", pytest.param("full", marks=pytest.mark.long)])
def test_the_queue_holds_none_of_the_planted_secrets(level: str, tmp_path: Path) -> None:
    """At `strict` no word of what was sent, at any level nothing that the patterns know."""
    planters = [Planter(redactable=True, chance=random.Random(level))]
    if level == "strict":
        planters.append(Planter(redactable=False, chance=random.Random(0)))
    assert queued(level, tmp_path, planters) == []


def test_a_looser_policy_is_found_out(tmp_path: Path) -> None:
    """`standard` keeps words of errors and names: the search sees them in the queue, and none of what even `standard` drops."""
    found = {place for place, _, _ in queued("standard", tmp_path, [Planter(redactable=False, chance=random.Random(1))])}
    assert {"api_error: error 0", "api_error: tool_name 0", "span status 0"} <= found
    assert not found & {"api_error: prompt 0", "unknown attribute 0", "body 0", "metric description 0", "link attribute 0", "exemplar 0"}


# ---- the road of the compose file


_WITH_SALT = """
import sys
from pathlib import Path
from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine
engine = Engine(Path(sys.argv[1]))
with engine.handle() as handle:
    schema.migrate(handle, privacy=sql.render(Policy(sys.argv[2])), salt=sys.argv[3])
engine.close()
"""


@pytest.mark.parametrize("level", ["strict", *(pytest.param(level, marks=pytest.mark.long) for level in LEVELS[1:])])
def test_the_exporter_and_the_stores_own_views_write_the_same_rows(level: str, tmp_path: Path) -> None:
    """The policy applied twice: by the collector, and by the store that its ClickHouse exporter writes to."""
    home = Home(tmp_path / "home").make()
    subprocess.run([sys.executable, "-c", _WITH_SALT, str(home.store), level, SALT], check=True, capture_output=True)
    with server(tmp_path / "home", SP_TELEMETRY_PRIVACY_LEVEL=level) as store:
        into = f"http://127.0.0.1:{store.ports['clickhouse']}"
        with running(tmp_path / "collector", into, store.home.secret(WRITER), policy=policy_of(level), salt=SALT) as collector:

            def rows() -> dict[str, list[list[object]]]:
                shown = {"telemetry_events": "toString(tuple(* EXCEPT (received_at, version, attributes), mapSort(attributes)))"}
                shown |= dict.fromkeys(
                    ("telemetry_metrics", "telemetry_spans"), "toString(tuple(* EXCEPT (received_at, attributes), mapSort(attributes)))"
                )
                return {
                    table: store.query(f"SELECT {columns} AS row FROM telemetry.{table} FINAL ORDER BY row")
                    for table, columns in shown.items()
                }

            records = sorted(recorded(), key=lambda request: request[1] != JSON)  # contexts before what they explain
            for signal, kind, body in records:
                store.stored(signal, body, kind)
            straight = rows()
            assert min(map(len, straight.values())) > 400
            for table in straight:
                store.run(f"TRUNCATE TABLE telemetry.{table}")
            for signal, kind, body in records:
                assert collector.post(signal, body, kind) == 200
            wait_for(lambda: rows() == straight, 60, 0.5)
            assert rows() == straight
