"""The privacy promise, tried with the real client: secrets in everything that a session can hold, and everything switched on."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from shlex import quote

import pytest

from tests.client import ClaudeCode, Failure, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, executable
from tests.client.install import NEWEST, OLDEST, ClientUnavailable
from tests.conftest import require
from tests.e2e.planting import Planter, places
from tests.secrets_search import search
from tests.server import server, wait_for

EVERYTHING = dict.fromkeys(
    ("OTEL_LOG_USER_PROMPTS", "OTEL_LOG_ASSISTANT_RESPONSES", "OTEL_LOG_TOOL_DETAILS", "OTEL_LOG_TOOL_CONTENT", "OTEL_LOG_RAW_API_BODIES",
     "OTEL_LOG_MANAGED_SETTINGS", "OTEL_METRICS_INCLUDE_REPOSITORY"),
    "1",
)  # fmt: skip
TEXTS = ("prompt", "response", "command", "output", "content", "description", "error", "argument", "title")
NAMES = ("file", "resource", "header", "command name")


@pytest.mark.needs("npm", "git")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("version", "level"), [(NEWEST, "strict"), (OLDEST, "strict"), (NEWEST, "standard")])
def test_what_the_real_client_exports_with_everything_on_is_nowhere(tmp_path, version, level):
    """At `strict` no word of it, at `standard` none that the patterns know. The same session is exported to a recorder first: what it
    shows there is what was really sent."""
    try:
        binary = executable(version)
    except ClientUnavailable as reason:
        require(False, str(reason))
    plant = Planter(redactable=level != "strict", chance=random.Random(330))
    # What the API refuses with is the text that `standard` keeps: as many formats in each as are kept whole.
    refused = ["; ".join(plant(f"API error {agent}.{part}") for part in range(4)) for agent in range(8 if plant.redactable else 1)]
    said = {place: plant(place) for place in TEXTS} | {place: plant.name(place) for place in NAMES}
    tool = "Task" if version == OLDEST else "Agent"
    agents = [ToolUse(tool, subagent_type="general-purpose", description=plant(f"task {text}"), prompt=plant(f"agent {text}"))
              for text in refused]  # fmt: skip

    def bash(command: str, **more: str) -> ToolUse:
        return ToolUse("Bash", command=command, **more)

    script = Script().on(
        said["prompt"],
        Reply(said["response"], bash(f"echo {quote(said['command'])}; printf %s {quote(said['output'])}", description=said["description"])),
        Reply("2", ToolUse("Write", file_path=f"{said['file']}.md", content=said["content"])),
        Reply("3", bash(f"echo {quote(said['error'])} >&2; exit 3")),
        Reply("4", ToolUse("Read", file_path=f"/nowhere/{said['file']}")),
        Reply("5", *agents),
    )
    for agent, text in zip(agents, refused, strict=True):
        script.on(agent.input["prompt"], Failure(400, text))
    script.on(said["argument"], Reply("done"))
    script.otherwise(lambda request: Reply(said["title"]))
    book = tmp_path / "book"
    commands = book / ".claude" / "commands"
    commands.mkdir(parents=True)
    name = said["command name"]
    (commands / f"{name}.md").write_text("Do: $ARGUMENTS\n")
    subprocess.run(["git", "init", "-q", "-b", "017-x", str(book)], check=True)

    def session(environ: dict[str, str]) -> None:
        more = EVERYTHING | {"OTEL_RESOURCE_ATTRIBUTES": f"team.secret={said['resource']}", "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": ""}
        more["OTEL_EXPORTER_OTLP_HEADERS"] = f"x-secret={said['header']}"
        for prompt in (said["prompt"], f"/{name} {said['argument']}"):
            client.run(prompt, cwd=book, env=environ | more)

    at = server(tmp_path / "sp home", SP_TELEMETRY_PRIVACY_LEVEL=level)
    with MessagesApi(script) as api, OtlpRecorder(grpc=False) as recorder, at as running:
        client = ClaudeCode(binary, tmp_path / "home", api.url)

        def exported(environ: dict[str, str], whole: Callable[[], bool]) -> bool:
            """A client waits two seconds for its last exports, whatever it is told, and on a busy machine leaves some unsent."""
            return any(session(environ) or wait_for(whole, 10) for _ in range(3))

        def unsent() -> list[str]:
            sent = b"".join(request.body + repr(request.headers).encode() for request in recorder.requests)
            return [place for place, secret in plant.secrets.items() if place != "title" and secret.encode() not in sent]

        def stored(table: str) -> int:
            return running.query(f"SELECT count() FROM telemetry.{table}")[0][0]

        assert exported(recorder.environment(), lambda: not unsent()), f"was not exported, so nothing would be shown: {unsent()}"
        to = recorder.environment() | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{running.ports['otlp_http']}"}
        everything = {"telemetry_events": 20, "telemetry_spans": 5, "telemetry_metrics": 5}
        assert exported(to, lambda: all(stored(table) > least for table, least in everything.items())), running.metrics()
        if plant.redactable:
            kept = running.query("SELECT sum(countSubstrings(api_error_message, 'it said: ')) FROM telemetry.telemetry_events")
            assert kept[0][0] > 20, "no text was kept, so nothing was shown"
        assert search(plant.secrets, places(running, client.config)) == []
