"""Every shipped report on the real engine, as telemetry_reader, through the HTTP interface: against plain Python over the recordings."""

from __future__ import annotations

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import clickhouse_connect
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sp_telemetry import resources
from sp_telemetry.errors import NothingStored, QueryFailed
from sp_telemetry.reports.catalogue import ATTRIBUTED, REPORTS, UNATTRIBUTED, query
from sp_telemetry.reports.parameters import parameters
from sp_telemetry.reports.run import Result, ask
from sp_telemetry.store import maintenance
from sp_telemetry.store.client import Client
from sp_telemetry.store.schema import folder, statements
from tests.recordings.reading import Recording, recordings
from tests.store.clickhouse_server import READER_PASSWORD, Server

ZONE = "Asia/Kathmandu"  # +05:45: no hour of UTC is one of its hours
CONTEXT = ("project", "branch", "feature", "chapter", "step")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("reports"))
    server.owner("ALTER TABLE telemetry.telemetry_events REMOVE TTL")  # recordings grow older than the retention
    yield server
    server.close()


@pytest.fixture(scope="module")
def client(server: Server) -> Client:
    return Client(f"http://127.0.0.1:{server.port}", "telemetry_reader", READER_PASSWORD)


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


def clear(server: Server) -> None:
    for table in ("telemetry_events", "session_context", "session_summaries", "usage_hourly"):
        server.owner(f"TRUNCATE TABLE telemetry.{table}")


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


def report(client: Client, name: str, by: str, **more: Any) -> Result:
    more = {"start": "2026-01-01", "tz": ZONE} | more
    return ask(client, REPORTS[name], parameters(REPORTS[name], by=by, **more))


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


def answered(result: Result) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows by name, without the one that says nothing is unattributed."""
    main = result.report.main
    return {
        tuple(row[name] for name in result.parameters.by): row
        for row in result.rows
        if row[main] or row.get("requests") or row.get("sessions")
    }


GROUPINGS = ["chapter", "feature", "user", "day", "model", "session", "step", "branch", "project", "day,chapter", "user,feature,model"]


@pytest.mark.parametrize("by", GROUPINGS)
def test_cost_and_tokens_are_those_of_the_recordings(client: Client, recorded: list[dict[str, Any]], by: str) -> None:
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


# What follows writes rows of its own.


def write(server: Server, rows: list[dict[str, Any]]) -> None:
    clear(server)
    lines = "\n".join(json.dumps({"version": 1, "event_id": number, **row}) for number, row in enumerate(rows))
    columns = ", ".join(dict.fromkeys(["version", "event_id", *(name for row in rows for name in row)]))
    server.owner(f"INSERT INTO telemetry.telemetry_events ({columns}) FORMAT JSONEachRow\n{lines}")


def settle(server: Server) -> None:
    """Summaries of all that is stored, and something written later, so that they are believed."""
    columns = "(timestamp, received_at, event_type, session_id)"
    server.owner(f"INSERT INTO telemetry.telemetry_events {columns} VALUES (now64(9), now64(9), 'x', 'later')")
    with server.engine.handle() as handle:
        maintenance.summarise(handle, 0)
    assert int(server.owner("SELECT max(version) FROM telemetry.session_summaries")) > 1e18


NAMES = st.sampled_from(["", "", "1-a", "02-b", "33-c"])
ROW = st.fixed_dictionaries(
    {
        "timestamp": st.integers(0, 86400 * 40).map(lambda s: (datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=s)).strftime("%F %T")),
        "event_type": st.sampled_from(["api_request", "api_request", "api_request", "tool_result"]),
        "session_id": st.sampled_from(["s1", "s2", "s3"]),
        "user_id": st.sampled_from(["", "ada", "grace"]),
        "model": st.sampled_from(["", "large", "small"]),
        "chapter_context": NAMES, "feature": NAMES, "branch": NAMES, "workflow_step": NAMES, "project": NAMES,
        "cost_usd": st.one_of(st.just(0.0), st.floats(0, 50, allow_nan=False)),
        "token_count": st.sampled_from([0, 5, 100]),
    }
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROW, min_size=1, max_size=40),
    by=st.lists(st.sampled_from(REPORTS["cost"].groupings), min_size=1, max_size=3, unique=True),
)
def test_every_grouping_adds_up_to_what_is_stored(server: Server, client: Client, rows: list[dict[str, Any]], by: list[str]) -> None:
    write(server, rows)
    requests = [row for row in rows if row["event_type"] == "api_request"]
    if not requests:
        with pytest.raises(NothingStored):
            report(client, "cost", ",".join(by))
        return
    result = report(client, "cost", ",".join(by), tz="America/St_Johns")
    raw = math.fsum(row["cost_usd"] for row in requests)
    for shown in (math.fsum(row["cost_usd"] for row in result.rows), result.total["cost_usd"]):
        assert shown == pytest.approx(raw, abs=1e-9)
    assert sum(row["requests"] for row in result.rows) == len(requests)
    unpriced = [row for row in requests if row["cost_usd"] == 0 and row["token_count"]]
    assert result.coverage["unpriced_requests"] == len(unpriced)
    assert result.coverage["unpriced_tokens"] == sum(row["token_count"] for row in unpriced)
    first = [row[by[0]] for row in result.rows]
    assert UNATTRIBUTED not in first[: len(first) - first.count(UNATTRIBUTED)]  # last, always
    if by[0] in ATTRIBUTED and len(by) == 1:
        assert first[-1] == UNATTRIBUTED


RUNS = st.lists(st.tuples(st.integers(1, 12), st.sets(st.integers(0, 11), max_size=4)), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sessions=st.lists(RUNS, min_size=1, max_size=3))
@example(sessions=[[(3, {0}), (5, {0, 3})]])  # 1, 2, 1, 2, 4: as many and as much as 0 to 4
def test_what_is_missing_is_found_without_any_order_of_time(
    server: Server, client: Client, sessions: list[list[tuple[int, set[int]]]]
) -> None:
    """Runs of a session lose numbers, but none of them one that is the last of any: those are the ones that can't be told."""
    rows, lost, second = [], 0, 0
    for number, runs in enumerate(sessions):
        last = {length - 1 for length, _ in runs}
        for length, missing in runs:
            missing = {each for each in missing if each < length} - last
            lost += len(missing)
            for sequence in set(range(length)) - missing:
                second += 1
                moment = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=second * 7919 % 86400)
                when, session = f"{moment:%F %T}", f"s{number}"
                rows.append(
                    {"timestamp": when, "event_type": "api_request", "session_id": session, "event_sequence": sequence, "cost_usd": 1.0}
                )
    write(server, rows)
    for _ in ("before", "after"):
        coverage = report(client, "cost", "chapter").coverage
        assert (coverage["gaps"], coverage["received"], coverage["sessions"]) == (lost, len(rows), len(sessions))
        settle(server)


