"""The recordings, stored by the real server: each report adds up to what Claude Code printed, by every way that the data can take.

`expected` is a second implementation of attribution and sums: plain Python over the recorded bytes, which shares nothing with the
engine's.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import groupby
from pathlib import Path
from shutil import copytree
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from sp_telemetry.reports.catalogue import REPORTS, UNATTRIBUTED
from sp_telemetry.reports.parameters import Parameters
from sp_telemetry.reports.run import ask
from sp_telemetry.setup.replay import GRPC_METHODS, replay
from sp_telemetry.setup.replay import Recording as Replayed
from sp_telemetry.store.client import Client
from tests.recordings.clean import empty_message
from tests.recordings.reading import Event, Recording, recordings
from tests.server import JSON, PROTOBUF, Server, server, wait_for
from tests.unit.test_recordings import printed_cost

ALL = {recording.name: recording for recording in recordings()}
each = pytest.mark.parametrize("name", ALL)
GROUPINGS = ("chapter", "feature", "user", "day", "model", "session", "step", "branch", "project")
MOMENTS = ("received_at", "version")  # of storing, not of the event
TABLES = {
    "telemetry_events": MOMENTS,
    "telemetry_metrics": ("received_at",),
    "telemetry_spans": ("received_at",),
    "session_context": ("received_at",),
}


def contexts(recording: Recording) -> dict[str, list[dict[str, Any]]]:
    """By session, in order of time, what it worked on from `at` on."""
    found = defaultdict(list)
    request = json.loads((recording.directory / "context.logs.json").read_text())
    for record in request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
        told = {pair["key"].removeprefix("context."): pair["value"].get("stringValue") for pair in record["attributes"]}
        found[told["session.id"]].append(told | {"at": int(record["timeUnixNano"])})
    return {session: sorted(records, key=lambda told: told["at"]) for session, records in found.items()}


def in_force(told: dict[str, list[dict[str, Any]]], event: Event) -> dict[str, Any]:
    records = told.get(event.attributes["session.id"], [])
    place = bisect_right([record["at"] for record in records], event.time_ns)
    return records[place - 1] if place else {}


def group(by: str, event: Event, context: dict[str, Any]) -> str:
    if by == "day":
        return datetime.fromtimestamp(event.time_ns / 1e9, UTC).date().isoformat()
    if by == "model":
        return event.attributes["model"]
    if by == "session":
        return event.attributes["session.id"]
    if by == "user":
        return event.attributes.get("enduser.id") or event.resource["enduser.id"]
    return context.get(by) or UNATTRIBUTED


def expected(recording: Recording, by: str) -> dict[str, float]:
    told, sums = contexts(recording), defaultdict(float)
    for event in recording.events():
        if event.name == "api_request":
            sums[group(by, event, in_force(told, event))] += event.attributes["cost_usd"]
    return dict(sums)


@cache
def whole_time(recording: Recording, by: str) -> Parameters:
    """Parameters of a report over the time of one recording, which no other shares."""
    times = [datetime.fromtimestamp(event.time_ns // 10**9, UTC) for event in recording.events()]
    return Parameters((by,), min(times), max(times) + timedelta(seconds=1), "UTC", {}, 0)


def report(client: Client, recording: Recording, by: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Cost by group, and the total."""
    answer = ask(client, REPORTS["cost"], whole_time(recording, by))
    return {row[by]: row["cost_usd"] for row in answer.rows}, answer.total


