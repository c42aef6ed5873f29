"""Every shipped report on the real engine, as telemetry_reader, through the HTTP interface: against plain Python over the recordings."""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import clickhouse_connect
import pytest

from sp_telemetry import resources
from sp_telemetry.errors import NothingStored, QueryFailed
from sp_telemetry.reports.catalogue import ATTRIBUTED, REPORTS, UNATTRIBUTED, query
from sp_telemetry.reports.parameters import parameters
from sp_telemetry.store.client import Client
from sp_telemetry.store.schema import folder, statements
from tests.recordings.reading import Recording, recordings
from tests.store.clickhouse_server import READER_PASSWORD, Server
from tests.store.reporting import CONTEXT, ZONE, answered, clear, client, report, server

__all__ = ["client", "server"]  # fixtures


@pytest.fixture(scope="module")
def recorded(server: Server) -> Iterator[list[dict[str, Any]]]:
    """All recordings stored, each body twice; and the same events read by Python, attributed to the context of their moment."""
    clear(server)
    events = {}
    for recording in recordings():
        contexts = context_records(recording)
        rows = [{"session_id": session, "at": at_ns, "received_at": at_ns, **context} for session, at_ns, context in contexts]
        lines = "\n".join(json.dumps({**row, "at": row["at"] / 1e9, "received_at": row["at"] / 1e9}) for row in rows)
        assert "'" not in lines
        server.owner(
            f"INSERT INTO telemetry.session_context (session_id, at, received_at, {', '.join(CONTEXT)}) FORMAT JSONEachRow\n{lines}"
        )
        for request, body in [*recording.requests("logs")] * 2:
            store(server, request["file"], body)
        for event in recording.events():
            before = [
                context for session, at_ns, context in contexts if session == event.attributes["session.id"] and at_ns <= event.time_ns
            ]
            attributes = {**event.resource, **event.attributes}
            key = (event.name, attributes["session.id"], event.time_ns, attributes["event.sequence"])
            events[key] = {
                **attributes,
                "name": event.name,
                "time_ns": event.time_ns,
                **(before[-1] if before else dict.fromkeys(CONTEXT, "")),
            }
    yield list(events.values())
    clear(server)


