"""What must not be stored is not stored: searched for in every column of every table and in every file of the store.

One store holds two things: the recording of the client with every content switch on, and requests in which secrets are planted in
each place that the policy keeps in some form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sp_telemetry.privacy import sql as privacy
from sp_telemetry.privacy.policy import ATTRIBUTES
from sp_telemetry.setup.replay import Recording as Replayed
from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.recordings.reading import Recording, recordings
from tests.secrets_search import files
from tests.server import as_json, as_protobuf, context, log_request, pairs

EVERYTHING = next(recording for recording in recordings() if recording.name == "book-2.1.330-everything")
CONTENT = ("prompt", "prompt_text", "response", "tool_input", "tool_parameters", "body", "user_prompt", "full_command", "file_path")
START = 1_790_000_000 * 10**9
SESSION = str(UUID(int=77))

#: one secret for each pattern; where only a part of the text is secret, that part is marked by «»
SECRETS = {
    "private-key": "-----BEGIN RSA PRIVATE KEY-----\n«MIIEpAIBAAKCAQEA7»\n-----END RSA PRIVATE KEY-----",
    "url-password": "https://«deploy:hunter2hunter2»@example.org/x",
    "jwt": "«eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl»",
    "anthropic-key": "«sk-ant-api03-abcdef0123456789»",
    "openai-key": "«sk-proj-abcdefghijklmnop0123»",
    "github-key": "«ghp_abcdefghijklmnop0123456789abcdef0123»",
    "gitlab-key": "«glpat-abcdefghij0123456789»",
    "aws-key": "«AKIAABCDEFGHIJKLMNOP»",
    "google-key": "«AIzaSyA0123456789abcdefghijklmnopqrstuv»",
    "slack-key": "«xoxb-123456789012-abcdefghijkl»",
    "stripe-key": "«sk_live_abcdefghijklmnop»",
    "npm-key": "«npm_abcdefghijklmnopqrstuvwxyz0123456789»",
    "hugging-face-key": "«hf_abcdefghijklmnopqrstuvwxyz»",
    "assigned-secret": "password=«correcthorse»",
    "bearer": "Bearer «q7w8e9r0t1y2u3i4»",
    "email": "«grace.hopper@example.org»",
    "home": "/home/«gracehopper»/book",
    "iban": "«DE89370400440532013000»",
    "card": "«4111 1111 1111 1111»",
    "ip-address": "«203.0.113.77»",
}


def secret(name: str) -> str:
    return re.search("«(.*)»", SECRETS[name], re.DOTALL)[1]


def text(name: str) -> str:
    return SECRETS[name].replace("«", "").replace("»", "")


def planted() -> list[tuple[str, dict[str, Any]]]:
    """(signal, request) for each secret: in every attribute that is kept as a text, and in names, ids and values that are not."""
    found = []
    kept = [name for name, kind in ATTRIBUTES.items() if kind != "number" and name not in ("event.name", "session.id")]
    for number, name in enumerate(SECRETS):
        value = text(name)
        known = {"session.id": SESSION, "event.sequence": number * 10} | dict.fromkeys(kept, f"it said: {value}")
        events = [{"name": "api_error", "time_ns": START + number, **known}]
        events.append({"name": "api_request", "time_ns": START + number, **known | {"model": value, "event.sequence": number * 10 + 1}})
        places = {"cost_usd": value, "an.unknown.attribute": value, value: "a value", "in_a_list": [value], "nested": {"deep": value}}
        events.append({"name": value, "time_ns": START + number, "session.id": value, **places, "prompt.id": value, "request_id": value})
        contexts = {name: value for name in ("project", "branch", "feature", "chapter", "part", "step", "person", "directory")}
        contexts["person"] = f"it said: {value}"  # a whole e-mail address may be a name (test_person.py)
        contexts |= dict.fromkeys(("spec_directory", "worktree", "feature_source", "chapter_source", "hook", "record_id", "unknown"), value)
        events.append(context(value, START + number, **contexts))
        events.append(context(SESSION, START + number, **contexts))
        resource = dict.fromkeys(("service.version", "host.name", "process.command_args", "user.email", "mine"), value) | {value: "x"}
        request = log_request(events, resource)
        record = request["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]
        record |= {"severityText": value, "eventName": value, "body": {"stringValue": value}}
        request["resourceLogs"][0]["scopeLogs"][0]["scope"] = {"name": value, "version": value}
        found.append(("logs", request))
        attributes = pairs(known | places | {value: "x"})
        point = {"timeUnixNano": str(START + number), "asDouble": 1, "attributes": attributes}
        metric = {"name": value, "unit": value, "description": value, "sum": {"aggregationTemporality": 1, "dataPoints": [point]}}
        of = {"resource": {"attributes": pairs(resource)}}
        found.append(("metrics", {"resourceMetrics": [of | {"scopeMetrics": [{"metrics": [metric]}]}]}))
        span = {"name": value, "startTimeUnixNano": str(START), "endTimeUnixNano": str(START + number), "attributes": attributes}
        span |= {"events": [{"name": value, "timeUnixNano": str(START), "attributes": attributes}], "status": {"code": 2, "message": value}}
        span |= {"traceState": value}
        found.append(("traces", {"resourceSpans": [of | {"scopeSpans": [{"spans": [span]}]}]}))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("private")


@pytest.fixture(scope="module")
def handle(folder: Path) -> Iterator[Handle]:
    engine = Engine(folder)
    with engine.handle() as opened:
        schema.migrate(opened)
        maintenance.apply_retention(opened, {"retention_events_days": 0, "retention_sessions_days": 0})
        pipeline = Pipeline(opened)
        for signal, kind, body in Replayed(EVERYTHING.directory).requests():
            pipeline.store(Lane(signal, "json" if kind.endswith("json") else "protobuf"), [body])
        for signal in ("logs", "metrics", "traces"):
            requests = [request for of, request in planted() if of == signal]
            pipeline.store(Lane(signal, "json"), [as_json(request) for request in requests])
            pipeline.store(Lane(signal, "protobuf"), [as_protobuf(request, signal) for request in requests])
        # ids that are none: only JSON can hold them
        for key in ("traceId", "spanId", "parentSpanId"):
            spans = [{"name": "s", "startTimeUnixNano": str(START), key: text(name)} for name in SECRETS]
            pipeline.store(Lane("traces", "json"), [as_json({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})])
            request = log_request([{"name": "api_request", "time_ns": START, "session.id": SESSION}] * len(SECRETS))
            for record, name in zip(request["resourceLogs"][0]["scopeLogs"][0]["logRecords"], SECRETS, strict=True):
                record[key] = text(name)
            pipeline.store(Lane("logs", "json"), [as_json(request)])
        maintenance.reattribute(opened, 0)
        maintenance.summarise(opened)
        yield opened
    engine.close()


@pytest.fixture(scope="module")
def values(handle: Handle) -> str:
    """Every column of every table as text, system tables that remember queries included."""
    tables = handle.query("SELECT name FROM system.tables WHERE database = 'telemetry' AND engine LIKE '%MergeTree'").decode().split()
    assert {"telemetry_events", "telemetry_metrics", "telemetry_spans", "session_context", "session_summaries"} <= set(tables)
    found = [handle.query(f"SELECT * FROM telemetry.{table}", "TSVRaw").decode() for table in tables]
    logs = handle.query("SELECT name FROM system.tables WHERE database = 'system' AND name LIKE '%\\_log'").decode().split()
    found += [handle.query(f"SELECT * FROM system.{table}", "TSVRaw").decode() for table in logs]
    return "\n".join(found)


def strings(value: Any) -> Iterator[str]:
    """Every text inside a value, also inside JSON in a text."""
    if isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value
        try:
            inner = json.loads(value)
        except ValueError:
            return
        if not isinstance(inner, str | int | float):
            yield from strings(inner)


def contents(recording: Recording) -> set[str]:
    """Each line of more than 12 characters of what people and the model wrote: prompts, responses, commands, texts of files."""
    found = set()
    attributes = [event.attributes for event in recording.events()] + [span[1] for span in recording.spans()]
    for told in attributes:
        for name in CONTENT:
            for written in strings(told.get(name)):
                found |= {line.strip() for line in written.splitlines() if len(line.strip()) > 12}
    return found


def allowed(recording: Recording) -> set[str]:
    """Texts that are content in one place and kept by design in another: names of models, identifiers, branches, words of errors."""
    told = json.loads((recording.directory / "context.logs.json").read_text())
    kept = set(strings(told))
    attributes = [event.attributes | event.resource for event in recording.events()] + [span[1] for span in recording.spans()]
    for told in attributes:
        named = [name for name in told if ATTRIBUTES.get(name) in ("word", "name", "person", "version", "identifier")]
        kept |= {str(told[name]) for name in named}
    return {text for text in kept if len(text) > 12}


def test_pitfall_a03_nothing_that_a_person_or_the_model_wrote_is_stored(values):
    written = contents(EVERYTHING)
    assert len(written) > 100
    found = {line for line in written if line in values}
    assert {line for line in found if not any(line in kept for kept in allowed(EVERYTHING))} == set()


def test_their_hashes_and_lengths_are(handle):
    counts = handle.query(
        "SELECT countIf(prompt_length > 0 AND match(prompt_hash, '^[0-9a-f]{64}$')),"
        " countIf(response_length > 0 AND length(response_hash) = 64),"
        " countIf(length(tool_input_hash) = 64 AND tool_input_bytes > 0), countIf(length(tool_parameters_hash) = 64)"
        f" FROM telemetry.telemetry_events FINAL WHERE session_id != '{SESSION}'"
    )
    assert all(int(count) > 0 for count in counts.split())


def test_the_recording_has_prompts_in_clear():
    """Else the tests above would show nothing."""
    assert any(event.attributes.get("prompt", "").startswith("/validate") for event in EVERYTHING.events())


@pytest.mark.parametrize("name", SECRETS)
def test_a_planted_secret_is_in_no_column(values, name):
    assert secret(name) not in values
    assert secret(name).lower() not in values.lower()


def test_a_secret_that_was_replaced_shows_where_it_was(values):
    """In what is kept at every level: here the branch, the model, the person."""
    for name in set(SECRETS) - {"url-password", "assigned-secret", "home", "bearer"}:
        assert f"<{name}>" in values, name
    assert "https://<credentials>@example.org/x" in values and "password=<secret>" in values and "~/book" in values


def test_no_file_of_the_store_holds_any_of_it(handle, folder, values):
    """Beside what queries can see: logs, temporary files, metadata. Columns are compressed, so this adds to the test above."""
    wanted = [secret(name).encode() for name in SECRETS] + [line.encode() for line in contents(EVERYTHING) if len(line) > 30]
    allow = " ".join(allowed(EVERYTHING)).encode()
    for place, data in files(folder):
        assert [each for each in wanted if each in data and each not in allow] == [], place


def test_the_sql_is_what_the_policy_renders_to():
    assert (schema.folder() / "views" / "00_privacy.sql").read_text() == privacy.render()
