"""The price list in the store: as of the day, own rows, unknown models; and where its sums differ from what was reported, why."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sp_telemetry import resources
from sp_telemetry.errors import UsageError
from sp_telemetry.reports.catalogue import COSTS, REPORTS
from sp_telemetry.store import prices, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, log_request

SESSION = "00000000-0000-4000-8000-00000000cafe"
OCTOBER_6 = 1_791_244_800  # 2026-10-06 00:00 UTC
DAY = 86_400
NONE = {name: "" for name in ("from", "to", "user", "session", "chapter", "feature", "type")}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    engine = Engine(tmp_path_factory.mktemp("prices") / "store")
    with engine.handle() as handle:
        schema.migrate(handle)
        yield handle
    engine.close()


@pytest.fixture
def handle(store: Handle) -> Handle:
    for table in ("telemetry_events", "transcript_copies", "model_prices"):
        store.run(f"TRUNCATE TABLE telemetry.{table}")
    store.run("ALTER TABLE telemetry.schema_migrations DELETE WHERE name = 'prices' SETTINGS mutations_sync = 2")
    prices.load(store)
    return store


def send(handle: Handle, *requests: dict[str, Any]) -> None:
    """api_request events; `transcript` of each goes to its line there."""
    events, copies = [], []
    for number, request in enumerate(requests):
        at, told = request.pop("at", OCTOBER_6 + 40 * DAY), request.pop("transcript", None)
        event = {
            "name": "api_request", "time_ns": at * 10**9 + number, "session.id": SESSION, "event.sequence": number, "user.id": "u",
            "model": "claude-opus-5-5", "request_id": f"req_0000{number:04d}", "input_tokens": 1_000_000, "output_tokens": 0,
        } | request  # fmt: skip
        events.append(event)
        if told is not None:
            same = {name: event[name] for name in ("request_id", "model", "input_tokens", "cache_creation_tokens") if name in event}
            copy = {"file_id": "0" * 32, "message_id": f"msg_0000{number:04d}", "attempts": 1, "read_at": "1.0", "timestamp": f"{at}.0"}
            copies.append(copy | same | {"session_id": SESSION, "stop_reason": "end_turn"} | told)
    with Pipelines(handle) as pipeline:
        pipeline.store(Lane("logs", "json"), [as_json(log_request(events))])
    if copies:
        handle.insert("INSERT INTO telemetry.transcript_copies", "JSONEachRow", ["\n".join(map(json.dumps, copies)).encode()])


class Pipelines:
    """A pipeline whose temporary tables go with it: a handle has them once."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def __enter__(self) -> Pipeline:
        for signal in ("logs", "metrics", "traces"):
            self._handle.run(f"DROP TEMPORARY TABLE IF EXISTS stage_{signal}")
        return Pipeline(self._handle)

    def __exit__(self, *_: object) -> None:
        pass


def ask(handle: Handle, report: Any, by: str, **more: str) -> list[dict[str, Any]]:
    sql = report.sql()
    return json.loads(handle.query(sql, "JSON", NONE | {"by": by, "tz": "UTC", "limit": "0", "from": "2026-01-01"} | more))["data"]


def computed(handle: Handle) -> list[float | None]:
    rows = json.loads(handle.query("SELECT computed_usd FROM telemetry.request_costs ORDER BY timestamp", "JSONCompact"))["data"]
    return [row[0] for row in rows]


def test_pitfall_20_the_price_is_that_of_the_day(handle: Handle) -> None:
    reads = {"model": "claude-sonnet-5-5", "input_tokens": 0, "cache_read_tokens": 1_000_000, "cost_usd": 0.2}
    send(handle, reads | {"at": OCTOBER_6 + DAY - 1}, reads | {"at": OCTOBER_6 + DAY})
    assert computed(handle) == [pytest.approx(0.2), pytest.approx(0.1)]


