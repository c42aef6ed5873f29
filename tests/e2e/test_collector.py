"""Claude Code → a real OpenTelemetry Collector → its ClickHouse exporter → 8123: the same rows, the same reports as without it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from sp_telemetry.home import WRITER
from sp_telemetry.reports.catalogue import REPORTS
from sp_telemetry.setup.replay import Recording as Replayed
from sp_telemetry.setup.replay import replay
from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, executable
from tests.client.install import NEWEST, ClientUnavailable
from tests.collector.build import CONFIGURATION
from tests.collector.running import NO_POLICY, Collector, running
from tests.conftest import ROOT, require
from tests.recordings.reading import recordings
from tests.server import Server, server, wait_for
from tests.unit.test_hooks import NOBODY, book

pytestmark = [pytest.mark.needs("go"), pytest.mark.timeout(1500)]  # the collector may have to be built first

MOMENTS = ("received_at", "version")  # of storing, not of the event
TABLES = {
    "telemetry_events": MOMENTS,
    "telemetry_metrics": ("received_at",),
    "telemetry_spans": ("received_at",),
    "session_context": ("received_at",),
}
CONSOLE, FORWARD, PROMETHEUS = ", debug", ", otlp_http", "[prometheus]"


def collecting(folder: Path, into: Server, **environment: str) -> Collector:
    url = f"http://127.0.0.1:{into.ports['clickhouse']}"
    return running(folder, url, into.home.secret(WRITER), policy=NO_POLICY, **environment)


# ---- the configuration


@pytest.mark.parametrize("on", [on for size in range(4) for on in itertools.combinations((CONSOLE, FORWARD, PROMETHEUS), size)], ids=str)
def test_the_configuration_is_valid_with_each_choice_of_exporters(tmp_path: Path, on: tuple[str, ...]) -> None:
    chosen = {"COLLECTOR_EXPORTERS": f"[clickhouse{''.join(each for each in on if each != PROMETHEUS)}]"}
    chosen |= {"COLLECTOR_PROMETHEUS": PROMETHEUS} if PROMETHEUS in on else {}
    done = Collector(tmp_path, "http://127.0.0.1:1", "secret", policy=NO_POLICY, **chosen).validate()
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_policy_it_does_not_start(tmp_path: Path) -> None:
    collector = Collector(tmp_path, "http://127.0.0.1:1", "secret", policy=CONFIGURATION / "config.yaml")
    done = collector.validate()
    assert done.returncode == 1 and 'processor "redaction/privacy" which is not configured' in done.stderr


def test_the_defaults_are_those_of_the_container(tmp_path: Path) -> None:
    """With nothing in the environment it validates too, given the password's file where a container has it."""
    collector = Collector(tmp_path, "", "", policy=NO_POLICY)
    secrets = collector.environment["TELEMETRY_SECRETS_DIR"]
    collector.environment = {"TELEMETRY_SECRETS_DIR": secrets, "TELEMETRY_QUEUE_DIR": str(tmp_path / "queue")}
    done = collector.validate()
    assert (done.returncode, done.stderr) == (0, "")


# ---- the road


def rows(of: Server, table: str) -> list[str]:
    maps = of.query(f"SELECT name FROM system.columns WHERE database = 'telemetry' AND table = '{table}' AND type LIKE 'Map%'")
    sorted_maps = ", ".join(f"mapSort({name}) AS {name}" for [name] in maps)  # their order says nothing
    columns = f"* EXCEPT ({', '.join(TABLES[table])})" + (f" REPLACE ({sorted_maps})" if maps else "")
    return [row[0] for row in of.query(f"SELECT toString(tuple({columns})) FROM telemetry.{table} FINAL ORDER BY 1")]


def reports(of: Server) -> dict[str, list]:
    """What every report says of all times."""
    asked = {name: of.command("report", name, "--from", "2020-01-01", "--json") for name in REPORTS}
    return {name: json.loads(done.stdout).get("rows") for name, done in asked.items()}


def through(collector: Collector) -> None:
    for recording in recordings():
        replay(Replayed(recording.directory), "127.0.0.1", {"otlp_http": collector.ports["HTTP"], "otlp_grpc": collector.ports["GRPC"]})


