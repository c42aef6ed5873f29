"""Parameters as people type them, figures as people read them, tables that fit, and a store that does not answer as it should."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_telemetry.cli.report import _columns as columns_said
from sp_telemetry.errors import QueryFailed, ServerUnreachable, UsageError
from sp_telemetry.reports import render
from sp_telemetry.reports.catalogue import REPORTS, UNATTRIBUTED
from sp_telemetry.reports.figures import cut, money, plain, span, width_of
from sp_telemetry.reports.parameters import age, chosen, machine_zone, parameters
from sp_telemetry.reports.run import Result
from sp_telemetry.store.client import Client

NOW = datetime(2026, 3, 30, 8, 30, tzinfo=UTC)  # the day after Berlin's clocks went forward
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("12h", "2026-03-29T20:30"),
        ("1d", "2026-03-28T23:00"),
        ("2d", "2026-03-27T23:00"),
        ("1w", "2026-03-22T23:00"),
        ("90D", "2025-12-29T23:00"),
    ],
)
def test_ages_are_whole_days_of_the_zone(text: str, utc: str) -> None:
    expected = {"1d": "2026-03-28T23:00"}.get(text, utc)
    assert age(text, BERLIN, NOW).astimezone(UTC).strftime("%FT%H:%M") == expected


@pytest.mark.parametrize("text", ["", "7", "7x", "-7d", "0d", "999999999d", "seven days", "7d;DROP", "9" * 5000 + "d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        age(text, BERLIN, NOW)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"by": "chpter"}, "Did you mean chapter?"),
        ({"by": "day,chapter,user,model"}, "one to three"),
        ({"tz": "Europe/Berln"}, "Did you mean Europe/Berlin?"),
        ({"tz": "../etc/passwd"}, "--tz is '../etc/passwd'; expected a time zone"),
        ({"tz": None, "timezone": "Mars"}, "The setting timezone is 'Mars'"),
        ({"filters": {"session": ""}}, "--session is empty"),
        ({"since": " "}, "--since is empty"),
        ({"by": ""}, "--by is empty"),
        ({"since": "7d", "start": "2026-03-01"}, "Give one"),
        ({"start": "1 March"}, "expected a day"),
        ({"start": "2026-03-02", "end": "2026-03-01"}, "before it begins"),
        ({"start": "1066-10-14"}, "--from is '1066-10-14', which is outside of 1970"),
        ({"start": "0001-01-01T00:00+14:00"}, "outside of 1970"),
        ({"end": "9999-12-31"}, "outside of 1970"),
        ({"limit": -1}, "--limit"),
        ({"filters": {"type": "user_prompt"}}, "reads api_request"),
    ],
)
def test_a_wrong_parameter_is_one_sentence_with_what_is_allowed(given: dict, said: str) -> None:
    with pytest.raises(UsageError) as failure:
        parameters(REPORTS["cost"], now=NOW, **{"tz": "UTC"} | given)
    assert said in f"{failure.value} {failure.value.hint}"


def test_an_unknown_report_is_named_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="Did you mean tokens"):
        chosen("token")
    with pytest.raises(UsageError, match="Did you mean audit") as failure:
        chosen("audti")
    assert "errors and audit" in failure.value.hint


def test_a_day_at_the_end_counts_whole_and_moments_keep_their_offset() -> None:
    asked = parameters(REPORTS["cost"], start="2026-03-29", end="2026-03-29", tz="Europe/Berlin").for_query()
    assert (asked["from"], asked["to"]) == ("2026-03-28T23:00:00.000000Z", "2026-03-29T22:00:00.000000Z")
    asked = parameters(REPORTS["cost"], start="2026-03-29T09:30+05:45", tz="Europe/Berlin").for_query()
    assert (asked["from"], asked["to"], asked["tz"]) == ("2026-03-29T03:45:00.000000Z", "", "Europe/Berlin")


@pytest.mark.parametrize("day", ["2026-03-29", "20260329", "2026-W13-7"])
def test_a_day_is_one_however_it_is_written(day: str) -> None:
    assert parameters(REPORTS["cost"], end=day, tz="UTC", now=NOW).for_query()["to"] == "2026-03-30T00:00:00.000000Z"


def test_the_zone_of_the_machine_is_a_name(tmp_path: Path) -> None:
    assert machine_zone({"TZ": ":Asia/Tokyo"}) == "Asia/Tokyo"
    (tmp_path / "localtime").symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    assert machine_zone({"TZ": f":{tmp_path / 'localtime'}"}) == machine_zone({"TZ": "/usr/share/zoneinfo/Asia/Tokyo"}) == "Asia/Tokyo"
    assert machine_zone({"TZ": ":"}) == machine_zone({})
    ZoneInfo(machine_zone({}))


def test_little_money_is_not_nothing() -> None:
    assert [money(each) for each in (0, 1.234, 1234.5, 0.5, 0.0042, 0.00001, 0.999, -25.954, -0.00001)] == [
        "$0.00", "$1.23", "$1,234.50", "$0.50", "$0.0042", "<$0.0001", "$1.00", "-$25.95", "<$0.0001",
    ]  # fmt: skip
    assert [plain(each, "ratio") for each in (0, 0.004, 0.126, 0.999, 1)] == ["0%", "<1%", "13%", "99%", "100%"]
    assert [span(each) for each in (12, 1500, 90_000, 7_500_000)] == ["12 ms", "1.5 s", "1 min", "2 h 05"]


@given(st.text(max_size=30), st.integers(1, 40))
def test_cut_text_keeps_to_its_width_and_has_no_control_characters(text: str, size: int) -> None:
    assert width_of(cut(text, size)) <= size
    assert cut(text, size).isprintable()


def result(
    by: str = "chapter", names: tuple[str, ...] = ("33-agent-telemetry", UNATTRIBUTED), more: int = 0, report: str = "cost"
) -> Result:
    groupings = by.split(",")
    kinds = {"time": "2026-03-29 10:00:00.000000000", "ratio": 0.25}
    columns = REPORTS[report].columns
    rows = [
        {each: name for each in groupings} | {column.name: kinds.get(column.kind, place) for column in columns}
        for place, name in enumerate(names, 1)
    ]
    total = {column.name: kinds.get(column.kind, sum(range(len(names) + 1))) for column in columns}
    coverage = {
        "gaps": 0, "expected": 430, "received": 430, "chunked_versions": ["2.1.197"], "unattributed": 1, "unattributed_share": 0.12,
        "unpriced_requests": 2, "unpriced_tokens": 31200, "events_since": None,
    }  # fmt: skip
    return Result(REPORTS[report], parameters(REPORTS[report], by=by, tz="Europe/Berlin", now=NOW), rows, total, coverage, more)


def test_a_table_says_its_total_and_what_stands_under_it() -> None:
    text = render.text(result(more=3), width=80)
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["chapter", "cost"]
    assert [line.split()[0] for line in lines[2:5]] == ["33-agent-telemetry", "…", UNATTRIBUTED]
    assert lines[3] == "… 3 more rows"
    assert lines[6].startswith("total") and "$3.00" in lines[6]
    under = " ".join(lines[7:])
    for fact in (
        "3 requests · 3 sessions", "12 % of cost unattributed", "2 requests unpriced, 31,200 tokens", "gaps in event.sequence: 0 of 430",
        "source: api_request events, 2026-02-28 to now (Europe/Berlin)", "Sent by Claude Code 2.1.197",
    ):  # fmt: skip
        assert fact in under
    assert "\x1b" not in text and "\x1b[1m" in render.text(result(), color=True)


NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@given(st.sampled_from(sorted(REPORTS)), st.lists(NAME, min_size=1, max_size=6).map(tuple), st.integers(1, 3), st.integers(50, 200))
def test_a_table_fits_its_width_whatever_is_in_it(report: str, names: tuple[str, ...], count: int, width: int) -> None:
    by = ",".join(REPORTS[report].groupings[:count])
    for line in render.text(result(by, names, report=report), width=max(width, 80) if count > 1 else width).splitlines():
        assert width_of(line) <= max(width, 80 if count > 1 else width) and line.isprintable()


def test_differences_that_cancel_have_no_shares() -> None:
    """Of one cent that ten dollars too much and too little leave, ten dollars are no share."""
    one = result("reason", ("web searches not counted", "price of another day"), report="cost-differences")
    for row, difference in zip(one.rows, (10.0, -9.99), strict=True):
        row["difference_usd"] = difference
    one.total["difference_usd"] = 0.01
    one.coverage.update(unattributed=-9.99, unattributed_share=-999.0)
    text = render.text(one, width=120)
    assert "█" not in text and max(map(width_of, text.splitlines())) <= 120
    assert "$10.00" in text and "-$9.99 of difference unattributed" in text


@pytest.mark.parametrize(("said", "width"), [("40", 40), ("0", 80), ("", 80), ("wide", 80), ("99999", 80)])
def test_a_width_that_nobody_knows_is_80(monkeypatch: pytest.MonkeyPatch, said: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", said)
    assert columns_said() == width


def test_json_csv_and_markdown_say_the_same() -> None:
    one = result(names=("=cmd|x", "a|b<i>", UNATTRIBUTED))
    document = json.loads(render.as_json(one))
    assert list(document) == ["report", "parameters", "rows", "total", "coverage"]
    assert document["parameters"]["by"] == ["chapter"] and document["parameters"]["tz"] == "Europe/Berlin"
    rows = list(csv.DictReader(io.StringIO(render.as_csv(one))))
    assert [row["chapter"] for row in rows] == ["'=cmd|x", "a|b<i>", UNATTRIBUTED]  # a spreadsheet would run the first
    assert [float(row["cost_usd"]) for row in rows] == [row["cost_usd"] for row in document["rows"]]
    joined = [{"session": "b", "joined": "forked", "follows": "ä"}]
    for row, which in zip((several := result(by="session", report="sessions")).rows, (joined, []), strict=True):
        row["joined_sessions"] = which
    cells = [row["joined_sessions"] for row in csv.DictReader(io.StringIO(render.as_csv(several)))]
    assert (json.loads(cells[0]), cells[1]) == (joined, "")
    table = [line for line in render.as_markdown(one).splitlines() if line.startswith("|")]
    assert len(table) == 6 and "a\\|b&lt;i>" in table[3] and len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


# The store's side


@pytest.fixture
def stub() -> Iterator[tuple[list, str]]:
    """An HTTP server that answers what the test puts into the list: status, headers, body."""
    answer: list = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = answer[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield answer, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (500, "Code: 159. DB::Exception: Timeout exceeded: elapsed 30 s. (TIMEOUT_EXCEEDED) (version 26.9)", 159, "query_timeout_s"),
        (500, "Code: 241. DB::Exception: Query memory limit exceeded. (MEMORY_LIMIT_EXCEEDED)", 241, "query_memory_mib"),
        (403, "Code: 516. DB::Exception: telemetry_reader: Authentication failed. (AUTHENTICATION_FAILED)", 516, "another installation"),
        (404, "Code: 60. DB::Exception: Table telemetry.x does not exist. (UNKNOWN_TABLE)", 60, "newest shape"),
        (404, "Code: 46. DB::Exception: Function with name `telemetry_since` does not exist. (UNKNOWN_FUNCTION)", 46, "sp-telemetry up"),
        (500, "Code: 164. DB::Exception: Cannot execute query in readonly mode. (READONLY)", 164, "only read"),
        (400, "Code: 62. DB::Exception: Syntax error: failed at position 8. (SYNTAX_ERROR)", 62, "failed at position 8"),
        (400, f"Code: 73. DB::Exception: Code: 73. DB::Exception: No format x.{' (UNKNOWN_FORMAT) (version 26.9).' * 2}", 73,
         "refused: No format x. Formats are table, json"),
        (404, "<html>nothing here", 0, "ClickHouse HTTP interface"),
        (200, '{"meta": [', 0, "ClickHouse HTTP interface"),
        (200, '{"meta": [], "data": [], "exception": "Code: 159. DB::Exception: Timeout"}', 159, "Ask for less"),
    ],
)
def test_a_refusal_says_what_to_do(stub: tuple[list, str], status: int, body: str, code: int, said: str) -> None:
    answer, url = stub
    answer[:] = [(status, {}, body.encode())]
    with pytest.raises(QueryFailed) as failure:
        Client(url, "telemetry_reader", "pass-word").query("SELECT 1")
    assert failure.value.code == code and said in f"{failure.value} {failure.value.hint}"
    assert "pass-word" not in f"{failure.value} {failure.value.hint}" and "(version" not in str(failure.value)


def test_quoted_numbers_of_older_servers_are_numbers(stub: tuple[list, str]) -> None:
    answer, url = stub
    answer[:] = [
        (200, {}, b'{"meta": [{"name": "n", "type": "UInt64"}, {"name": "s", "type": "String"}], "data": [["18446744073709551615", "7"]]}')
    ]
    assert Client(url, "u", "p").query("SELECT 1").records() == [{"n": 18446744073709551615, "s": "7"}]


def test_nobody_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(ServerUnreachable) as failure:
        Client(f"http://127.0.0.1:{port}", "u", "p").query("SELECT 1")
    assert "sp-telemetry up" in failure.value.hint


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://", "http:///path", "http://h:99999", "http://h:0", "http://h:x", "http://[::1", "http://h/a b"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="url is"):
        Client(url, "u", "p", local=False)


def test_what_is_no_utf_8_is_not_asked() -> None:
    for sql, asked in (("SELECT '\udcff'", {}), ("SELECT {a:String}", {"a": "\udcff"})):
        with pytest.raises(UsageError, match="is not UTF-8"):
            Client("http://127.0.0.1:1", "u", "p").query(sql, asked)


def test_a_report_imports_nothing_heavy() -> None:
    """Half a second for the whole process: these alone would take most of it."""
    heavy = ("rich", "clickhouse_connect", "pydantic", "httpx", "aiohttp", "git", "chdb", "grpc", "numpy")
    code = (
        "import sys\nfrom sp_telemetry.cli import main, report\n"
        "from sp_telemetry.reports import render, run, parameters\nfrom sp_telemetry.store import client\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