NAMES = {
    "claude-opus-4-5": [
        "claude-opus-4-5", "Claude-Opus-4-5", "claude-opus-4-5[1m]", "claude-opus-4-5-20251101", "claude-opus-4-5-20251101[1m]",
        "claude-opus-4-5@20251101", "us.anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-4-5-latest",
        "vertex_ai/claude-opus-4-5@20251101", "anthropic/claude-opus-4.5", "claude-opus-4.5:thinking", "claude-opus-4_5",
        "arn:aws:bedrock:eu-west-1:1234:inference-profile/eu.anthropic.claude-opus-4-5-20251101-v1:0",
    ],
    "claude-3-5-sonnet": ["claude-3-5-sonnet-latest", "anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet---",
                          "anthropic/claude-3.5-sonnet"],
    "claude-4-5-opus": ["anthropic/claude-4.5-opus-20251124"],
    "gpt-5": ["gpt-5", "GPT-5"],
    "claude-": ["claude-"],
    "": [""],
}  # fmt: skip


def test_one_model_has_one_price_under_each_of_its_names(handle: Handle) -> None:
    sql = "SELECT telemetry_price_model(toLowCardinality(arrayJoin({names:Array(String)}))) AS name, toTypeName(name)"
    for name, known_as in NAMES.items():
        quoted = ",".join(f"'{each}'" for each in known_as)
        rows = json.loads(handle.query(sql, "JSONCompact", {"names": f"[{quoted}]"}))["data"]
        assert rows == [[name, "LowCardinality(String)"]] * len(known_as)  # evaluated once for each distinct name


def test_pitfall_19_a_model_without_a_price_is_unpriced_with_its_tokens(handle: Handle) -> None:
    send(handle, {"model": "claude-nobody-knows-9", "cost_usd": 4.0}, {"cost_usd": 4.0})
    assert computed(handle) == [None, 4.0]
    total = ask(handle, COSTS["both"], "model")[-1]
    assert (total["cost_usd"], total["reported_usd"], total["difference_usd"]) == (4.0, 8.0, 0.0)
    assert (int(total["unpriced_requests"]), int(total["unpriced_tokens"])) == (1, 1_000_000)


def test_a_model_that_costs_nothing_is_not_unpriced(handle: Handle, tmp_path: Path) -> None:
    """On the days that the list says so. Of a model that the list knows at some price, a cost of 0 is what the client did not know."""
    own = tmp_path / "prices.csv"
    own.write_text("model,valid_to,input,output,cache_read\nours/free-7,2026-11-11,0,0,0\nours/dear-7,,1,0,1\n")
    prices.load(handle, own)
    tenth = OCTOBER_6 + 35 * DAY
    send(handle, {"model": "Ours/Free-7", "cost_usd": 0.0, "at": tenth}, {"model": "ours/free-7", "cost_usd": 0.0, "at": tenth + DAY},
         {"model": "ours/dear-7", "cost_usd": 0.0}, {"model": "", "cost_usd": 0.0})  # fmt: skip

    def unpriced(report: Any) -> dict[str, tuple[int, int]]:
        return {row["group_1"]: (int(row["unpriced_requests"]), int(row["unpriced_tokens"])) for row in ask(handle, report, "model")[:-1]}

    none, one = (0, 0), (1, 1_000_000)
    assert unpriced(REPORTS["cost"]) == {"Ours/Free-7": none, "ours/free-7": one, "ours/dear-7": one, "(no model)": one}
    assert unpriced(COSTS["both"]) == {"Ours/Free-7": none, "ours/free-7": one, "ours/dear-7": none, "(no model)": one}
    prices.load(handle)
    assert unpriced(REPORTS["cost"])["Ours/Free-7"] == one


def test_own_prices_stand_in_place_of_the_shipped_ones_of_their_model_and_tier(handle: Handle, tmp_path: Path) -> None:
    own = tmp_path / "prices.csv"
    own.write_text("model,tier,valid_from,input,output\nclaude-opus-5-5,standard,2026-11-10,1,5\nours/private-7,,,3,4\n")
    assert prices.load(handle, own) and not prices.load(handle, own)
    at = OCTOBER_6 + 34 * DAY  # the day before 2026-11-10
    send(handle, {"at": at}, {"at": at + DAY}, {"at": at + DAY + 1, "model": "ours/private-7"},
         {"at": at + DAY + 2, "speed": "fast"}, {"at": at + DAY + 3, "model": "claude-opus-5"})  # fmt: skip
    assert computed(handle) == [None, 1.0, 3.0, 8.0, 5.0]
    assert prices.load(handle)  # and away again
    assert computed(handle) == [4.0, 4.0, None, 8.0, 5.0]


