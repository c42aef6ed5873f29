"""What an installation's own rules leave of what is stored is what they leave of an event that arrives under them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sp_telemetry.privacy import own
from sp_telemetry.privacy import sql as privacy
from sp_telemetry.privacy.policy import CONTEXT, HASH_COLUMNS, Policy
from sp_telemetry.store import maintenance, schema, tightening
from sp_telemetry.store import privacy as stored
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, context, log_request, pairs

START = 1_790_000_000 * 10**9
SAID = {
    "session.id": str(UUID(int=9)), "prompt": "hello", "response": "hi", "tool_input": "{}", "tool_parameters": "[]",
    "user.email": "ada@example.org", "prompt_length": 5, "response_length": 2,
    "tool_input_size_bytes": 3, "tool_result_size_bytes": 4, "model": "claude-sonnet-5-5",
    "cost_usd": 0.5, "duration_ms": 77, "ttft_ms": 7, "attempt": 2, "input_tokens": 11, "output_tokens": 12, "cache_read_tokens": 13,
    "cache_creation_tokens": 14, "success": True, "tool_name": "Bash", "source": "config", "error_name": "Error", "user.id": "0a" * 32,
}  # fmt: skip
TOLD = {"project": "book", "branch": "017-x", "feature": "017-x", "chapter": "33-y", "part": "05-z", "step": "plan", "directory": "docs",
        "spec_directory": "specs", "worktree": "w", "person": "Ada"}  # fmt: skip
RULED = (*(name for name in SAID if name != "session.id"), *(f"context.{name}" for name in TOLD))
#: Each with what is no part of what was said: moments and versions of rows, and the hash of all of a point.
TABLES = {"telemetry_events": "received_at, version", "telemetry_metrics": "received_at, point_id", "telemetry_spans": "received_at",
          "session_context": "received_at", "session_summaries": "version", "usage_hourly": "version"}  # fmt: skip


def _store(handle: Handle) -> None:
    names = ("user_prompt", "api_request", "tool_result")
    events = [{"name": name, "time_ns": START + number, "event.sequence": number} | SAID for number, name in enumerate(names)]
    span = {"name": "claude_code.tool", "startTimeUnixNano": str(START), "endTimeUnixNano": str(START + 5), "attributes": pairs(SAID)}
    point = {"timeUnixNano": str(START), "asDouble": 1, "attributes": pairs(SAID)}
    metric = {"name": "claude_code.cost.usage", "sum": {"dataPoints": [point], "aggregationTemporality": 1}}
    pipeline = Pipeline(handle)
    pipeline.store(Lane("logs", "json"), [as_json(log_request([context(SAID["session.id"], START - 1, **TOLD)]))])
    pipeline.store(Lane("logs", "json"), [as_json(log_request(events))])
    pipeline.store(Lane("traces", "json"), [as_json({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})])
    pipeline.store(Lane("metrics", "json"), [as_json({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]})])
    decided = {name: TOLD[name] for name in ("project", "branch", "feature", "chapter", "part", "directory")}
    handle.insert("INSERT INTO telemetry.read_contexts", "JSONEachRow", [json.dumps(decided).encode()])
    maintenance.summarise(handle)


def _rows(handle: Handle) -> dict[str, list[Any]]:
    found = {}
    for table, moments in TABLES.items():
        rows = handle.query(f"SELECT * EXCEPT ({moments}) FROM telemetry.{table} FINAL ORDER BY ALL", "JSONEachRow").decode()
        found[table] = [json.loads(row) for row in rows.splitlines()]
    return found


@pytest.mark.parametrize(("level", "treatment"), [("full", "drop"), ("strict", "hash")])
def test_what_is_stored_comes_down_to_rules_of_attributes(tmp_path: Path, level: str, treatment: str) -> None:
    rules = own.Own((), {name: "drop" if isinstance(SAID.get(name), (int, float)) else treatment for name in RULED}).policy(level)
    results, decided = [], []
    for first in (Policy(level), rules):
        engine = Engine(tmp_path / str(len(results)))
        with engine.handle() as handle:
            schema.migrate(handle, privacy=privacy.render(first), salt="5a17")
            stored.enforce(handle, first)
            _store(handle)
            if stored.enforce(handle, rules):  # the second time they have been in force from the start
                pending = tightening.pending(handle, rules)
                assert all(pending[table] for table in TABLES) and pending["transcript_contexts"]
                assert tightening.tighten(handle, rules) == pending
            assert not any(tightening.pending(handle, rules).values())
            results.append(_rows(handle))
            decided.append(handle.query("SELECT feature, chapter, part FROM telemetry.transcript_contexts FINAL").decode())
        engine.close()
    assert results[0] == results[1]
    assert decided[0] == ""  # made anew when it is needed
    assert "33-y" not in decided[1] and "017-x" not in decided[1]
    for text in ("Ada", "book", "33-y", "claude-sonnet", "0a" * 32, "017-x"):
        assert text not in json.dumps(results[1]), text


@pytest.mark.parametrize(("treatment", "kept"), [("drop", ""), ("hash", "hash-")])
def test_a_rule_of_errors_holds_for_what_a_span_says_of_one(tmp_path: Path, treatment: str, kept: str) -> None:
    policy = own.Own((), {"error": treatment}).policy("standard")
    engine = Engine(tmp_path)
    with engine.handle() as handle:
        schema.migrate(handle, privacy=privacy.render(policy))
        span = {"name": "claude_code.tool", "startTimeUnixNano": str(START), "endTimeUnixNano": str(START), "status": {"message": "zebra"}}
        Pipeline(handle).store(Lane("traces", "json"), [as_json({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]})])
        said = handle.query("SELECT error_message FROM telemetry.telemetry_spans").decode().strip()
    engine.close()
    assert said[:5] == kept and "zebra" not in said


def test_a_rule_of_what_hooks_tell_may_keep_less_and_no_more(tmp_path: Path) -> None:
    assert own.Own((), {"context.branch": "hash"}).policy("strict").of_records == CONTEXT | {"context.branch": "hash"}
    assert own.Own((), {"context.record_id": "drop"}).policy("strict").of_records == CONTEXT
    assert tightening.HASHES.keys() == HASH_COLUMNS