def context_records(recording: Recording) -> list[tuple[str, int, dict[str, str]]]:
    """What hooks might have said, by simple rules of this test's own; in microseconds, which a JSON number keeps."""
    records, chapters, steps = [], defaultdict(str), defaultdict(str)
    for call in recording.hooks():
        session = call["session_id"]
        if found := re.search(r"/\d+-[^/]+/(\d+-[^/]+)/", str(call.get("file_path") or "")):
            chapters[session] = found[1]
        if call["event"] == "UserPromptSubmit":
            steps[session] = (call.get("prompt_command") or "").lstrip("/")
        branch = call.get("git_branch") or ""
        feature = branch if re.match(r"\d{3}-", branch) else ""
        context = dict(zip(CONTEXT, ("book", branch, feature, chapters[session], steps[session]), strict=True))
        records.append((session, call["at_ns"] // 1_000_000 * 1_000_000, context))
    return sorted(records, key=lambda record: record[1])


def store(server: Server, file: str, body: bytes) -> None:
    json_body = file.endswith(".json")
    memory = os.memfd_create("body")
    try:
        os.write(memory, body if json_body else varint(len(body)) + body)
        path = f"/proc/self/fd/{memory}"
        if json_body:
            server.owner(
                f"INSERT INTO telemetry.otlp_logs_json SELECT * FROM file('{path}', 'JSONEachRow') "
                "SETTINGS input_format_json_read_objects_as_strings = 1, input_format_json_read_arrays_as_strings = 1"
            )
        else:
            schema = f"{folder()}/otlp.proto:ExportLogsServiceRequest"
            server.owner(
                f"INSERT INTO telemetry.otlp_logs_protobuf SELECT * FROM file('{path}', 'Protobuf') SETTINGS format_schema = '{schema}'"
            )
    finally:
        os.close(memory)


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def names_of(event: dict[str, Any], by: str) -> tuple[str, ...]:
    day = datetime.fromtimestamp(event["time_ns"] / 1e9, UTC).astimezone(ZoneInfo(ZONE)).date().isoformat()
    said = {
        **{name: event[name] for name in CONTEXT},
        "day": day,
        "user": event["enduser.id"],
        "session": event["session.id"],
        "model": event.get("model") or "(no model)",
        "tool": event.get("tool_name") or "(no tool)",
    }
    return tuple(said[name] or UNATTRIBUTED for name in by.split(","))


def grouped(events: list[dict[str, Any]], by: str) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    groups = defaultdict(list)
    for event in events:
        groups[names_of(event, by)].append(event)
    return groups


GROUPINGS = ["chapter", "feature", "user", "day", "model", "session", "step", "branch", "project", "day,chapter", "user,feature,model"]


@pytest.mark.parametrize("by", GROUPINGS)
def test_pitfall_22_cost_and_tokens_are_those_of_the_recordings(client: Client, recorded: list[dict[str, Any]], by: str) -> None:
    expected = grouped([event for event in recorded if event["name"] == "api_request"], by)
    cost, tokens = report(client, "cost", by), report(client, "tokens", by)
    assert answered(cost).keys() == answered(tokens).keys() == expected.keys()
    for key, events in expected.items():
        total = {
            name: sum(int(event[name]) for event in events)
            for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
        }
        spent, used = answered(cost)[key], answered(tokens)[key]
        assert spent["cost_usd"] == pytest.approx(math.fsum(event["cost_usd"] for event in events), abs=1e-9)
        assert (spent["requests"], spent["sessions"]) == (len(events), len({event["session.id"] for event in events}))
        assert spent["token_count"] == total["input_tokens"] + total["output_tokens"]
        assert {name: used[name] for name in total} == total
        read = total["input_tokens"] + total["cache_read_tokens"] + total["cache_creation_tokens"]
        assert used["cache_hit_ratio"] == (pytest.approx(total["cache_read_tokens"] / read) if read else None)
    everything = [event for events in expected.values() for event in events]
    assert cost.total["cost_usd"] == pytest.approx(math.fsum(event["cost_usd"] for event in everything), abs=1e-9)
    assert cost.total["requests"] == len(everything) and cost.more == 0
    without = [name for name in by.split(",") if name in ATTRIBUTED] or ["chapter"]
    lost = math.fsum(event["cost_usd"] for event in everything if UNATTRIBUTED in names_of(event, ",".join(without)))
    assert cost.coverage["unattributed"] == pytest.approx(lost, abs=1e-9)


@pytest.mark.parametrize("by", ["tool", "chapter", "day,tool"])
def test_tools_are_those_of_the_recordings(client: Client, recorded: list[dict[str, Any]], by: str) -> None:
    expected = grouped([event for event in recorded if event["name"] == "tool_result"], by)
    got = {key: row for key, row in answered(report(client, "tools", by)).items() if row["calls"]}
    assert got.keys() == expected.keys()
    for key, events in expected.items():
        assert got[key]["calls"] == len(events)
        assert got[key]["failures"] == sum(event["success"] == "false" for event in events)
        assert got[key]["result_bytes"] == sum(int(event.get("tool_result_size_bytes") or 0) for event in events)
        assert got[key]["p50_ms"] <= got[key]["p95_ms"] <= max(int(event["duration_ms"]) for event in events) * 1.01


@pytest.mark.parametrize("by", ["session", "chapter", "user"])
def test_sessions_are_those_of_the_recordings(client: Client, recorded: list[dict[str, Any]], by: str) -> None:
    kinds = ("user_prompt", "api_request", "api_error", "tool_result")
    expected = grouped([event for event in recorded if event["name"] in kinds], by)
    got = answered(report(client, "sessions", by))
    assert got.keys() == expected.keys()
    for key, events in expected.items():
        times = [event["time_ns"] for event in events]
        counted = [sum(event["name"] == kind for event in events) for kind in kinds]
        assert [got[key][name] for name in ("prompts", "requests", "api_errors", "tool_calls")] == counted
        assert abs(got[key]["elapsed_ms"] - (max(times) - min(times)) / 1e6) <= 1
        local = datetime.fromtimestamp(min(times) // 10**9, ZoneInfo(ZONE))
        assert got[key]["started_at"].startswith(f"{local:%Y-%m-%d %H:%M:%S}")


@pytest.mark.parametrize("by", ["code", "session", "tool,chapter"])
def test_errors_are_those_of_the_recordings(client: Client, recorded: list[dict[str, Any]], by: str) -> None:
    failed = [e for e in recorded if e["name"] == "api_error" or (e["name"] == "tool_result" and e["success"] == "false")]
    for event in failed:
        event["code"] = str(event.get("status_code") or "(no code)")
    expected = defaultdict(int)
    for event in failed:
        expected[(event["code"],) if by == "code" else names_of(event, by)] += 1
    assert {key: row["errors"] for key, row in answered(report(client, "errors", by)).items()} == expected


def test_the_numbers_of_whole_recordings_have_no_gaps(client: Client, recorded: list[dict[str, Any]]) -> None:
    coverage = report(client, "cost", "chapter").coverage
    assert (coverage["gaps"], coverage["received"], coverage["expected"]) == (0, len(recorded), len(recorded))


def test_filters_take_names_numbers_and_the_unattributed(client: Client, recorded: list[dict[str, Any]]) -> None:
    requests = [event for event in recorded if event["name"] == "api_request"]
    for name, value, keep in (
        ("chapter", "33", lambda event: event["chapter"].startswith("33-")),
        ("chapter", UNATTRIBUTED, lambda event: event["chapter"] == ""),
        ("feature", "17", lambda event: event["feature"].startswith("017-")),
        ("feature", "018-cost-reports", lambda event: event["feature"] == "018-cost-reports"),
        ("user", "grace", lambda event: event["enduser.id"] == "grace"),
        ("session", requests[0]["session.id"], lambda event: event["session.id"] == requests[0]["session.id"]),
    ):
        kept = [event for event in requests if keep(event)]
        assert kept and len(kept) < len(requests)
        result = report(client, "cost", "model", filters={name: value})
        assert result.total["cost_usd"] == pytest.approx(math.fsum(event["cost_usd"] for event in kept), abs=1e-9)
        assert result.coverage["gaps"] == 0
    with pytest.raises(NothingStored, match="with chapter 3"):
        report(client, "cost", "model", filters={"chapter": "3"})


def test_beyond_the_limit_rows_are_counted_and_the_total_stays(client: Client, recorded: list[dict[str, Any]]) -> None:
    whole, cut = report(client, "cost", "session"), report(client, "cost", "session", limit=2)
    assert cut.rows == whole.rows[:2] and cut.total == whole.total and cut.more == len(whole.rows) - 2
    chapters = report(client, "cost", "chapter", limit=1)
    assert [row["chapter"] for row in chapters.rows][1:] == [UNATTRIBUTED]


def test_clickhouse_connect_asks_the_same_files(server: Server, client: Client, recorded: list[dict[str, Any]]) -> None:
    other = clickhouse_connect.get_client(host="127.0.0.1", port=server.port, username="telemetry_reader", password=READER_PASSWORD)
    for each in REPORTS.values():
        asked = parameters(each, start="2026-01-01", tz=ZONE).for_query()
        theirs = other.query(each.sql(), parameters=asked)
        ours = client.query(each.sql(), asked)
        assert list(theirs.column_names) == ours.names and len(theirs.result_rows) == len(ours.rows)
        place = ours.names.index(each.main)
        assert [row[place] for row in theirs.result_rows] == pytest.approx([row[place] for row in ours.rows])
    other.close()


@pytest.mark.parametrize("file", ["session-analysis.sql", "error-analysis.sql", "tool-usage.sql"])
def test_queries_by_hand_run_as_printed(client: Client, recorded: list[dict[str, Any]], file: str) -> None:
    text = query(file)
    ready = list(statements(text))
    assert len(ready) == len(re.findall(r"^-- \d\. ", text, re.MULTILINE))
    for statement in ready:
        client.query(statement)
        assert client.query(re.sub(r"INTERVAL \d+ DAY", "INTERVAL 10 YEAR", statement)).rows, statement


def test_the_table_of_queries_names_each_file() -> None:
    queries = resources.path("telemetry-server/queries")
    named = set(re.findall(r"^\| `([\w-]+\.sql)`", (queries / "README.md").read_text(), re.MULTILINE))
    assert named == {file.name for file in queries.glob("*.sql")}


def test_groupings_of_catalogue_and_query_are_the_same(client: Client) -> None:
    for each in REPORTS.values():
        said = re.search(r"--   by +one to three of: ([a-z ]+);", each.sql())
        assert said and set(said[1].split()) == set(each.groupings)
    asked = parameters(REPORTS["cost"], tz="UTC").for_query()
    for by in ("nonsense", "", "day,chapter,user,model"):
        with pytest.raises(QueryFailed, match="one to three of"):
            client.query(REPORTS["cost"].sql(), {**asked, "by": by})