def test_each_shipped_price_says_where_it_is_from_and_when_that_was_looked_up(handle: Handle, tmp_path: Path) -> None:
    """An own one may; where it does not, no day is made up."""
    rows = list(csv.DictReader(resources.path("telemetry-server/prices/anthropic.csv").read_text("utf-8").splitlines()))
    assert rows and all(row["source"].startswith(("https://", "npm:@")) for row in rows)
    assert all(date(2026, 1, 1) <= date.fromisoformat(row["retrieved"]) <= datetime.now(UTC).date() for row in rows)
    own = tmp_path / "prices.csv"
    own.write_text("model,input,output,source,retrieved\nours/a-1,1,2,,\nours/b-1,1,2,contract 7,2026-11-02\n")
    prices.load(handle, own)
    said = handle.query("SELECT model, source, retrieved FROM telemetry.prices WHERE origin = 'own' ORDER BY model")
    assert said == b"ours/a-1\t\t1970-01-01\nours/b-1\tcontract 7\t2026-11-02\n"
    assert handle.query("SELECT min(source) > '', min(retrieved) > toDate(0) FROM telemetry.prices WHERE origin = 'shipped'") == b"1\t1\n"


def test_where_no_own_price_of_long_prompts_holds_they_cost_what_others_do(handle: Handle, tmp_path: Path) -> None:
    """The shipped prices of their tier are replaced, so on other days there is none of that tier; as for any model that has none."""
    own = tmp_path / "prices.csv"
    own.write_text(
        "model,tier,above_tokens,valid_from,valid_to,input,output\n"
        "claude-haiku-5-5,long,200000,2026-11-10,2026-11-12,7,9\nclaude-haiku-5-5,long,200000,2026-11-13,,8,9\n"
        "claude-sonnet-5-5,long,200000,,2026-10-06,7,9\n"  # before the shipped list has another price of other prompts
        "ours/private-7,long,200000,,2026-11-10,7,9\n"  # and has no price of other prompts
    )
    prices.load(handle, own)
    tenth, of = OCTOBER_6 + 35 * DAY, {"model": "claude-haiku-5-5"}
    send(handle, *(of | {"at": tenth + day * DAY} for day in (-1, 0, 1, 2, 3, 40)))
    assert computed(handle) == [0.1, 7.0, 7.0, 0.1, 8.0, 8.0]
    handle.run("TRUNCATE TABLE telemetry.telemetry_events")
    reads = {"model": "claude-sonnet-5-5", "input_tokens": 0, "cache_read_tokens": 1_000_000}
    send(handle, *(reads | {"at": OCTOBER_6 + day * DAY} for day in (-1, 0, 1)), {"model": "ours/private-7", "at": tenth - 1},
         {"model": "ours/private-7", "at": tenth})  # fmt: skip
    assert computed(handle) == [pytest.approx(0.7), pytest.approx(0.2), pytest.approx(0.1), 7.0, None]
    tiers = "SELECT count(), countIf(valid_from >= valid_to) FROM telemetry.prices WHERE tier = 'fast' OR model = 'claude-haiku-5-5'"
    assert handle.query(tiers) == b"12\t0\n"