def test_the_recordings_are_stored_row_by_row_as_without_a_collector(tmp_path: Path) -> None:
    """Into one store, for hashes are of one salt: a second time over what is there, which changes no row and no report, then emptied."""
    with server(tmp_path / "home") as store, collecting(tmp_path / "collector", store) as collector:
        for recording in recordings():
            replay(Replayed(recording.directory), "127.0.0.1", store.ports)
        straight = {table: rows(store, table) for table in TABLES}
        assert min(map(len, straight.values())) > 50
        reported = reports(store)
        doubled = store.metrics()["sp_telemetry_events_duplicate"]
        through(collector)
        sent = len(straight["telemetry_events"])
        wait_for(lambda: store.metrics()["sp_telemetry_events_duplicate"] >= doubled + sent, 60, 0.5)
        wait_for(lambda: collector.metric("otelcol_exporter_queue_size") == 0, 60)
        assert store.metrics()["sp_telemetry_events_duplicate"] == doubled + sent
        assert reported["cost"] and reported["errors"] and reports(store) == reported
        assert {table: rows(store, table) for table in TABLES} == straight
        for table in TABLES:
            store.run(f"TRUNCATE TABLE telemetry.{table}")
        through(collector)
        for table, wanted in straight.items():
            wait_for(lambda: rows(store, table) == wanted, 60, 0.5)  # noqa: B023 - also attributed, where a context came after its events
            assert rows(store, table) == wanted, table


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.needs("npm", "git", "sh")
@pytest.mark.checkout
def test_the_clients_cost_is_reported_and_attributed_by_what_the_hooks_say(tmp_path: Path, protocol: str) -> None:
    try:
        binary = executable(NEWEST)
    except ClientUnavailable as reason:
        require(False, str(reason))
    where = book(tmp_path / "book")
    chapter = str(where / "manuscript/05-part/33-agents/new.md")
    script = Script().on(
        "write the chapter",
        Reply("1", ToolUse("Write", file_path=chapter, content="x")),
        Reply("2", ToolUse("Bash", command="echo x")),
        Reply("done"),
    )
    with server(tmp_path / "sp home") as store, collecting(tmp_path / "collector", store) as collector, MessagesApi(script) as api:
        client = ClaudeCode(binary, tmp_path / "home", api.url)
        with OtlpRecorder(grpc=False) as unused:
            env = unused.environment(protocol) | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint(protocol)}
        env |= {
            "SP_TELEMETRY_HOME": str(tmp_path / "hooks home"),
            "SP_TELEMETRY_OTLP_HTTP_PORT": str(collector.ports["HTTP"]),
            "SP_TELEMETRY_CLICKHOUSE_PORT": str(NOBODY),
        }
        run = client.run("write the chapter", cwd=where, env=env, more=["--plugin-dir", str(ROOT)])
        assert run.returncode == 0, run.stderr
        printed = run.result["total_cost_usd"]
        assert printed > 0

        def told() -> dict[str, float]:
            done = store.command("report", "cost", "--by", "feature", "--format", "json")
            return {row["feature"]: row["cost_usd"] for row in json.loads(done.stdout)["rows"]} if done.returncode == 0 else {}

        wanted = {"017-usage-data-collection": pytest.approx(printed, abs=1e-9), "unattributed": 0}
        assert wait_for(lambda: told().get("017-usage-data-collection", 0) == wanted["017-usage-data-collection"], 30), told()
        session = run.session_id
        [[requests, chapters]] = store.query(
            "SELECT count(), groupUniqArray(chapter_context) FROM telemetry.telemetry_events FINAL"
            f" WHERE session_id = '{session}' AND event_type = 'api_request'"
        )
        assert requests == 3 and any("33-agents" in each for each in chapters), chapters
        # The signals are queued and written one apart from the other.
        metrics = "SELECT sum(value) FROM telemetry.telemetry_metrics FINAL WHERE metric_name = 'claude_code.cost.usage'"
        wait_for(lambda: store.query(metrics) != [[0]])
        [[points]] = store.query(metrics)
        assert points == pytest.approx(printed, abs=1e-9)
        traced = f"SELECT count(), uniq(trace_id) FROM telemetry.telemetry_spans FINAL WHERE session_id = '{session}'"
        wait_for(lambda: store.query(traced)[0][0] > 5)
        [[spans, traces]] = store.query(traced)
        assert spans > 5 and traces >= 1
        wait_for(lambda: collector.metric("otelcol_exporter_queue_size") == 0)
        assert collector.metric("otelcol_exporter_queue_size") == 0
