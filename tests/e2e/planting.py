"""What tests of the privacy promise plant, and where they look for it."""

# ruff: noqa: E501 - a place is one line
from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sp_telemetry.privacy.keys import KEYS
from sp_telemetry.privacy.policy import ATTRIBUTES
from sp_telemetry.reports.catalogue import REPORTS
from tests.secrets_search import columns, files
from tests.server import Server, any_value, log_request, pairs
from tests.store.examples import example
from tests.transcripts import Configuration, answer, identifier, line, prompt

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

    def name(self, place: str) -> str:
        """The same where only a name can be: of a file, a command, in a header."""
        if not self.redactable:
            return self(place)
        made = (self._key(self.chance.choice(KEYS).regex) for _ in range(1000))
        key = next(key for key in made if re.fullmatch("[A-Za-z0-9_-]+", key))
        self.secrets[place] = key[-max(10, len(key) // 2) :]
        return key

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


def in_transcripts(plant: Planter, into: Configuration) -> None:
    """A session with a secret in each place that a line of a transcript has for somebody's words, and such as know its own places only."""
    session, at = identifier("planted", plant.redactable), time.time() - 3600
    own = "key" if plant.redactable else "word"  # ids of its own: of two copies of a request either may be the one that is told of
    said = {place: plant(f"transcript: {place}") for place in ("prompt", "answer", "tool", "result", "summary", "unknown", "error", "id", "request", "uuid")}
    named = {"gitBranch": "017-x", "cwd": "/home/ada/book", "version": "2.1.330", "entrypoint": "cli"}
    model, agent, word = "claude-sonnet-4-5", "abc", "standard"
    if plant.redactable:  # else a name is kept
        named = {field: f"{value}-{plant.name(f'transcript: {field}')}" for field, value in named.items()}
        model, agent, word = (f"{value}-{plant.name(f'transcript: {value}')}" for value in (model, agent, word))
    used = {"input_tokens": 5, "output_tokens": 7, "service_tier": word, "inference_geo": word, "speed": word}
    tool = {"type": "tool_use", "id": said["id"], "name": "Bash", "input": {"command": said["tool"]}}
    result = {"type": "tool_result", "tool_use_id": said["id"], "content": said["result"], "is_error": True}
    lines = [
        {"type": "summary", "summary": said["summary"], "leafUuid": said["uuid"]},
        prompt(session, "p", at, said["prompt"], **named),
        answer(session, f"a{own}", at + 1, text=said["answer"], **named, unknown=said["unknown"]),
        answer(session, f"b{own}", at + 2, used, model=model, stop_reason=word, **named),
        answer(session, f"c{own}", at + 3, message_id=said["id"], request_id=said["request"], **named),
        line("assistant", session, at + 4, **named, message={"id": f"msg_{own}", "role": "assistant", "model": model, "content": [tool], "usage": used}),
        line("user", session, at + 5, **named, message={"role": "user", "content": [result]}, toolUseResult=said["error"]),
        line("system", session, at + 6, said["uuid"], **named, subtype="api_error", content=said["error"]),
        f'{{"type": "assistant", "broken": "{said["unknown"]}'.encode(),
    ]  # fmt: skip
    into.session(session, lines)
    into.agent(session, agent, [answer(session, f"d{own}", at + 7, agentId=agent, isSidechain=True, **named)])


COMMANDS = (
    ["status", "--json"], ["doctor"], ["doctor", "--json"], ["doctor", "--bundle", "-"], ["context"], ["context", "--json"], ["logs"],
    ["privacy", "show", "--attributes"], ["audit"], ["audit", "--json"], ["backfill", "--dry-run"], ["backfill"], ["backfill", "--json"],
    *(["report", name, "--format", form] for name in REPORTS for form in ("text", "json")),
    *(["report", "cost", "--cost", cost, *more] for cost in ("computed", "both") for more in ((), ("--by", "session,model", "--json"))),
    ["report", "cost", "--by", "chapter", "--format", "csv"], ["report", "tokens", "--by", "user,feature", "--format", "markdown"],
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


def places(of: Server, configuration: Path) -> list[tuple[str, bytes]]:
    """Everything that a secret could have got to: what commands and listeners tell, with the transcripts of this configuration; then,
    with the server down, each file of the home and each column of each table."""
    found = [(path, of.get(port, path)[1]) for port, path in (("metrics", "/metrics"), ("health", "/"))]
    told = {"CLAUDE_CONFIG_DIR": str(configuration), "HOME": str(of.home.path.parent / "nobody's")}
    environ = {**of.environ, **told, "SP_TELEMETRY_HOME": str(of.home.path)}
    done = subprocess.run([sys.executable, "-c", _EACH, json.dumps(COMMANDS)], env=environ, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    answers = re.split(rb"^== ", done.stdout, flags=re.MULTILINE)[1:]
    assert len(answers) == len(COMMANDS) and all(len(answer.splitlines()) > 1 for answer in answers)
    found += [(answer.partition(b"\n")[0].decode(), answer) for answer in answers]
    of.down()
    found += files(of.home.path)
    found += columns(of.home.store)
    return found