def test_a_price_holds_until_the_next_one_begins(handle: Handle, tmp_path: Path) -> None:
    """Whoever says from when on another price holds need not say when the one before ended; and each report says the same."""
    own = tmp_path / "prices.csv"
    own.write_text(
        "model,valid_from,valid_to,input,output\nours/m-1,2026-11-10,,9,9\nours/m-1,,,0,0\nours/m-1,2026-11-12,2026-11-13,5,5\n"
        "ours/m-2,,,3,3\nOURS/M-2,,,4,4\n"  # one model under two names
    )
    prices.load(handle, own)
    tenth = OCTOBER_6 + 35 * DAY
    send(handle, *({"model": "ours/m-1", "cost_usd": 0.0, "at": tenth + day * DAY, "transcript": {}} for day in (-1, 0, 1, 2, 3)))
    assert computed(handle) == [0.0, 9.0, 9.0, 5.0, None]
    told = "SELECT computed_usd FROM telemetry.transcript_costs ORDER BY timestamp"
    assert [usd for (usd,) in json.loads(handle.query(told, "JSONCompact"))["data"]] == computed(handle)
    total = ask(handle, COSTS["computed"], "model")[-1]
    assert (total["cost_usd"], int(total["unpriced_requests"])) == (23.0, 1)
    assert int(ask(handle, REPORTS["cost"], "model")[-1]["unpriced_requests"]) == 4
    assert handle.query("SELECT groupArray(input) FROM telemetry.prices WHERE model = 'ours/m-2'") == b"[4]\n"


def test_requests_of_one_group_have_the_prices_of_their_days(handle: Handle, tmp_path: Path) -> None:
    """Also those of days beside each other, of which one lacks a chapter, or was filled in and not priced then."""
    own = tmp_path / "prices.csv"
    days = [f"ours/m-1,2026-11-{10 + day},2026-11-{11 + day},{10**day},1" for day in range(8)]
    own.write_text("\n".join(["model,valid_from,valid_to,input,output", *days]))
    prices.load(handle, own)
    rows = [
        {"event_type": "api_request", "version": 1, "event_id": (day * 2 + lacks) * 2 + filled, "model": "ours/m-1", "session_id": SESSION,
         "timestamp": OCTOBER_6 + (35 + day) * DAY, "input_tokens": 1_000_000, "token_count": 1_000_000,
         "chapter_context": "" if lacks else "1-x", "source": "transcript" if filled else "otlp", "cost_usd": 0 if filled else 1}
        for day in range(8) for lacks in range(2) for filled in range(2)
    ]  # fmt: skip
    handle.insert("INSERT INTO telemetry.telemetry_events", "JSONEachRow", ["\n".join(map(json.dumps, rows)).encode()])
    group, _ = ask(handle, COSTS["computed"], "session")
    assert (group["cost_usd"], group["unattributed"], group["reported_usd"]) == (4 * 11_111_111, 2 * 11_111_111, 16)


def test_own_prices_name_models_as_reports_do(handle: Handle, tmp_path: Path) -> None:
    own = tmp_path / "prices.csv"
    own.write_text("model,input,output\nOurs/Private-7.5,3,4\nclaude-opus-4-5-20251101,1,5\n")
    prices.load(handle, own)
    names = ("Ours/Private-7.5", "claude-opus-4-5-20251101", "us.anthropic.claude-opus-4-5-20251101-v1:0")
    send(handle, *({"model": name} for name in names))
    assert computed(handle) == [3.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "model,input,output\nx,dear,2\n", "model,costs\nx,1\n", "model,tier,input,output\nx,cheap,1,2\n", b"\xff\xfe",
        "model,input\nx,1\n", "model,input,output\nx,,2\n", "model,input,output\nx,nan,2\n", "model,input,output\nx,1,inf\n",
        "model,input,output\nx,-1,2\n", "model,input,output,batch\nx,1,2,-1\n", "model,input,output\n,1,2\n",
        "model,input,output,valid_from,valid_to\nx,1,2,2026-11-02,2026-11-01\n",
    ],
)  # fmt: skip
def test_own_prices_that_cannot_be_read_leave_the_list_as_it_was(handle: Handle, tmp_path: Path, text: str | bytes) -> None:
    before = handle.query("SELECT * FROM telemetry.prices ORDER BY ALL")
    own = tmp_path / "prices.csv"
    own.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=r"prices\.csv can't be read"):
        prices.load(handle, own)
    assert handle.query("SELECT * FROM telemetry.prices ORDER BY ALL") == before


