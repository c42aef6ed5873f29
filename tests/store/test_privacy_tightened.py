"""What is stored comes down to a tighter policy, and goes off the disk. A file of its own, for a process has one store at a time."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from sp_telemetry.privacy import sql as privacy
from sp_telemetry.privacy.patterns import Pattern
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.store import maintenance, schema
from sp_telemetry.store import privacy as stored
from sp_telemetry.store.engine import Engine
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, context, log_request, pairs

START = 1_790_000_000 * 10**9


def test_what_is_stored_comes_down_to_a_tighter_policy_and_off_the_disk(tmp_path: Path) -> None:
    """From full with content to strict with a pattern of one's own; then no byte and no column has it, and numbers are what they were."""
    mark, session = "zebra7stripes9quagga", str(UUID(int=9))
    engine = Engine(tmp_path)
    with engine.handle() as handle:
        schema.migrate(handle, privacy=privacy.render(Policy("full")))
        stored.enforce(handle, Policy("full"))
        told = {
            "session.id": session,
            "prompt": f"say {mark}",
            "error": f"no {mark}",
            "tool_name": f"mcp__{mark}",
            "cost_usd": 0.5,
            "num_hooks": 3,
        }
        events = [
            {"name": name, "time_ns": START + number, "event.sequence": number, **told} for number, name in enumerate(("user_prompt", mark))
        ]
        events.append(context(session, START - 1, branch=f"017-{mark}", project="book"))
        requests = {"logs": log_request(events)}
        span = {
            "name": mark,
            "startTimeUnixNano": str(START),
            "endTimeUnixNano": str(START + 5),
            "attributes": pairs(told | {"user_prompt": mark}),
        }
        requests["traces"] = {"resourceSpans": [{"scopeSpans": [{"spans": [span | {"status": {"message": mark}}]}]}]}
        pipeline = Pipeline(handle)
        for signal, request in requests.items():
            pipeline.store(Lane(signal, "json"), [as_json(request)])
        maintenance.summarise(handle, 0)
        query = (
            "SELECT count(), sum(cost_usd), uniq(session_id), countIf(attributes['num_hooks'] = '3') FROM telemetry.telemetry_events FINAL"
        )
        before = handle.query(query)
        assert mark in handle.query("SELECT * FROM telemetry.telemetry_events").decode()
        tighter = Policy("strict", (Pattern("animal", "zebra7[a-z0-9]+"),))
        assert stored.enforce(handle, tighter) and not stored.enforce(handle, tighter)
        assert stored.in_force(handle).level == "strict"
        pending = stored.pending(handle, tighter)
        assert pending["telemetry_events"] and pending["telemetry_spans"] and pending["session_context"]
        assert stored.tighten(handle, tighter) == pending
        assert {table: rows for table, rows in stored.pending(handle, tighter).items() if rows} == {}
        assert handle.query(query) == before
        tables = handle.query("SELECT name FROM system.tables WHERE database = 'telemetry' AND engine LIKE '%MergeTree'").decode().split()
        assert [table for table in tables if mark in handle.query(f"SELECT * FROM telemetry.{table} SETTINGS final = 0").decode()] == []
        assert handle.query("SELECT count() FROM system.parts WHERE NOT active AND table LIKE 'telemetry\\\\_%'") == b"0\n"
    engine.close()
    assert [file for file in tmp_path.rglob("*") if file.is_file() and mark.encode() in file.read_bytes()] == []
