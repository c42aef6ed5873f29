"""Telemetry on, 200 OK, no data: each cause made to happen with the real client, and found by the doctor before and after."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.setup import client_versions
from sp_telemetry.setup.doctor import Examination, examine
from sp_telemetry.setup.environment import variables
from tests.client import VERSIONS
from tests.e2e.test_setup import Machine, machine_in

pytestmark = pytest.mark.needs("node", "npm", "git")
NOBODY = "http://127.0.0.1:9"
EVENTS, NONE, NOT_ADA = "events", "no events", "events under another name"
OLD, NEW = VERSIONS


@dataclass
class Cause:
    """What is wrong, where; what then comes of a session, for both versions or by version; what the doctor calls it."""

    name: str
    code: str
    outcome: str | dict[str, str] = NONE
    user: dict[str, str | None] = field(default_factory=dict)
    shell: dict[str, str] = field(default_factory=dict)
    project: dict[str, str] = field(default_factory=dict)
    base: bool = True
    settings: dict[str, Any] = field(default_factory=dict)  # of the user, beside the variables
    level: str | dict[str, str] = "error"

    def __str__(self) -> str:
        return self.name


ENDPOINT, LOGS_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
PROTOCOL, RESOURCE = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_RESOURCE_ATTRIBUTES"
CAUSES = (
    Cause("all is well", "", EVENTS),
    Cause("localhost, and a slash at the end", "", EVENTS, {ENDPOINT: "http://localhost:{http}/"}),
    Cause("the console beside", "", EVENTS, {"OTEL_LOGS_EXPORTER": "otlp,console"}),
    Cause("true instead of 1", "", EVENTS, {"CLAUDE_CODE_ENABLE_TELEMETRY": "true"}),
    Cause("not switched on", "telemetry-off", NONE, {"CLAUDE_CODE_ENABLE_TELEMETRY": None}),
    Cause("switched off", "telemetry-off", NONE, {"CLAUDE_CODE_ENABLE_TELEMETRY": "0"}),
    Cause("no protocol", "no-protocol", {OLD: NONE, NEW: EVENTS}, {PROTOCOL: None}, level={OLD: "error", NEW: "warning"}),
    Cause("no such protocol", "unknown-protocol", NONE, {PROTOCOL: "http"}),
    Cause("gRPC to the HTTP port", "wrong-port", NONE, {PROTOCOL: "grpc"}),
    Cause("HTTP to the gRPC port", "wrong-port", NONE, {ENDPOINT: "http://127.0.0.1:{grpc}"}),
    Cause("a port where nobody is", "other-port", NONE, {ENDPOINT: NOBODY}),
    Cause("an endpoint with a path", "endpoint-path", NONE, {ENDPOINT: "http://127.0.0.1:{http}/v1/logs"}),
    Cause("https", "https", NONE, {ENDPOINT: "https://127.0.0.1:{http}"}),
    Cause("no scheme", "bad-endpoint", NONE, {ENDPOINT: "127.0.0.1:{http}"}),
    Cause("no endpoint", "no-endpoint", NONE, {ENDPOINT: None}),
    Cause("a signal's endpoint without its path", "signal-endpoint", NONE, {LOGS_ENDPOINT: "http://127.0.0.1:{http}"}),
    Cause("a signal's endpoint elsewhere, from the shell", "signal-endpoint", NONE, shell={LOGS_ENDPOINT: NOBODY + "/v1/logs"}),
    Cause("a signal's protocol", "signal-protocol", NONE, {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"}),
    Cause("no events exporter", "no-exporter", NONE, {"OTEL_LOGS_EXPORTER": None}),
    Cause("events to the console only", "no-exporter", NONE, {"OTEL_LOGS_EXPORTER": "console"}),
    Cause("detailed tracing", "beta-endpoint", NONE, {"ENABLE_BETA_TRACING_DETAILED": "1", "BETA_TRACING_ENDPOINT": NOBODY}),
    Cause("a repository silences events", "repository-silences", NONE, project={"OTEL_LOGS_EXPORTER": "none"}),
    Cause("a repository switches off", "telemetry-off", {OLD: NONE, NEW: EVENTS}, project={"CLAUDE_CODE_ENABLE_TELEMETRY": "0"},
          level={OLD: "error", NEW: ""}),
    Cause("a repository aims elsewhere", "other-port", {OLD: NONE, NEW: EVENTS}, project={ENDPOINT: NOBODY}, level={OLD: "error", NEW: ""}),
    Cause("only a repository switches on", "project-ignored", {OLD: EVENTS, NEW: NONE}, base=False, level={OLD: "", NEW: "warning"},
          project={**variables("http://127.0.0.1:{http}", "Ada")}),
    Cause("the shell says otherwise", "shell-beaten", EVENTS, shell={ENDPOINT: NOBODY}, level="warning"),
    Cause("a repository's attributes", "person-lost", NOT_ADA, project={RESOURCE: "team=docs"}, level="warning"),
    Cause("blanks in attributes", "attributes-not-encoded", {OLD: NOT_ADA, NEW: EVENTS}, {RESOURCE: "enduser.id=Ada,team=a b"},
          level="warning"),
    Cause("many attributes", "many-attributes", EVENTS, {RESOURCE: "enduser.id=Ada," + ",".join(f"k{n}=v" for n in range(13))},
          level="warning"),
    Cause("traces without beta", "traces-without-beta", EVENTS, {"OTEL_TRACES_EXPORTER": "otlp"}, level="warning"),
)  # fmt: skip


@pytest.fixture(scope="module", params=VERSIONS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine_in(tmp_path_factory.mktemp("causes"), request.param) as made:
        assert made.setup("--person", "Ada")["ok"]
        yield made


def look(machine: Machine, **shell: str) -> Examination:
    return examine(machine.home, machine.environ | shell, machine.book, managed=())


def codes(examination: Examination, level: str) -> set[str]:
    return {finding.code for finding in examination.findings if finding.level == level}


def test_pitfall_a14_an_endpoint_of_two_addresses_reaches_neither(place: Machine) -> None:
    happens(place, Cause("two endpoints", "two-endpoints", NONE, {ENDPOINT: "http://127.0.0.1:{http},http://127.0.0.1:{http}"}))


@pytest.mark.parametrize("cause", CAUSES, ids=str)
def test_pitfall_32_each_cause_does_what_it_is_said_to_and_is_found(place: Machine, cause: Cause) -> None:
    happens(place, cause)


def happens(place: Machine, cause: Cause) -> None:
    """A session with this cause at work, and what the doctor says after it."""
    http, grpc = (place.ports[name] for name in ("otlp_http", "otlp_grpc"))

    def filled(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value and value.replace("{http}", str(http)).replace("{grpc}", str(grpc)) for name, value in values.items()}

    base = variables(f"http://127.0.0.1:{http}", "Ada") if cause.base else {}
    user = {name: value for name, value in (base | filled(cause.user)).items() if value is not None}
    place.settings.write_text(json.dumps({"env": user, **cause.settings}))
    project = place.book / ".claude" / "settings.json"
    project.parent.mkdir(exist_ok=True)
    project.write_text(json.dumps({"env": filled(cause.project)}))

    version = ".".join(map(str, client_versions.installed(place.environ).version))
    outcome = cause.outcome if isinstance(cause.outcome, str) else cause.outcome[version]
    level = cause.level if isinstance(cause.level, str) else cause.level[version]

    run = place.session(env=cause.shell)
    events = place.events(run.session_id, least=0 if outcome == NONE else 3)
    names = {event["user_id"] for event in events}
    assert (NONE if not events else EVENTS if names == {"Ada"} else NOT_ADA) == outcome

    examination = look(place, **cause.shell)
    if not cause.code or not level:
        assert not codes(examination, "error")
        return
    found = [finding for finding in examination.findings if finding.code == cause.code]
    assert found and found[0].level == level, examination.as_dict()
    assert all(finding.what and finding.why and finding.mend for finding in found)
    if outcome == NONE and level == "error":
        assert examination.exit_code == 2
    assert examination.seconds < 10


def test_metrics_only(tmp_path: Path) -> None:
    with machine_in(tmp_path, NEW) as machine:
        machine.setup("--person", "Ada")
        settings = json.loads(machine.settings.read_text())
        del settings["env"]["OTEL_LOGS_EXPORTER"]
        machine.settings.write_text(json.dumps(settings))
        machine.session()
        assert {"metrics-only", "no-exporter"} <= codes(look(machine), "error")
        assert machine.setup()["ok"]  # what the finding names mends it
        assert machine.events(machine.session().session_id, least=3)
        assert not codes(look(machine), "error")


def test_pitfall_17_another_program_answers_200(tmp_path: Path) -> None:
    taken: list[str] = []

    class Swallow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.path)
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with machine_in(tmp_path, NEW) as machine:
        machine.setup("--person", "Ada")
        machine.cli("down")
        with ThreadingHTTPServer(("127.0.0.1", machine.ports["otlp_http"]), Swallow) as other:
            threading.Thread(target=other.serve_forever, args=(0.05,), daemon=True).start()
            machine.session()
            examination = look(machine)
            other.shutdown()
        assert "/v1/logs" in taken and machine.cli("up").returncode == 0 and machine.events() == []
        assert {"server-down", "port-held"} <= codes(examination, "error")
        held = next(finding for finding in examination.findings if finding.code == "port-held")
        assert "python" in held.what and "200 OK, no data" in held.why


def test_another_homes_server_answers(tmp_path: Path) -> None:
    with machine_in(tmp_path, NEW) as machine:
        machine.setup("--person", "Ada")
        other = machine.home.path.with_name("other home")
        done = machine.cli("doctor", "--json", SP_TELEMETRY_HOME=str(other))
        assert done.returncode == 2
        assert {"not-set-up"} <= {finding["code"] for finding in json.loads(done.stdout)["findings"]}
        # Its reports ask the server that answers, and are refused there.
        url = f"http://127.0.0.1:{machine.ports['clickhouse']}"
        done = machine.cli("doctor", "--json", SP_TELEMETRY_HOME=str(other), SP_TELEMETRY_URL=url)
        assert "reader-refused" in {finding["code"] for finding in json.loads(done.stdout)["findings"]}