def test_what_an_event_does_not_tell_its_transcript_does(handle: Handle) -> None:
    writes = {"input_tokens": 0, "cache_creation_tokens": 1_000_000}
    send(
        handle,
        {"transcript": {"speed": "fast"}},
        {"transcript": {"service_tier": "batch", "inference_geo": "us", "web_searches": 2}},
        writes | {"transcript": {"cache_creation_5m_tokens": 600_000, "cache_creation_1h_tokens": 400_000}},
        writes | {"transcript": {"cache_creation_tokens": 900_000, "cache_creation_1h_tokens": 400_000}},  # of another event
        {"transcript": {}},
    )
    assert computed(handle) == [pytest.approx(usd) for usd in (8.0, 4 * 0.5 * 1.1 + 0.02, 5 * 0.6 + 8 * 0.4, 5.0, 4.0)]


def test_of_copies_of_a_request_the_most_complete_counts(handle: Handle) -> None:
    """As for transcripts themselves, in whichever order they were read."""
    send(handle, {}, {})
    for number, said in enumerate([("", 90, 1), ("end_turn", 50, 3), ("end_turn", 40, 2)]):
        of = dict(zip(("stop_reason", "output_tokens", "web_searches"), said, strict=True))
        for request, file in ((0, number), (1, 2 - number)):
            copy = {"file_id": str(file) * 32, "message_id": f"msg_0000{request:04d}", "request_id": f"req_0000{request:04d}",
                    "attempts": 1, "read_at": "1.0", "timestamp": f"{OCTOBER_6 + 40 * DAY}.0", "session_id": SESSION}  # fmt: skip
            handle.insert("INSERT INTO telemetry.transcript_copies", "JSONEachRow", [json.dumps(copy | of).encode()])
    assert computed(handle) == [4.03, 4.03]


def test_each_difference_has_its_reason(handle: Handle) -> None:
    hour = {"input_tokens": 0, "cache_creation_tokens": 1_000_000, "cache_creation_1h_tokens": 1_000_000}
    send(
        handle,
        {"cost_usd": 4.0},  # as the list says
        hour | {"cost_usd": 5.0},
        hour | {"cost_usd": 5.0, "cache_creation_1h_tokens": 0, "transcript": {"cache_creation_1h_tokens": 1_000_000}},
        {"cost_usd": 4.0, "transcript": {"inference_geo": "us"}},
        {"cost_usd": 4.0, "transcript": {"web_searches": 2}},
        {"cost_usd": 4.0, "transcript": {"service_tier": "batch"}},
        {"cost_usd": 4.0, "speed": "fast"},
        {"cost_usd": 0.1, "model": "claude-haiku-5-5"},
        {"cost_usd": 0.2, "model": "claude-sonnet-5-5", "input_tokens": 0, "cache_read_tokens": 1_000_000},
        {"cost_usd": 5.0},
        {"cost_usd": 0.0},
        {"cost_usd": 4.0, "model": "claude-nobody-knows-9"},
        {"cost_usd": 1.234},
    )
    expected = {
        "cache writes for 1 hour counted as for 5 minutes": (2, -6.0), "inference in the US not counted": (1, -0.4),
        "web searches not counted": (1, -0.02), "batch discount not counted": (1, 2.0), "price of tier standard instead of fast": (1, -4.0),
        "price of tier standard instead of long": (1, -0.4), "price of another day": (1, 0.1), "price of another model": (1, 1.0),
        "not priced by Claude Code": (1, -4.0), "no price in the list": (1, 0.0), "unknown": (1, -2.766),
    }  # fmt: skip
    *groups, total = ask(handle, REPORTS["cost-differences"], "reason")
    assert {row["group_1"]: (int(row["requests"]), pytest.approx(row["difference_usd"])) for row in groups} == expected
    assert (int(total["requests"]), total["difference_usd"]) == (12, pytest.approx(sum(more for _, more in expected.values())))
    both = ask(handle, COSTS["both"], "model")[-1]
    assert both["difference_usd"] == pytest.approx(total["difference_usd"])  # nothing differs beside these
    assert len(ask(handle, REPORTS["cost-differences"], "request,reason,version")) == 13


