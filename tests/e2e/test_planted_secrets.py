"""The privacy promise, tried on the real server process: secrets are planted in each place that OTLP has and that Claude Code can fill,
by the real client with everything switched on and by hand for what it can't be made to send, and looked for in every byte that there is.
"""

# ruff: noqa: E501 - a place is one line
from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from sp_telemetry.privacy import sql
from sp_telemetry.privacy.keys import KEYS
from sp_telemetry.privacy.policy import ATTRIBUTES, Policy
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine
from sp_telemetry.store.framing import rows_of
from sp_telemetry.store.journal import Journal
from sp_telemetry.store.pipeline import CONTEXT_MARK, STANDING, Lane, Pipeline
from sp_telemetry.store.standing_query import AVAILABLE
from tests.client import ClaudeCode, Failure, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, executable
from tests.client.install import NEWEST, OLDEST, ClientUnavailable
from tests.conftest import require
from tests.secrets_search import columns, files, search
from tests.server import JSON, PROTOBUF, Server, any_value, as_json, as_protobuf, context, log_request, pairs, server, wait_for
from tests.store.examples import example
from tests.unit.test_hooks import Session
from tests.unit.test_hooks_names import plant
from tests.unit.test_hooks_names import tokens as tokens_for_names

START = 1_790_000_000 * 10**9
SESSION = str(UUID(int=7_700))
#: What has to be there for the rest to be understood.
STRUCTURE = frozenset({"event.name", "session.id", "event.sequence"})
#: One secret for each kind of pattern; where only a part of the text is secret, that part is marked by «».
REDACTABLE = (
    "-----BEGIN RSA PRIVATE KEY----- «MIIEpAIBAAKCAQEA7bTq» -----END RSA PRIVATE KEY-----", "https://«deploy9:hunter2hunter2»@example.org/x",
    "«eyJhbGciOiJQUzI.eyJzdWIiOiIxMjM.c2lnbmF0dXJlLTc3»", "password=«correcthorse9battery»", 'client_secret: "«staple and battery 9»"',
    "login --password «swordfish9swordfish»", "mysql -u root -p«tr0ub4dor9tr0ub4dor» book", "curl -u «grace9:open9sesame9» https://x",
    "Authorization: Bearer «q7w8e9r0t1y2u3i4»", "Cookie: «sid=9a8b7c6d5e4f»", "«grace.hopper9@seventh-fleet.mil»", "call «+49 30 98765432»",
    "«4111 1111 1111 1111»", "«DE89370400440532013000»", "from «203.0.113.177»", "from «2001:db8:77:aa9::7f34»", "/home/«gracehopper»/book",
    r"C:\Users\«GraceHopper»\book", "postgres://«book9:s3cr3t9s3cr3t»@db.example.org/book", "%2Fhome%2F«gracehopper»%2Fbook",
)  # fmt: skip