def costs(client: Client, recording: Recording, by: str) -> list[list[Any]]:
    """Every row of the report, as the query answers it; money without its last digits, for sums of floats depend on their order."""
    answer = client.query(REPORTS["cost"].sql(), whole_time(recording, by).for_query())
    return sorted([round(value, 12) if isinstance(value, float) else value for value in row] for row in answer.rows)


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation in which nothing is stored. Copies of it hash with the same salt, so that hashes can be compared too."""
    folder = tmp_path_factory.mktemp("blank")
    with server(folder):
        pass
    return folder


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, blank: Path) -> Iterator[Server]:
    """All recordings, each as its client sent it, in one store."""
    with server(copytree(blank, tmp_path_factory.mktemp("recorded") / "as recorded", symlinks=True)) as started:
        for recording in ALL.values():
            replay(Replayed(recording.directory), "127.0.0.1", started.ports)
        yield started


@each
@pytest.mark.parametrize("by", GROUPINGS)
def test_a_report_is_what_plain_python_adds_up_and_what_the_client_printed(stored, name, by):
    recording = ALL[name]
    groups, total = report(stored.client, recording, by)
    wanted = expected(recording, by)
    if by not in ("day", "model", "session"):
        wanted.setdefault(UNATTRIBUTED, 0.0)
    assert groups == pytest.approx(wanted, abs=1e-6)
    printed = sum(printed_cost(recording, session) for session in recording.about["sessions"])
    sessions = tuple(session["session_id"] for session in recording.about["sessions"])
    [[raw, requests]] = stored.query(
        f"SELECT sum(cost_usd), count() FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request' AND session_id IN {sessions}"
    )
    assert sum(groups.values()) == pytest.approx(printed, abs=1e-6)
    assert (total["cost_usd"], raw) == pytest.approx((printed, printed), abs=1e-6)
    assert total["requests"] == requests == sum(event.name == "api_request" for event in recording.events())


@each
def test_each_session_costs_what_the_client_printed(stored, name):
    recording = ALL[name]
    printed = {session["session_id"]: printed_cost(recording, session) for session in recording.about["sessions"]}
    assert report(stored.client, recording, "session")[0] == pytest.approx(printed, abs=1e-6)


@each
def test_pitfall_24_each_request_has_the_branch_and_feature_that_were_checked_out_when_it_was_made(stored, name):
    """The truth is the server's side of the recording: what the stub of the model saw checked out as the request came in."""
    truth = {}
    for line in ALL[name].about["api_log"]:
        if line["status"] == 200:
            branch = line["git_branch"] or ""
            truth[line["request_id"]] = (branch, branch if branch[:3].isdigit() else "")
    rows = stored.query("SELECT request_id, branch, feature FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request'")
    assert {request: (branch, feature) for request, branch, feature in rows if request in truth} == truth


@each
def test_pitfall_a01_every_event_is_stored_once_and_counted(stored, name):
    recording = ALL[name]
    sessions = tuple(session["session_id"] for session in recording.about["sessions"])
    rows = stored.query(f"SELECT event_type, count() FROM telemetry.telemetry_events FINAL WHERE session_id IN {sessions} GROUP BY 1")
    wanted = defaultdict(int)
    for event in recording.events():
        wanted[event.name] += 1
    assert dict(map(tuple, rows)) == dict(wanted)
    [[points]] = stored.query(f"SELECT count() FROM telemetry.telemetry_metrics FINAL WHERE session_id IN {sessions}")
    assert points == len(list(recording.points()))
    spans = stored.query(f"SELECT span_name, count() FROM telemetry.telemetry_spans FINAL WHERE session_id IN {sessions} GROUP BY 1")
    assert dict(map(tuple, spans)) == Counter(name for name, _ in recording.spans())


@each
def test_pitfall_a11_numbers_of_requests_are_those_on_the_wire(stored, name):
    numbers = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "duration_ms", "cost_usd", "event.sequence")
    columns = ", ".join(["request_id", "model", "query_source", *(number.replace(".", "_") for number in numbers)])
    rows = stored.query(f"SELECT {columns} FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request'")
    found = {row[0]: row[1:] for row in rows}
    for event in ALL[name].events():
        if event.name == "api_request":
            wire = event.attributes
            wanted = [wire["model"], wire["query_source"], *(float(wire[number]) for number in numbers)]
            assert found[wire["request_id"]] == wanted