REQUEST = st.fixed_dictionaries(
    {
        "timestamp": st.sampled_from([OCTOBER_6 - DAY, OCTOBER_6 + DAY - 1, OCTOBER_6 + DAY, OCTOBER_6 + 40 * DAY]),
        "model": st.sampled_from(["claude-opus-5-5", "claude-sonnet-5-5", "us.anthropic.claude-sonnet-4-5", "made-up", ""]),
        "session_id": st.sampled_from([SESSION, SESSION[:-1] + "f"]),
        "chapter_context": st.sampled_from(["", "33-one", "34-two"]),
        "source": st.sampled_from(["otlp", "otlp", "transcript"]),
        "speed": st.sampled_from(["", "fast"]),
        "cost_usd": st.sampled_from([0, 0.25, 4]),
        "input_tokens": st.sampled_from([0, 7, 250_000]),
        "output_tokens": st.sampled_from([0, 1_000]),
        "cache_creation_tokens": st.sampled_from([0, 900]),
        "cache_creation_1h_tokens": st.sampled_from([0, 0, 400]),
    }
)
TOLD = st.none() | st.fixed_dictionaries(
    {
        "service_tier": st.sampled_from(["standard", "batch"]),
        "inference_geo": st.sampled_from(["", "us"]),
        "web_searches": st.sampled_from([0, 2]),
        "speed": st.sampled_from(["", "fast"]),
        "cache_creation_tokens": st.sampled_from([0, 900]),
        "cache_creation_1h_tokens": st.sampled_from([0, 300]),
    }
)
BY_REQUEST = """
    SELECT
        toString({group}), sum(ifNull(computed_usd, 0)), sum(ifNull(reported_usd, 0)), sum(ifNull(reported_usd - computed_usd, 0)),
        count(), uniqExact(session_id), sum(input_tokens + output_tokens), countIf(isNull(computed_usd) AND all > 0),
        sum(if(isNull(computed_usd), all, 0)), sumIf(ifNull(computed_usd, 0), chapter_context = '')
    FROM (SELECT *, input_tokens + output_tokens + cache_read_tokens + cache_creation_tokens AS all FROM telemetry.request_costs)
    GROUP BY {group} ORDER BY 1"""
FIGURES = ["cost_usd", "reported_usd", "difference_usd", "requests", "sessions", "token_count", "unpriced_requests",
           "unpriced_tokens", "unattributed"]  # fmt: skip


@given(st.lists(st.tuples(REQUEST, TOLD), min_size=1, max_size=30))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_group_costs_what_its_requests_cost(handle: Handle, requests: list[tuple[dict[str, Any], dict[str, Any] | None]]) -> None:
    for table in ("telemetry_events", "transcript_copies"):
        handle.run(f"TRUNCATE TABLE telemetry.{table}")
    events, copies = [], []
    for number, (request, told) in enumerate(requests):
        names = {"event_type": "api_request", "event_id": number, "version": 1, "request_id": f"req_{number}"}
        events.append(names | request | {"token_count": request["input_tokens"] + request["output_tokens"]})
        if told:
            names = {"file_id": "0" * 32, "message_id": f"msg_{number}", "request_id": f"req_{number}", "attempts": 1, "stop_reason": "x"}
            copies.append(names | {"read_at": 1, "timestamp": request["timestamp"]} | told)
    for table, rows in (("telemetry_events", events), ("transcript_copies", copies)):
        handle.insert(f"INSERT INTO telemetry.{table}", "JSONEachRow", ["\n".join(map(json.dumps, rows)).encode()] if rows else [])
    for by, column in (("session", "session_id"), ("model", "model"), ("chapter", "chapter_context"), ("day", "toDate(timestamp)")):
        groups = {row["group_1"]: [row[name] for name in FIGURES] for row in ask(handle, COSTS["computed"], by) if row["row"] != "total"}
        asked = json.loads(handle.query(BY_REQUEST.format(group=column), "JSONCompact"))["data"]
        unnamed = "(no model)" if by == "model" else "(unattributed)"
        assert groups == {name or unnamed: pytest.approx(figures, abs=1e-9) for name, *figures in asked}