@dataclass
class Planter:
    """Makes a new secret for each place and remembers it. `redactable`: such as the patterns know; else words that nobody can know."""

    redactable: bool
    chance: random.Random
    secrets: dict[str, str] = field(default_factory=dict)

    def __call__(self, place: str) -> str:
        """A text with a new secret in it."""
        if not self.redactable:
            self.secrets[place] = self._word()
            return self.secrets[place]
        number = len(self.secrets) % (len(REDACTABLE) + len(KEYS))
        text = REDACTABLE[number] if number < len(REDACTABLE) else f"«{self._key(KEYS[number - len(REDACTABLE)].regex)}»"
        secret = re.search("«(.*)»", text)[1]
        # A provider's prefix is no secret, and stands in the patterns.
        self.secrets[place] = secret if number < len(REDACTABLE) else secret[-max(10, len(secret) // 2) :]
        return f"it said: {text.replace('«', '').replace('»', '')}"

    def _word(self) -> str:
        return "zebra" + "".join(self.chance.choices("bcdfghjklmnpqrstvwxz0123456789", k=16)) + "quagga"

    def _key(self, regex: str) -> str:
        return example(regex, self.chance, more=20).strip()


def by_hand(plant: Planter) -> list[tuple[str, dict[str, Any], bool]]:
    """(signal, request, whether protobuf can hold it) with a secret in each place that OTLP has."""
    kept_names = {name for name, kind in ATTRIBUTES.items() if kind in ("name", "person")} if not plant.redactable else set()
    known = [name for name in sorted(ATTRIBUTES) if name not in STRUCTURE | kept_names and not name.startswith("context.")]
    told = {"session.id": SESSION, "event.sequence": 1}
    requests: list[tuple[str, dict[str, Any], bool]] = []

    def log(place: str, of: dict[str, Any], resource: dict[str, Any] | None = None, **record: Any) -> None:
        request = log_request([{"name": "api_error", "time_ns": START + len(requests)} | told | of], resource)
        request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0] |= record
        requests.append(("logs", request, place not in ("trace id", "span id")))

    for event in ("api_error", "api_request", "user_prompt", "tool_result"):  # each known attribute, on each kind of event
        log(event, {"name": event} | {name: plant(f"{event}: {name}") for name in known})
    log("resource", {}, {name: plant(f"resource: {name}") for name in known})
    log("unknown attribute", {"an.unknown.attribute": plant("unknown attribute"), plant("name of an attribute"): "x"})
    log("unknown resource", {}, {"team.secret": plant("unknown resource attribute"), plant("name of a resource attribute"): "x"})
    log("unknown event", {"name": plant("name of an event"), "prompt": plant("attribute of an unknown event")})
    log("list", {"managed_settings.sources": [plant("in a list")], "prompt": [plant("prompt in a list"), [plant("list in a list")]]})
    log(
        "nested", {"tool_input": {"deep": {"deeper": plant("nested"), plant("nested key"): 1}}, "error": [{"a": plant("nested in a list")}]}
    )
    log("nested resource", {}, {"process.command_args": [plant("list in the resource")], "mine": {"x": plant("nested in the resource")}})
    log("ids", {name: plant(f"id: {name}") for name in ("prompt.id", "request_id", "tool_use_id", "message.uuid", "agent_id")})
    log("session", {"session.id": plant("session id")})
    for field_ in ("severityText", "eventName"):
        log(field_, {}, **{field_: plant(field_)})
    log("body", {}, body={"stringValue": plant("body")})
    log("body nested", {}, body=any_value({"x": [plant("nested body")]}))
    log("trace id", {}, traceId=plant("trace id"))
    log("span id", {}, spanId=plant("span id"))
    if plant.redactable:  # every pattern and every key's format, in the one attribute that holds prose
        for number in range(len(REDACTABLE) + len(KEYS)):
            log("error", {"error": plant(f"error {number}")})
    scope = log_request([{"name": "api_request", "time_ns": START, **told}])
    scope["resourceLogs"][0]["schemaUrl"] = plant("schema url")
    scope["resourceLogs"][0]["scopeLogs"][0] |= {
        "scope": {"name": plant("scope"), "version": plant("scope version")},
        "schemaUrl": plant("scope schema"),
    }
    scope["resourceLogs"][0]["scopeLogs"][0]["scope"]["attributes"] = pairs({"x": plant("scope attribute")})
    requests.append(("logs", scope, True))

    attributes = {name: plant(f"metric: {name}") for name in known} | {
        "new.one": plant("unknown metric attribute"),
        plant("metric key"): "x",
    }
    point = {
        "timeUnixNano": str(START),
        "asDouble": 1,
        "attributes": pairs(attributes | {"session.id": SESSION, "list": [plant("metric list")]}),
    }
    point["exemplars"] = [{"timeUnixNano": str(START), "asDouble": 1, "filteredAttributes": pairs({"x": plant("exemplar")})}]
    metric = {"name": plant("metric name"), "unit": plant("metric unit"), "description": plant("metric description")}
    metric["sum"] = {"aggregationTemporality": 1, "dataPoints": [point]}
    resource = {"attributes": pairs({"mine": plant("metric resource")})}
    requests.append(("metrics", {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"metrics": [metric]}]}]}, True))

    attributes = {name: plant(f"span: {name}") for name in known} | {"new.one": plant("unknown span attribute"), plant("span key"): "x"}
    span = {
        "name": plant("span name"),
        "startTimeUnixNano": str(START),
        "endTimeUnixNano": str(START + 5),
        "traceState": plant("trace state"),
    }
    span |= {"attributes": pairs(attributes | {"session.id": SESSION}), "status": {"code": 2, "message": plant("span status")}}
    output = {
        "output": plant("tool output"),
        "content": plant("tool content"),
        "diff": plant("diff"),
        "nested": {"a": [plant("nested in a span event")]},
    }
    span["events"] = [{"name": plant("name of a span event"), "timeUnixNano": str(START), "attributes": pairs(output)}]
    span["events"].append({"name": "tool.output", "timeUnixNano": str(START), "attributes": pairs({"output": plant("known span event")})})
    span["links"] = [{"traceState": plant("link state"), "attributes": pairs({"x": plant("link attribute")})}]
    requests.append(("traces", {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}, True))
    return requests


