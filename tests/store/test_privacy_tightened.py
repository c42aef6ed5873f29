"""What is stored comes down to a tighter policy, and goes off the disk. A file of its own, for a process has one store at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.privacy import sql as privacy
from sp_telemetry.privacy.patterns import Pattern
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.store import maintenance, schema, tightening
from sp_telemetry.store import privacy as stored
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, context, log_request, pairs

START = 1_790_000_000 * 10**9
#: Columns in which no word of anybody's can stand: identifiers and hashes, which the views make sure of, and words of ours.
IDENTIFIERS = {
    "session_id", "record_id", "request_id", "client_request_id", "message_id", "message_uuid", "prompt_id", "tool_use_id",
    "organization_id", "trace_id", "span_id", "parent_span_id", "file_id", "folder_id", "root_id", "machine", "user_email_hash",
    "prompt_hash", "response_hash", "tool_input_hash", "tool_parameters_hash",
}  # fmt: skip
OURS = {
    "telemetry_events": {"source", "user_account_uuid"}, "telemetry_metrics": {"metric_type", "temporality"},
    "telemetry_spans": {"kind", "status_code"}, "transcript_contexts": {"feature_source", "chapter_source"},
    "audit_findings": {"side", "mark"},
}  # fmt: skip
#: Tables with nothing else.
OF_OURS = {"privacy_history", "schema_migrations", "session_audits", "backfilled_requests", "installation", "model_prices", "backfill_runs",
           "server_runs", "session_links", "event_retention"}  # fmt: skip


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
        maintenance.summarise(handle)
        query = (
            "SELECT count(), sum(cost_usd), uniq(session_id), countIf(attributes['num_hooks'] = '3') FROM telemetry.telemetry_events FINAL"
        )
        before = handle.query(query)
        assert mark in handle.query("SELECT * FROM telemetry.telemetry_events").decode()
        tighter = Policy("strict", (Pattern("animal", "zebra7[a-z0-9]+"),))
        assert stored.enforce(handle, tighter) and not stored.enforce(handle, tighter)
        assert stored.in_force(handle).level == "strict"
        pending = tightening.pending(handle, tighter)
        assert pending["telemetry_events"] and pending["telemetry_spans"] and pending["session_context"]
        assert tightening.tighten(handle, tighter) == pending
        assert {table: rows for table, rows in tightening.pending(handle, tighter).items() if rows} == {}
        assert handle.query(query) == before
        tables = handle.query("SELECT name FROM system.tables WHERE database = 'telemetry' AND engine LIKE '%MergeTree'").decode().split()
        assert [table for table in tables if mark in handle.query(f"SELECT * FROM telemetry.{table} SETTINGS final = 0").decode()] == []
        assert handle.query("SELECT count() FROM system.parts WHERE NOT active AND table LIKE 'telemetry\\\\_%'") == b"0\n"
    engine.close()
    assert [file for file in tmp_path.rglob("*") if file.is_file() and mark.encode() in file.read_bytes()] == []


def test_every_column_that_can_hold_somebodys_words_comes_down(tmp_path: Path) -> None:
    """Words in each of them, put there as no view would. A new table or column has to be brought down too, or named above."""
    mark = "zebra7stripes9quagga"
    values = {"Array": f"['{mark}']", "Map": f"map('{mark}', '{mark}', 'skill.name', '{mark}')"}
    values["Array(Tuple"] = f"[(now64(9), '{mark}')]"
    engine = Engine(tmp_path)
    with engine.handle() as handle:
        schema.migrate(handle, privacy=privacy.render(Policy("full")))
        maintenance.apply_retention(handle, {"retention_events_days": 0, "retention_sessions_days": 0})
        stored.enforce(handle, Policy("full"))
        columns = handle.query(
            "SELECT table, name, type FROM system.columns WHERE database = 'telemetry' AND type LIKE '%String%'"
            " AND table IN (SELECT name FROM system.tables WHERE database = 'telemetry' AND engine LIKE '%MergeTree')"
        )
        tables: dict[str, list[list[str]]] = {}
        for row in columns.decode().splitlines():
            tables.setdefault(row.split("\t")[0], []).append(row.split("\t")[1:])
        planted = []
        for table in sorted(set(tables) - OF_OURS):
            named = {"session_id": "'s'"}
            for name, kind in tables[table]:
                if name not in IDENTIFIERS | OURS.get(table, set()):
                    kind = "Array(Tuple" if kind.startswith("Array(Tuple") else kind.partition("(")[0]
                    named[name] = values.get(kind, f"'{mark}'")
                    planted.append((table, name))
            named = {name: value for name, value in named.items() if name != "session_id" or name in dict(tables[table])}
            moments = handle.query(
                f"SELECT name FROM system.columns WHERE database = 'telemetry' AND table = '{table}' AND type LIKE 'DateTime%'"
            )
            named |= dict.fromkeys(moments.decode().split(), "now()")
            handle.run(f"INSERT INTO telemetry.{table} ({', '.join(named)}) SELECT {', '.join(named.values())}")
        assert len(planted) > 80
        tighter = Policy("strict", (Pattern("animal", "zebra7[a-z0-9]+"),))
        stored.enforce(handle, tighter)
        pending = tightening.pending(handle, tighter)
        assert {table for table, rows in pending.items() if rows} == {table for table, _ in planted}
        assert tightening.tighten(handle, tighter) == pending
        assert not any(tightening.pending(handle, tighter).values())
        left = [
            (table, name) for table, name in planted
            if mark in handle.query(f"SELECT {name} FROM telemetry.{table} SETTINGS final = 0").decode()
        ]  # fmt: skip
        assert left == []
        counts = {table: int(handle.query(f"SELECT count() FROM telemetry.{table} SETTINGS final = 1")) for table in pending}
        assert counts == dict.fromkeys(pending, 1) | {"transcript_contexts": 0}
    engine.close()
    assert [file for file in tmp_path.rglob("*") if file.is_file() and mark.encode() in file.read_bytes()] == []


def with_prompts(folder: Path) -> Engine:
    """A store at full with some, and strict in force from now on."""
    engine = Engine(folder)
    with engine.handle() as handle:
        schema.migrate(handle, privacy=privacy.render(Policy("full")))
        stored.enforce(handle, Policy("full"))
        columns = "timestamp, event_type, session_id, event_id, version, attributes"
        for number in (1, 2):
            values = f"now64(9), 'user_prompt', 'a', {number}, {number}, map('prompt', 'zebra {number}')"
            handle.run(f"INSERT INTO telemetry.telemetry_events ({columns}) VALUES ({values})")
        columns, values = "session_id, version, ended_at, branches", "'a', 1, now64(9), ['a@zebra.io']"
        handle.run(f"INSERT INTO telemetry.session_summaries ({columns}) VALUES ({values})")
        stored.enforce(handle, Policy("strict"))
    return engine


def test_rows_that_were_taken_back_come_down_and_stay_taken_back(tmp_path: Path) -> None:
    """Nobody sees them, and they say all that they said."""
    engine = with_prompts(tmp_path)
    with engine.handle() as handle:
        deleted = "* REPLACE (version + 1 AS version, 1 AS is_deleted)"
        for table in ("telemetry_events", "session_summaries"):
            handle.run(f"INSERT INTO telemetry.{table} SELECT {deleted} FROM telemetry.{table} FINAL")
        of_two = "(SELECT * FROM telemetry.telemetry_events WHERE is_deleted AND event_id = 2)"
        handle.run(f"INSERT INTO telemetry.telemetry_events SELECT * REPLACE (version + 1 AS version, 0 AS is_deleted) FROM {of_two}")
        assert tightening.tighten(handle, Policy("strict"))["session_summaries"]
        assert not any(tightening.pending(handle, Policy("strict")).values())
        assert handle.query("SELECT event_id FROM telemetry.telemetry_events FINAL") == b"2\n"
        assert handle.query("SELECT session_id FROM telemetry.session_summaries FINAL") == b""
    engine.close()
    assert [file for file in tmp_path.rglob("*.bin") if b"zebra" in file.read_bytes()] == []


class Beside:
    """A handle beside which another statement goes on that had begun before: what it had read comes into the store right after a row that
    was brought down, as of a later moment."""

    def __init__(self, handle: Handle) -> None:
        self._handle, self._done = handle, False

    def query(self, sql: str, *more: Any) -> bytes:
        if not sql.startswith("INSERT INTO telemetry.telemetry_events") or self._done:
            return self._handle.query(sql, *more)
        self._done = True
        self._handle.run("CREATE TEMPORARY TABLE was_read ENGINE = Memory AS SELECT * FROM telemetry.telemetry_events FINAL")
        answer = self._handle.query(sql, *more)
        later = "* REPLACE (toUInt64(4000000000000000000 + toUnixTimestamp64Nano(now64(9))) AS version)"
        self._handle.run(f"INSERT INTO telemetry.telemetry_events SELECT {later} FROM was_read")
        return answer


def test_what_is_written_meanwhile_of_what_was_read_before_comes_down_too(tmp_path: Path) -> None:
    """By attribution, summaries or backfill, whose rows win over those that were brought down."""
    engine = with_prompts(tmp_path)
    with engine.handle() as handle:
        tightening.tighten(Beside(handle), Policy("strict"))
        assert not any(tightening.pending(handle, Policy("strict")).values())
        assert handle.query("SELECT count() FROM telemetry.telemetry_events FINAL") == b"2\n"
    engine.close()
    assert [file for file in tmp_path.rglob("*.bin") if b"zebra" in file.read_bytes()] == []


def test_a_merge_that_is_not_made_is_not_said_to_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine passes it over in silence where it lacks room, say. Then the old rows are on the disk."""
    monkeypatch.setattr(tightening, "ROUNDS", 2)
    engine = with_prompts(tmp_path)

    class Unmerged(Beside):
        def query(self, sql: str, *more: Any) -> bytes:
            return b"" if sql.startswith("OPTIMIZE") else self._handle.query(sql, *more)

    with engine.handle() as handle:
        with pytest.raises(QueryFailed, match="telemetry_events"):
            tightening.tighten(Unmerged(handle), Policy("strict"))
        tightening.tighten(handle, Policy("strict"))
        assert not any(tightening.pending(handle, Policy("strict")).values())
    engine.close()


def test_being_killed_before_old_parts_are_off_the_disk_is_mended_by_the_next_run(tmp_path: Path) -> None:
    """No row differs then. And a table that keeps replaced parts for no time would lose events with the power."""
    engine = with_prompts(tmp_path)

    class Killed(Beside):
        def query(self, sql: str, *more: Any) -> bytes:
            if "DROP PARTITION" in sql or "RESET SETTING" in sql:
                raise KeyboardInterrupt
            return self._handle.query(sql, *more)

    with engine.handle() as handle:
        with pytest.raises(KeyboardInterrupt):
            tightening.tighten(Killed(handle), Policy("strict"))
        left = (
            "SELECT countIf(engine_full LIKE '%old_parts_lifetime%'), (SELECT count() FROM system.parts WHERE database = 'telemetry'"
            " AND table = 'telemetry_events' AND NOT active) FROM system.tables WHERE database = 'telemetry'"
        )
        assert handle.query(left) != b"0\t0\n"
        tightening.tighten(handle, Policy("strict"))
        assert handle.query(left) == b"0\t0\n"
    engine.close()
