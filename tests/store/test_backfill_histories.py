"""What transcripts fill in, against a model of the store in a few lines: any history of arrivals, copies, gaps, backfills, removals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from sp_telemetry.reports.catalogue import ATTRIBUTED, COSTS, REPORTS, UNATTRIBUTED
from sp_telemetry.store import backfill, maintenance, prices, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, log_request

MACHINE = "0123456789abcdef"
NOW_NS = 1_795_000_000_000_000_000  # 2026-11-18
MODELS = ("claude-opus-5-5", "claude-haiku-5-5", "claude-nobody-knows-9")
SESSIONS = tuple(f"00000000-0000-4000-8000-00000000000{n}" for n in range(3))
TABLES = ("telemetry_events", "session_context", "session_summaries", "usage_hourly", "transcript_copies", "transcript_files",
          "backfilled_requests", "transcript_contexts")  # fmt: skip


@dataclass(frozen=True)
class Request:
    """One API request, as the transcript and the event tell it. Numbers of tokens and prices make its cost exact in binary."""

    number: int
    session: int
    hour: int
    model: int
    has_id: bool

    @property
    def request_id(self) -> str:
        return f"req_0000{self.number:04d}" if self.has_id else ""

    @property
    def prompt_id(self) -> str:
        """Two requests, one behind the other, are of one prompt."""
        return f"00000000-0000-4000-8000-0000000000{self.number // 2:02x}"

    @property
    def at_ns(self) -> int:
        return NOW_NS + self.hour * 3_600_000_000_000 + self.number * 1_000_000_000

    @property
    def tokens(self) -> tuple[int, int]:
        return 1_000_000 * (self.number + 1), 2_000_000

    @property
    def cost(self) -> float:
        """What Claude Code reports, and what the shipped list says: the same, but for the model that the list does not know."""
        read, written = self.tokens
        return {0: 4 * read + 20 * written, 1: 0.5 * read + 2.5 * written, 2: 4 * read + 20 * written}[self.model] / 1e6

    @property
    def computed(self) -> float:
        return 0.0 if self.model == 2 else self.cost

    def event(self) -> dict:
        read, written = self.tokens
        found = {"name": "api_request", "time_ns": self.at_ns + 300_000_000, "session.id": SESSIONS[self.session], "user.id": "u" * 16,
                 "event.sequence": self.number, "model": MODELS[self.model], "input_tokens": read, "output_tokens": written,
                 "cost_usd": self.cost, "prompt.id": self.prompt_id}  # fmt: skip
        return found | ({"request_id": self.request_id} if self.has_id else {})

    def prompt(self) -> dict:
        return {"name": "user_prompt", "time_ns": self.at_ns - 1, "session.id": SESSIONS[self.session], "user.id": "u" * 16,
                "event.sequence": 1000 + self.number, "prompt.id": self.prompt_id}  # fmt: skip

    def copy(self) -> dict:
        read, written = self.tokens
        at = f"{self.at_ns // 10**9}.{self.at_ns % 10**9:09d}"
        return {"file_id": f"{self.session:032x}", "message_id": f"msg_0000{self.number:04d}", "request_id": self.request_id, "attempts": 1,
                "read_at": at, "timestamp": at, "session_id": SESSIONS[self.session], "model": MODELS[self.model], "input_tokens": read,
                "output_tokens": written, "stop_reason": "end_turn", "branch": f"01{self.session}-a-feature", "directory": "~/book",
                "service_version": "2.1.330", "prompt_id": self.prompt_id}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Handle, Pipeline]]:
    engine = Engine(tmp_path_factory.mktemp("backfill") / "store")
    with engine.handle() as handle, engine.handle() as inserting:
        schema.migrate(handle)
        prices.load(handle)
        maintenance.apply_retention(handle, {"retention_events_days": 0, "retention_sessions_days": 0})
        yield handle, Pipeline(inserting)
    engine.close()


@pytest.fixture(autouse=True)
def empty(store: tuple[Handle, Pipeline]) -> None:
    clear(store[0])


def clear(handle: Handle) -> None:
    for table in TABLES:
        handle.run(f"TRUNCATE TABLE telemetry.{table}")
    files = [{"file_id": f"{n:032x}", "machine": MACHINE, "read_at": "1.0"} for n in range(len(SESSIONS))]
    handle.insert("INSERT INTO telemetry.transcript_files", "JSONEachRow", [json.dumps(files).encode()])


def read_transcripts(handle: Handle, requests: list[Request]) -> None:
    rows = "\n".join(json.dumps(request.copy()) for request in requests)
    if rows:
        handle.insert("INSERT INTO telemetry.transcript_copies", "JSONEachRow", [rows.encode()])


def fill(handle: Handle) -> None:
    backfill.complete(handle, backfill.begin(handle, MACHINE, 0), MACHINE, "Ada")


def arrive(pipeline: Pipeline, *events: dict) -> None:
    pipeline.store(Lane("logs", "json"), [as_json(log_request(list(events)))])


def rows(handle: Handle, sql: str) -> list[list]:
    return json.loads(handle.query(sql, "JSONCompact"))["data"]


def counted(handle: Handle) -> dict[int, tuple[str, float]]:
    """Number of each request -> where its row is from and what it costs. Raises where one is there twice."""
    found = {}
    for request_input, source, cost in rows(
        handle, "SELECT input_tokens, source, cost_usd FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request'"
    ):
        number = int(request_input) // 1_000_000 - 1
        assert number not in found, f"request {number} counts twice"
        found[number] = (source, cost)
    return found


has_id = st.sampled_from([True, True, False])
requests = st.builds(Request, number=st.just(0), session=st.integers(0, 2), hour=st.integers(0, 3), model=st.integers(0, 2), has_id=has_id)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.lists(st.integers(0, 7), min_size=1, max_size=4)),
        st.tuples(st.just("read"), st.lists(st.integers(0, 7), min_size=1, max_size=8)),
        st.tuples(st.just("prompt"), st.lists(st.integers(0, 7), min_size=1, max_size=2)),
        st.tuples(st.just("backfill"), st.none()),
        st.tuples(st.just("remove"), st.none()),
        st.tuples(st.just("summarise"), st.none()),
        st.tuples(st.just("merge"), st.none()),
    ),
    max_size=12,
)


REQUEST = "event_type = 'api_request'"
#: report -> its columns that add up, and what each is in the rows that are stored
ADD_UP = {
    "cost": {"cost_usd": f"sumIf(cost_usd, {REQUEST})", "requests": f"countIf({REQUEST})", "token_count": f"sumIf(token_count, {REQUEST})"},
    "both": {"reported_usd": f"sumIf(cost_usd, {REQUEST} AND source = 'otlp')", "requests": f"countIf({REQUEST})"},
    "tokens": {"input_tokens": f"sumIf(input_tokens, {REQUEST})", "output_tokens": f"sumIf(output_tokens, {REQUEST})"},
    "sessions": {"cost_usd": f"sumIf(cost_usd, {REQUEST})", "prompts": "countIf(event_type = 'user_prompt' OR begins_prompt)",
                 "tool_calls": "countIf(event_type = 'tool_result')"},
    "tools": {"calls": "countIf(event_type = 'tool_result')", "failures": "countIf(success = false)"},
    "errors": {"errors": "countIf(event_type = 'api_error' OR success = false)", "api_errors": "countIf(event_type = 'api_error')"},
}  # fmt: skip
SHIPPED = {**REPORTS, "both": COSTS["both"]}
#: a report and three of its groupings at once: each in one of them, for most of a query's time is its planning
GROUPINGS = [(name, SHIPPED[name].groupings[n : n + 3]) for name in ADD_UP for n in range(0, len(SHIPPED[name].groupings), 3)]


def adds_up(handle: Handle, name: str, by: tuple[str, ...]) -> None:
    """The groups of a shipped report, what is unattributed among them, are in sum its total, and that is what is stored."""
    report = SHIPPED[name]
    asked = dict.fromkeys(("to", "user", "session", "chapter", "feature", "type"), "")
    asked |= {"by": ",".join(by), "tz": "Asia/Kathmandu", "from": "2026-01-01", "limit": "0"}
    *groups, total = json.loads(handle.query(report.sql(), "JSON", asked))["data"]
    stored = ", ".join(f"toFloat64({sql})" for sql in ADD_UP[name].values())
    [raw] = rows(handle, f"SELECT {stored} FROM telemetry.telemetry_events FINAL")
    for column, number in zip(ADD_UP[name], raw, strict=True):
        assert sum(float(row[column] or 0) for row in groups) == float(total[column] or 0) == number, (name, by, column)
    named = [f"group_{place}" for place, each in enumerate(by, 1) if each in ATTRIBUTED]
    if named:
        without = sum(float(row[report.main]) for row in groups if any(row[each] == UNATTRIBUTED for each in named))
        assert float(total["unattributed"]) == without, (name, by)


def history(store: tuple[Handle, Pipeline], world: list[Request], steps: list, report: str, by: tuple[str, ...]) -> None:
    """The report, so grouped, must add up in the end."""
    handle, pipeline = store
    clear(handle)
    world = [Request(number, r.session, r.hour, r.model, r.has_id) for number, r in enumerate(world)]
    reported: set[int] = set()
    read: set[int] = set()
    filled: set[int] = set()
    told: set[str] = set()  # prompts
    for step, numbers in [*steps, ("summarise", None)]:
        some = [world[number % len(world)] for number in numbers or ()]
        if step == "arrive":
            arrive(pipeline, *(request.event() for request in some))
            reported |= {request.number for request in some}
            filled -= reported
        elif step == "read":
            read_transcripts(handle, some)
            read |= {request.number for request in some}
        elif step == "prompt":
            arrive(pipeline, *(request.prompt() for request in some))
            told |= {request.prompt_id for request in some}
        elif step == "backfill":
            fill(handle)
            filled |= read - reported
            begun = rows(handle, "SELECT toString(prompt_id) FROM telemetry.telemetry_events FINAL WHERE begins_prompt ORDER BY prompt_id")
            assert [each for [each] in begun] == sorted({world[number].prompt_id for number in filled} - told)
        elif step == "remove":
            backfill.remove(handle, 0)
            filled.clear()
        elif step == "merge":
            handle.run("OPTIMIZE TABLE telemetry.telemetry_events FINAL")
        else:
            maintenance.summarise(handle)
        expected = {number: ("otlp", world[number].cost) for number in reported}
        expected |= {number: ("transcript", world[number].computed) for number in filled}
        assert counted(handle) == expected, step
    total = sum(cost for _, cost in expected.values())
    for table, filter in (("telemetry_events", "event_type = 'api_request'"), ("usage_hourly", "true"), ("session_summaries", "true")):
        number = "count()" if table == "telemetry_events" else "sum(requests)"
        [[sum_of_all, requests]] = rows(handle, f"SELECT sum(cost_usd), {number} FROM telemetry.{table} FINAL WHERE {filter}")
        assert (float(sum_of_all), int(requests)) == (total, len(expected)), table
    adds_up(handle, report, by)
    unreported = {int(number) // 1_000_000 - 1 for [number] in rows(handle, "SELECT input_tokens FROM telemetry.unreported_requests")}
    assert unreported == read - reported


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.lists(requests, min_size=1, max_size=8), steps=steps, asked=st.sampled_from(GROUPINGS))
def test_any_history_counts_each_request_once(
    store: tuple[Handle, Pipeline], world: list[Request], steps: list, asked: tuple[str, tuple[str, ...]]
) -> None:
    history(store, world, steps, *asked)


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=st.lists(requests, min_size=1, max_size=8), steps=steps, asked=st.sampled_from(GROUPINGS))
def test_any_history_counts_each_request_once_long(
    store: tuple[Handle, Pipeline], world: list[Request], steps: list, asked: tuple[str, tuple[str, ...]]
) -> None:
    history(store, world, steps, *asked)


def test_every_grouping_of_every_report_adds_up_after_a_backfill(store: tuple[Handle, Pipeline]) -> None:
    handle, pipeline = store
    world = [Request(0, number % 3, number, number % 3, number != 4) for number in range(8)]
    steps = [("arrive", [0, 1, 2, 5]), ("prompt", [0, 5]), ("read", [*range(8)]), ("backfill", None), ("arrive", [4])]
    history(store, world, steps, *GROUPINGS[0])
    at = {"time_ns": NOW_NS, "session.id": SESSIONS[0], "user.id": "u" * 16}
    tools = [at | {"name": "tool_result", "tool_name": "Bash", "success": each, "event.sequence": 2000 + n} for n, each in enumerate(
        ("true", "false", "true"))]  # fmt: skip
    arrive(pipeline, *tools, at | {"name": "api_error", "event.sequence": 3000, "error": "x"})
    assert {source for source, _ in counted(handle).values()} == {"otlp", "transcript"}
    for name, by in GROUPINGS:
        adds_up(handle, name, by)


def test_equal_requests_without_an_id_are_counted_as_often_as_there_were(store: tuple[Handle, Pipeline]) -> None:
    handle, pipeline = store
    same = [Request(0, 0, 0, 0, False), Request(0, 0, 0, 0, False), Request(0, 0, 0, 0, False)]
    events = [
        request.event() | {"time_ns": request.at_ns + number * 2_000_000_000, "event.sequence": number}
        for number, request in enumerate(same)
    ]
    copies = [request.copy() | {"message_id": f"msg_0000000{number}", "timestamp": f"{request.at_ns // 10**9 + number * 2}.5"}
              for number, request in enumerate(same)]  # fmt: skip
    handle.insert("INSERT INTO telemetry.transcript_copies", "JSONEachRow", ["\n".join(map(json.dumps, copies)).encode()])

    def of_each() -> dict[str, int]:
        counted = rows(handle, "SELECT source, count() FROM telemetry.telemetry_events FINAL GROUP BY source")
        return {source: int(number) for source, number in counted}

    fill(handle)
    assert of_each() == {"transcript": 3}
    for number, expected in ((2, {"otlp": 1, "transcript": 2}), (2, {"otlp": 1, "transcript": 2}), (0, {"otlp": 2, "transcript": 1}),
                             (1, {"otlp": 3})):  # fmt: skip
        arrive(pipeline, events[number])
        assert of_each() == expected
        fill(handle)
        assert of_each() == expected


def several_with_one_id(store: tuple[Handle, Pipeline]) -> None:
    """Events take the rows of as many requests, the first one's first; which come twice or again take no more."""
    handle, pipeline = store
    clear(handle)
    same = [Request(number, 0, 0, 0, True) for number in range(3)]
    rows_of_same = [json.dumps(each.copy() | {"request_id": same[0].request_id}) for each in same]
    handle.insert("INSERT INTO telemetry.transcript_copies", "JSONEachRow", ["\n".join(rows_of_same).encode()])

    def holds(events: int) -> bool:
        sources = {number: source for number, (source, _) in counted(handle).items()}
        return sources == {number: "otlp" if number < events else "transcript" for number in range(3)}

    fill(handle)
    assert holds(0)
    for number, events in ((0, 1), (0, 1), (1, 2), (2, 3)):
        arrive(pipeline, same[number].event() | {"request_id": same[0].request_id})
        assert holds(events)
        fill(handle)
        assert holds(events)


def test_of_several_with_one_id_each_event_takes_one_row(store: tuple[Handle, Pipeline]) -> None:
    several_with_one_id(store)