def tokens() -> dict[str, str]:
    """Names that are kept at every level, each with a token in it."""
    chance = random.Random(5)
    formats = {key.provider: key.regex for key in KEYS}
    kinds = {"branch": "GitHub", "feature": "GitLab", "chapter": "npm", "directory": "Slack", "part": "Stripe", "project": "Hugging Face"}
    kinds |= {"person": "Anthropic", "spec_directory": "Google", "worktree": "DigitalOcean", "step": "Databricks"}
    return {name: example(formats[provider], chance, more=20) for name, provider in kinds.items()}


def send_by_hand(to: Server, plant: Planter) -> dict[str, str]:
    """Everything above, in both encodings, with secrets in headers and paths too. Returns what was planted."""
    made = by_hand(plant)
    for signal, of in (("logs", "resourceLogs"), ("metrics", "resourceMetrics"), ("traces", "resourceSpans")):
        every = [one for which, request, _ in made if which == signal for one in request[of]]
        whole = [one for which, request, protobuf in made if which == signal and protobuf for one in request[of]]
        to.stored(signal, as_json({of: every}), JSON)
        to.stored(signal, as_protobuf({of: whole}, signal))
    names = tokens()
    records = [context(SESSION, START, **{name: f"017-{token}-x" for name, token in names.items()})]
    records.append({"name": "api_request", "time_ns": START + 10**9, "session.id": SESSION, "vcs.ref.head.name": f"017-{names['branch']}-x",
                    "enduser.id": names["person"], "vcs.repository.name": f"book-{names['project']}", "model": f"claude-{names['part']}"})  # fmt: skip
    to.stored("logs", as_json(log_request(records)), JSON)
    # Where requests are refused, what was wrong with them is told to the sender and to nobody else.
    headers = {"Authorization": f"Bearer {plant('header')}", "X_Secret": plant("header 2"), "User_Agent": plant("user agent")}
    to.post("logs", as_json(log_request([{"name": "api_request", "time_ns": START, "prompt": plant("with headers")}])), JSON, **headers)
    to.post("logs", f'{{"resourceLogs": [{{"{plant("broken JSON")}": '.encode(), JSON)
    to.post("logs", b"\xff\xff" + plant("broken protobuf").encode(), PROTOBUF)
    to.post("logs", plant("broken gzip").encode(), PROTOBUF, Content_Encoding="gzip")
    to.post(plant("path").replace(" ", "%20"), b"{}", JSON)
    to.get("health", "/" + plant("health path").replace(" ", "%20"))
    to.get("metrics", "/metrics?" + plant("metrics query").replace(" ", "%20"))
    to.get("clickhouse", "/?query=SELECT%201&user=x&password=" + re.sub(r"[^A-Za-z0-9]", "", plant.secrets["path"]))
    return plant.secrets | {f"token in {name}": token[-max(10, len(token) // 2) :] for name, token in names.items()}


COMMANDS = (
    ["status", "--json"], ["doctor"], ["doctor", "--json"], ["doctor", "--bundle", "-"], ["context"], ["logs"],
    ["report", "cost"], ["report", "tokens"], ["report", "errors"], ["report", "sessions"], ["report", "tools"],
    ["report", "cost", "--by", "chapter", "--format", "csv"], ["report", "errors", "--format", "json"], ["report", "sessions", "--format", "json"],
    ["sql", "SELECT * FROM telemetry.telemetry_events"], ["sql", "SELECT * FROM telemetry.session_context"],
    ["sql", "SELECT * FROM telemetry.telemetry_spans"], ["sql", "SELECT * FROM system.processes"], ["sql", "SELECT * FROM system.mutations"],
)  # fmt: skip


# One process for all of them: most of a command's time is its start.
_EACH = """
import contextlib, json, sys
from sp_telemetry.cli.main import main
sys.stderr = sys.stdout
for command in json.loads(sys.argv[1]):
    print("==", *command, flush=True)
    with contextlib.suppress(SystemExit):
        main(command)
    sys.stdout.flush()
"""


def places(of: Server) -> list[tuple[str, bytes]]:
    """Everything that a secret could have got to: what commands and listeners tell; then, with the server down, each file of the home and
    each column of each table."""
    found = [(path, of.get(port, path)[1]) for port, path in (("metrics", "/metrics"), ("health", "/"))]
    environ = {**of.environ, "SP_TELEMETRY_HOME": str(of.home.path)}
    done = subprocess.run([sys.executable, "-c", _EACH, json.dumps(COMMANDS)], env=environ, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    answers = re.split(rb"^== ", done.stdout, flags=re.MULTILINE)[1:]
    assert len(answers) == len(COMMANDS) and all(len(answer.splitlines()) > 1 for answer in answers)
    found += [(answer.partition(b"\n")[0].decode(), answer) for answer in answers]
    of.down()
    found += files(of.home.path)
    found += columns(of.home.store)
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize("level", ["strict", "standard", "full"])
def test_what_is_sent_by_hand_is_nowhere(tmp_path, level):
    """At `strict` no word of it is; at every level nothing is that the patterns know, and no token in a name that is kept."""
    with server(tmp_path / "home", SP_TELEMETRY_PRIVACY_LEVEL=level) as running:
        chance = random.Random(level)
        secrets = send_by_hand(running, Planter(redactable=True, chance=chance))
        assert len(secrets) > 1000
        if level == "strict":
            secrets = {f"{place} (key)": secret for place, secret in secrets.items()} | send_by_hand(running, Planter(False, chance))
            assert len(secrets) > 3000
        running.restart()  # and what a start, an end and upkeep leave
        stored = running.query("SELECT count(), countIf(notEmpty(branch)) FROM telemetry.telemetry_events")
        assert stored[0][0] > 100 and stored[0][1] > 0, "nothing was stored, so nothing was shown"
        assert search(secrets, places(running)) == []


@pytest.mark.checkout
@pytest.mark.needs("sh", "git")
def test_names_that_the_hooks_saw_are_nowhere(tmp_path):
    """Tokens in names of branches, directories, chapters and files: neither in what the hooks keep while the server is down, nor in what
    becomes of it when it is there again."""
    session = Session(tmp_path, tmp_path, more={"SP_TELEMETRY_CLICKHOUSE_PORT": "0"})
    with server(session.home) as running:
        running.down()
        keys = tokens_for_names(4)
        secrets = {key: secret for first in (0, 5, 10) for key, secret in plant(session, keys[first : first + 5]).items()}
        assert len(session.spooled()) > 10 and search(secrets, files(session.home, session.data)) == []
        running.up()
        session.port = running.ports["otlp_http"]
        session.start()
        assert wait_for(lambda: not list((session.home / "spool").glob("*.json*"))), "nothing was sent"
        stored = running.query(
            "SELECT count(), countIf(branch LIKE '017-%<%'), countIf(chapter LIKE '33-%<%') FROM telemetry.session_context"
        )
        assert min(stored[0]) > 2, "nothing was stored, so nothing was shown"
        assert search(secrets, [*places(running), *files(session.data)]) == []


class Loosened(Policy):
    """`strict`, but for one attribute."""

    attribute = ""

    @property
    def treatments(self) -> dict[str, str]:
        return super().treatments | {self.attribute: "text"}


@pytest.mark.parametrize("attribute", ["prompt", "error", "command_name"])
def test_a_policy_with_one_attribute_loosened_is_found_out(tmp_path, attribute):
    """The search above would see it: the same requests, through the same statements, under a policy that keeps one text too many."""
    policy = type("Loosened", (Loosened,), {"attribute": attribute})("strict")
    engine = Engine(tmp_path / "store")
    plant = Planter(redactable=False, chance=random.Random(attribute))
    with engine.handle() as handle:
        schema.migrate(handle, privacy=sql.render(policy))
        requests = [one for signal, request, _ in by_hand(plant) if signal == "logs" for one in request["resourceLogs"]]
        Pipeline(handle).store(Lane("logs", "json"), [as_json({"resourceLogs": requests})])
    engine.close()
    found = search(plant.secrets, columns(tmp_path / "store"))
    names = {name.rpartition(": ")[2] for name, _, _ in found}
    assert attribute in names and names <= {attribute, "attribute of an unknown event"}  # which is a prompt


@pytest.mark.skipif(not AVAILABLE, reason="events wait in the journal where a standing query types them: on Linux")
@pytest.mark.parametrize("attribute", ["", "prompt"])
def test_what_waits_in_the_journal_is_what_the_policy_leaves(tmp_path, attribute):
    """As a server that is killed leaves it. Under a policy that keeps one text too many the search would see it."""
    policy = type("Loosened", (Loosened,), {"attribute": attribute})("strict") if attribute else Policy("strict")
    engine = Engine(tmp_path / "store")
    plant = Planter(redactable=False, chance=random.Random(attribute))
    with engine.handle() as handle:
        schema.migrate(handle, privacy=sql.render(policy))
        bodies = [as_protobuf({"resourceLogs": [one]}) for signal, request, _ in by_hand(plant) if signal == "logs" for one in request["resourceLogs"]]
        pipeline, journal = Pipeline(handle), Journal(tmp_path / "journal")
        waiting = sum(pipeline.store(STANDING, [body], journal=journal) for body in bodies if CONTEXT_MARK not in body)
        assert waiting == sum(map(rows_of, journal.blocks)) > 10
    engine.close()
    found = {name.rpartition(": ")[2] for name, _, _ in search(plant.secrets, files(tmp_path / "journal"))}
    assert found == ({attribute, "attribute of an unknown event"} if attribute else set())


EVERYTHING = dict.fromkeys(
    ("OTEL_LOG_USER_PROMPTS", "OTEL_LOG_ASSISTANT_RESPONSES", "OTEL_LOG_TOOL_DETAILS", "OTEL_LOG_TOOL_CONTENT", "OTEL_LOG_RAW_API_BODIES",
     "OTEL_LOG_MANAGED_SETTINGS", "OTEL_METRICS_INCLUDE_REPOSITORY"),
    "1",
)  # fmt: skip


@pytest.mark.needs("npm", "git")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", [NEWEST, OLDEST])
def test_what_the_real_client_exports_with_everything_on_is_nowhere(tmp_path, version):
    """At `strict`. The same session is exported to a recorder first: what it shows there is what was really sent."""
    try:
        binary = executable(version)
    except ClientUnavailable as reason:
        require(False, str(reason))
    plant = Planter(redactable=False, chance=random.Random(330))
    names = (
        "prompt",
        "response",
        "command",
        "output",
        "content",
        "file",
        "description",
        "error",
        "api error",
        "resource",
        "header",
        "argument",
        "title",
    )
    said = {name: plant(name) for name in names}
    script = Script().on(
        said["prompt"],
        Reply(
            said["response"],
            ToolUse("Bash", command=f"echo {said['command']}; printf %s {said['output']}", description=said["description"]),
        ),
        Reply("2", ToolUse("Write", file_path=f"{said['file']}.md", content=said["content"])),
        Reply("3", ToolUse("Bash", command=f"echo {said['error']} >&2; exit 3")),
        Reply("4", ToolUse("Read", file_path=f"/nowhere/{said['file']}")),
        Failure(400, said["api error"]),
    )
    script.on(said["argument"], Reply("done"))
    script.otherwise(lambda request: Reply(said["title"]))
    book = tmp_path / "book"
    commands = book / ".claude" / "commands"
    commands.mkdir(parents=True)
    name = said["command name"] = plant("command name")
    (commands / f"{name}.md").write_text("Do: $ARGUMENTS\n")
    subprocess.run(["git", "init", "-q", "-b", "017-x", str(book)], check=True)

    def session(environ: dict[str, str]) -> None:
        more = EVERYTHING | {"OTEL_RESOURCE_ATTRIBUTES": f"team.secret={said['resource']}", "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": ""}
        more["OTEL_EXPORTER_OTLP_HEADERS"] = f"x-secret={said['header']}"
        for prompt in (said["prompt"], f"/{name} {said['argument']}"):
            client.run(prompt, cwd=book, env=environ | more)

    with MessagesApi(script) as api, OtlpRecorder(grpc=False) as recorder, server(tmp_path / "sp home") as running:
        client = ClaudeCode(binary, tmp_path / "home", api.url)

        def exported(environ: dict[str, str], whole: Callable[[], bool]) -> bool:
            """A client waits two seconds for its last exports, whatever it is told, and on a busy machine leaves some unsent."""
            return any(session(environ) or wait_for(whole, 10) for _ in range(3))

        def sent() -> bytes:
            return b"".join(request.body + repr(request.headers).encode() for request in recorder.requests)

        def stored(table: str) -> int:
            return running.query(f"SELECT count() FROM telemetry.{table}")[0][0]

        shown = exported(recorder.environment(), lambda: all(said[one].encode() in sent() for one in said if one != "title"))
        assert shown, f"was not exported, so nothing would be shown: {[one for one in said if said[one].encode() not in sent()]}"
        to = recorder.environment() | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{running.ports['otlp_http']}"}
        everything = {"telemetry_events": 20, "telemetry_spans": 5, "telemetry_metrics": 5}
        assert exported(to, lambda: all(stored(table) > least for table, least in everything.items())), running.metrics()
        assert search(plant.secrets, places(running)) == []