@each
def test_pitfall_11_the_metrics_repeat_the_cost_and_are_never_added_to_it(stored, name):
    recording = ALL[name]
    sessions = tuple(session["session_id"] for session in recording.about["sessions"])
    [[points, kinds]] = stored.query(
        "SELECT sum(value), groupUniqArray((metric_type, temporality)) FROM telemetry.telemetry_metrics FINAL"
        f" WHERE metric_name = 'claude_code.cost.usage' AND session_id IN {sessions}"
    )
    assert points == pytest.approx(sum(expected(recording, "session").values()), abs=1e-6)
    assert kinds == [["sum", "delta"]]


# ---- the same data by other ways

Request = tuple[str, str, bytes]  # signal, encoding (protobuf, json, grpc), body


def requests(recording: Recording) -> list[Request]:
    encodings = {"application/grpc": "grpc", JSON: "json", PROTOBUF: "protobuf"}
    return [(signal, encodings[kind], body) for signal, kind, body in Replayed(recording.directory).requests()]


def message(request: Request) -> Any:
    signal, encoding, body = request
    if encoding == "json":
        return from_json(signal, body)
    decoded = empty_message(signal)
    decoded.ParseFromString(body)
    return decoded


def from_json(signal: str, body: bytes) -> Any:
    """OTLP/JSON as a message. Its ids are in hex, where protobuf's own JSON would have base64."""
    told = ids(json.loads(body), lambda text: b64encode(bytes.fromhex(text)).decode())
    return ParseDict(told, empty_message(signal), ignore_unknown_fields=True)


def to_json(decoded: Any) -> bytes:
    told = MessageToDict(decoded, use_integers_for_enums=True)
    return json.dumps(ids(told, lambda text: b64decode(text).hex())).encode()


def ids(part: Any, written: Callable[[str], str]) -> Any:
    if isinstance(part, list):
        return [ids(each, written) for each in part]
    if isinstance(part, dict):
        names = ("traceId", "spanId", "parentSpanId")
        return {key: written(value) if key in names else ids(value, written) for key, value in part.items()}
    return part


LISTS = {"logs": ("resource_logs", "scope_logs", "log_records"), "traces": ("resource_spans", "scope_spans", "spans"),
         "metrics": ("resource_metrics", "scope_metrics", "metrics")}  # fmt: skip


def one_by_one(signal: str, whole: Any) -> Iterator[Any]:
    """Every event, span or metric in a request of its own."""
    resources, scopes, records = LISTS[signal]
    for resource in getattr(whole, resources):
        for scope in getattr(resource, scopes):
            for record in getattr(scope, records):
                single = empty_message(signal)
                outer = getattr(single, resources).add()
                outer.resource.CopyFrom(resource.resource)
                inner = getattr(outer, scopes).add()
                inner.scope.CopyFrom(scope.scope)
                getattr(inner, records).add().CopyFrom(record)
                yield single


def send(to: Server, request: Request) -> None:
    signal, encoding, body = request
    if encoding == "grpc":
        with grpc.insecure_channel(f"127.0.0.1:{to.ports['otlp_grpc']}") as channel:
            assert channel.unary_unary(GRPC_METHODS[signal])(body, timeout=30) == b""
    else:
        to.stored(signal, body, {"protobuf": PROTOBUF, "json": JSON}[encoding])


def as_protobuf(sent: list[Request]) -> list[Request]:
    return [(request[0], "protobuf", message(request).SerializeToString()) for request in sent]


def as_json(sent: list[Request]) -> list[Request]:
    return [(request[0], "json", to_json(message(request))) for request in sent]


def as_grpc(sent: list[Request]) -> list[Request]:
    return [(signal, "grpc", body) for signal, _, body in as_protobuf(sent)]


def single_events(sent: list[Request]) -> list[Request]:
    """One event a request; the context records last."""
    context, *rest = sent
    singles = [(request[0], one) for request in rest for one in one_by_one(request[0], message(request))]
    return [(signal, "protobuf", one.SerializeToString()) for signal, one in singles] + [context]


