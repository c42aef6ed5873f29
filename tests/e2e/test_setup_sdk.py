"""Variables of the client's OpenTelemetry SDK with which all looks well: each tried on the real client, and found by the doctor.
What a server costs that is down, or takes connections and never answers, when a session ends."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from sp_telemetry.setup import client_versions
from tests.client import ClaudeCode, MessagesApi, Reply, Script
from tests.e2e.test_plan import program
from tests.e2e.test_setup import Machine
from tests.e2e.test_setup_causes import EVENTS, NEW, NONE, OLD, PROTOCOL, RESOURCE, VERSIONS, Cause, happens, look, place

__all__ = ["place"]  # a fixture
pytestmark = pytest.mark.needs("node", "npm", "git")

BETA = {"CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1"}
HEADERS, COUNT, LENGTH = "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT"
INTERVAL, QUEUE, BATCH = "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_BLRP_MAX_QUEUE_SIZE", "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE"
SESSION_ID = "OTEL_METRICS_INCLUDE_SESSION_ID"
MENDED = client_versions.parse(NEW) >= (2, 1, 332)
CAUSES = (
    Cause("an exporter that is none, beside ours", "unknown-exporter", NONE, {"OTEL_LOGS_EXPORTER": "otlp,elastic"}),
    Cause("an exporter that is none, of metrics", "unknown-exporter", NONE, {"OTEL_METRICS_EXPORTER": "OTLP"}),
    Cause("an exporter that is none, of spans", "unknown-exporter", NONE, {"OTEL_TRACES_EXPORTER": "zipkin", **BETA}),
    Cause("an exporter that is none, of spans that nobody sends", "", EVENTS, {"OTEL_TRACES_EXPORTER": "zipkin"}),
    Cause("a protocol that is none, of metrics", "unknown-protocol", NONE, {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http"}),
    Cause("no time between metrics", "export-limit", NONE, {INTERVAL: "0"}),
    Cause("no time between metrics, from a repository", "export-limit", NONE, project={INTERVAL: "0.5"}),
    Cause("an interval in words", "", EVENTS, {INTERVAL: "often"}),
    Cause("batches of less than nothing", "export-limit", {OLD: NONE, NEW: EVENTS if MENDED else NONE}, {BATCH: "-1"},
          level={OLD: "error", NEW: "" if MENDED else "error"}),
    Cause("no queue", "export-limit", NONE, {QUEUE: "0"}),
    Cause("a short queue", "export-limit", EVENTS, {QUEUE: "3"}, level="warning"),
    Cause("few attributes", "export-limit", EVENTS, {COUNT: "3"}),
    Cause("short values", "export-limit", NONE, {LENGTH: "3"}),
    Cause("rather short values", "export-limit", EVENTS, {LENGTH: "512"}, level="warning"),
    Cause("no session's id", "no-session-id", NONE, {SESSION_ID: "false"}),
    Cause("no session's id, from a repository", "no-session-id", NONE, project={SESSION_ID: ""}),
    Cause("a header that is none", "bad-headers", NONE, {HEADERS: "team=hush,a b=c"}),
    Cause("a header with half an escape", "bad-headers", {OLD: NONE, NEW: EVENTS}, {HEADERS: "hush=100%"}, level={OLD: "error", NEW: ""}),
    Cause("headers", "", EVENTS, {HEADERS: "Authorization=Bearer%20abc,x-team=docs"}),
    Cause("a helper that is not there", "headers-helper", NONE, settings={"otelHeadersHelper": "/nowhere/headers"}),
    Cause("a helper that fails", "headers-helper", NONE, settings={"otelHeadersHelper": "exit 1"}, level="warning"),
    Cause("a helper, and gRPC, which does not ask it", "", EVENTS, {PROTOCOL: "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:{grpc}"},
          settings={"otelHeadersHelper": "exit 1"}),
    Cause("another name of the service", "", EVENTS, {"OTEL_SERVICE_NAME": "mine", RESOURCE: "service.name=other,enduser.id=Ada"}),
    Cause("the SDK switched off, which Claude Code does not look at", "", EVENTS, {"OTEL_SDK_DISABLED": "true"}),
)  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES, ids=str)
def test_pitfall_32_each_variable_does_what_it_is_said_to_and_is_found(place: Machine, cause: Cause) -> None:
    happens(place, cause)
    if cause.code == "bad-headers":
        assert "hush" not in str(look(place).as_dict()), "headers are secrets"


@pytest.mark.parametrize("version", VERSIONS)
def test_pitfall_32_a_session_ends_soon_whether_the_server_is_down_or_hangs(tmp_path: Path, version: str) -> None:
    took = {}
    with MessagesApi(Script().on("go on", Reply("done"))) as api, socket.create_server(("127.0.0.1", 0)) as hangs:
        with socket.create_server(("127.0.0.1", 0)) as down:
            ports = {"off": 0, "down": down.getsockname()[1], "hangs": hangs.getsockname()[1]}
        for name, port in ports.items():
            client = ClaudeCode(program(version), tmp_path / name, api.url)
            on = {"CLAUDE_CODE_ENABLE_TELEMETRY": "1", "OTEL_LOGS_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp",
                  PROTOCOL: "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}  # fmt: skip
            began = time.monotonic()
            assert client.run("go on", cwd=tmp_path, env=on if port else {}).returncode == 0
            took[name] = time.monotonic() - began
    assert max(took.values()) < took["off"] + 15, took  # a quiet machine: two where it hangs, none where it is down