def test_a_process_under_way_at_the_start_of_the_range_is_not_a_gap(server: Server, client: Client) -> None:
    start = datetime(2026, 3, 1, 20, tzinfo=UTC)
    numbers = [*range(12), *range(4)]  # resumed once, after four hours of an hour each number
    rows = [
        {
            "timestamp": f"{start + timedelta(hours=hour):%F %T}",
            "event_type": "api_request",
            "session_id": "s",
            "event_sequence": number,
            "cost_usd": 1.0,
        }
        for hour, number in enumerate(numbers)
        if number != 9
    ]
    write(server, rows)
    for _ in ("before", "after"):
        coverage = report(client, "cost", "day", start="2026-03-02T02:30", tz="UTC").coverage
        assert (coverage["received"], coverage["gaps"]) == (8, 1)
        settle(server)


def test_days_are_cut_in_the_zone_also_when_it_changes_its_clocks(server: Server, client: Client) -> None:
    at = ["2026-03-28 22:59:59", "2026-03-28 23:00:00", "2026-03-29 21:59:59", "2026-03-29 22:00:00"]  # Berlin: summer from the 29th on
    write(
        server,
        [{"timestamp": each, "event_type": "api_request", "session_id": "s", "cost_usd": 2.0**place} for place, each in enumerate(at)],
    )
    result = report(client, "cost", "day", start="2026-03-28", tz="Europe/Berlin")
    assert [(row["day"], row["cost_usd"]) for row in result.rows] == [("2026-03-30", 8.0), ("2026-03-29", 6.0), ("2026-03-28", 1.0)]
    only = report(client, "cost", "day", start="2026-03-29", end="2026-03-29", tz="Europe/Berlin")
    assert only.total["cost_usd"] == 6.0
    asked = {**parameters(REPORTS["cost"], by="day", tz="Europe/Berlin").for_query(), "from": "2026-03-29", "to": "2026-03-29"}
    assert client.query(REPORTS["cost"].sql(), asked).records()[-1]["cost_usd"] == 6.0  # as typed behind curl


def test_the_newer_copy_of_an_event_counts(server: Server, client: Client) -> None:
    same = {"timestamp": "2026-03-01 10:00:00", "event_type": "api_request", "session_id": "s", "event_id": 7, "cost_usd": 1.0}
    write(server, [same | {"version": 1}])
    server.owner("INSERT INTO telemetry.telemetry_events (timestamp, event_type, session_id, event_id, cost_usd, version, chapter_context) "
                 "VALUES ('2026-03-01 10:00:00', 'api_request', 's', 7, 1, 2, '33-c')")  # fmt: skip
    result = report(client, "cost", "chapter", tz="UTC")
    assert [(row["chapter"], row["cost_usd"]) for row in result.rows] == [("33-c", 1.0), (UNATTRIBUTED, 0.0)]


def test_versions_with_a_known_fault_are_named(server: Server, client: Client) -> None:
    base = {"timestamp": "2026-03-01 10:00:00", "event_type": "api_request", "session_id": "s", "cost_usd": 1.0}
    versions = ["2.1.190", "2.1.191", "2.1.211", "2.1.212", "2.1.3300"]
    write(server, [base | {"service_version": version, "event_sequence": number} for number, version in enumerate(versions)])
    for _ in ("before", "after"):
        assert report(client, "cost", "chapter").coverage["chunked_versions"] == ["2.1.191", "2.1.211"]
        settle(server)


def test_an_empty_store_says_what_to_do(server: Server, client: Client) -> None:
    clear(server)
    for name in REPORTS:
        with pytest.raises(NothingStored, match="Nothing is stored yet") as failure:
            report(client, name, REPORTS[name].default_by)
        assert "telemetry-setup" in failure.value.hint