def all_in_one(sent: list[Request]) -> list[Request]:
    """Each signal in a single request, context records in between."""
    merged = {signal: empty_message(signal) for signal in LISTS}
    for request in sent[len(sent) // 2 :] + sent[: len(sent) // 2]:
        merged[request[0]].MergeFrom(message(request))
    return [(signal, "protobuf", whole.SerializeToString()) for signal, whole in merged.items()]


def contexts_last(sent: list[Request]) -> list[Request]:
    return [*sent[1:], sent[0]]


def contexts_between(sent: list[Request]) -> list[Request]:
    return [*sent[1 : len(sent) // 2], sent[0], *sent[len(sent) // 2 :]]


def twice_and_backwards(sent: list[Request]) -> list[Request]:
    return sent[::-1] + sent


WAYS = (as_protobuf, as_json, as_grpc, single_events, all_in_one, contexts_last, contexts_between, twice_and_backwards)


def send_all(to: Server, sent: list[Request]) -> None:
    """Several at a time, as from several sessions; but what holds context records alone, so that it comes at its place."""
    with ThreadPoolExecutor(8) as pool:
        for told, several in groupby(sent, lambda request: b"sp_telemetry.context" in request[2]):
            if told:
                for request in several:
                    send(to, request)
            else:
                list(pool.map(lambda request: send(to, request), list(several)))


def rows(of: Server, table: str, sessions: tuple[str, ...]) -> list[str]:
    """All rows of these sessions as text, every column but the moments of storing them."""
    [[columns]] = of.query(
        "SELECT arrayStringConcat(groupArray(name), ', ') FROM system.columns"
        f" WHERE database = 'telemetry' AND table = '{table}' AND default_kind != 'ALIAS' AND name NOT IN {(*TABLES[table], '')}"
    )
    found = of.query(f"SELECT formatRow('JSONEachRow', {columns}) FROM telemetry.{table} FINAL WHERE session_id IN {sessions}")
    return sorted(line for [line] in found)


def everything(of: Server, recording: Recording) -> dict[str, Any]:
    sessions = tuple(session["session_id"] for session in recording.about["sessions"])
    tables = {table: rows(of, table, sessions) for table in TABLES}
    return tables | {f"by {by}": costs(of.client, recording, by) for by in ("chapter", "feature", "step")}


@pytest.fixture(scope="module")
def anew(tmp_path_factory: pytest.TempPathFactory, blank: Path) -> Iterator[Server]:
    with server(copytree(blank, tmp_path_factory.mktemp("again") / "another way", symlinks=True)) as started:
        yield started


@pytest.mark.parametrize(
    ("name", "way"),
    [*(("book-2.1.330-http-json", way) for way in WAYS), ("book-2.1.197-grpc", as_json), ("book-2.1.197-grpc", single_events)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_whichever_way_it_comes_the_store_and_the_reports_are_the_same(stored, anew, name, way):
    recording = ALL[name]
    wanted = everything(stored, recording)
    for table in TABLES:
        anew.run(f"TRUNCATE TABLE telemetry.{table}")
    send_all(anew, way(requests(recording)))
    wait_for(lambda: costs(anew.client, recording, "step") == wanted["by step"])  # late contexts are honoured within seconds
    found = everything(anew, recording)
    for part in wanted:
        assert found[part] == wanted[part], part


def test_a_restart_in_between_and_all_of_it_once_more_changes_nothing(stored):
    before = {name: everything(stored, recording) for name, recording in ALL.items()}
    stored.restart()
    for recording in ALL.values():
        replay(Replayed(recording.directory), "127.0.0.1", stored.ports)
    assert {name: everything(stored, recording) for name, recording in ALL.items()} == before
    records = sum(len(list(recording.events())) for recording in ALL.values())
    assert stored.metrics()["sp_telemetry_events_duplicate"] == records
    assert f" stored, {records:,} arrived more than once" in stored.command("status").stdout
    stored.run("OPTIMIZE TABLE telemetry.telemetry_events FINAL")
    assert {name: everything(stored, recording) for name, recording in ALL.items()} == before
