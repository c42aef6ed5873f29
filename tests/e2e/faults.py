"""What the tests of faults share: events that can be told apart, and what a server has to say and to keep."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import grpc
import pytest

from sp_telemetry.setup.replay import GRPC_METHODS
from tests.server import Server, as_protobuf, log_request, wait_for

SESSION = "00000000-0000-0000-0000-0000000000fa"
DAY_S = 86400
# A program: the store of an older version, with so many events and some rows in each kind of table that later migrations change.
OLD_STORE = """
import sys
from pathlib import Path
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine
store, rows = Path(sys.argv[1]), sys.argv[2]
engine = Engine(store)
with engine.handle() as handle:
    schema.migrate(handle, up_to="0010_privacy.sql", salt="0" * 32)
    handle.run("INSERT INTO telemetry.telemetry_events (timestamp, event_type, session_id, event_sequence, source)"
               f" SELECT now64(9) - number, 'api_request', if(number % 2, 's', toString(number)), number, 'otlp' FROM numbers({rows})")
    handle.run("INSERT INTO telemetry.session_summaries (session_id, ended_at, whole)"
               " SELECT toString(number), now64(9), number % 2 FROM numbers(9)")
    handle.run("INSERT INTO telemetry.transcript_copies (file_id, message_id, request_id)"
               " SELECT toString(number), toString(number + 1), toString(number + 2) FROM numbers(9)")
engine.close()
"""


def event(number: int, **more: Any) -> dict[str, Any]:
    told = {"session.id": SESSION, "event.sequence": number, "cost_usd": 0.5, "input_tokens": 1}
    return {"name": "api_request", "time_ns": time.time_ns(), **told, **more}


def request(*events: dict[str, Any]) -> bytes:
    return as_protobuf(log_request(list(events)))


def numbers(of: Server) -> list[int]:
    """The numbers of all events as they are stored, once for each row that a reader sees."""
    return [row[0] for row in of.query("SELECT event_sequence FROM telemetry.telemetry_events FINAL ORDER BY ALL")]


def health(of: Server) -> tuple[int, dict[str, Any]]:
    status, text = of.get("health", "/")
    return status, json.loads(text)


def assert_refused(of: Server, body: bytes, why: str) -> None:
    """Over HTTP and gRPC: come again, and the reason; nowhere the engine's own words."""
    status, headers, text = of.post("logs", body)
    assert (status, headers.get("retry-after")) == (503, "5"), text
    assert why.encode() in text and b"DB::Exception" not in text
    with grpc.insecure_channel(f"127.0.0.1:{of.ports['otlp_grpc']}") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(GRPC_METHODS["logs"])(body, timeout=30)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE and why in refused.value.details()
    assert ("grpc-retry-pushback-ms", "5000") in refused.value.trailing_metadata()


def assert_said(of: Server, why: str) -> None:
    """By the health check, the metrics and `status`, and in the log once."""
    status, state = health(of)
    assert (status, state["status"], state["reason"]) == (503, "Store unavailable", f"{why}.")
    assert state["mend"]
    assert of.metrics()["sp_telemetry_store_available"] == 0
    told = of.command("status")
    assert told.returncode == 5, told.stderr
    assert f"trouble   {why}. {state['mend']}." in told.stdout
    assert json.loads(of.command("status", "--json").stdout)["reason"] == f"{why}."
    log = (of.home.logs / "server.log").read_text()
    assert log.count(f"{why}. Senders are told to try again.") == 1 and "Traceback" not in log and "DB::Exception" not in log


def assert_well(of: Server, pid: int) -> None:
    """The same process, and nothing broken in its store."""
    assert wait_for(lambda: health(of)[0] == 200), health(of)
    assert of.metrics()["sp_telemetry_store_available"] == 1
    told = of.command("status")
    assert (told.returncode, "trouble" in told.stdout) == (0, False)
    assert json.loads(of.command("status", "--json").stdout)["pid"] == pid
    assert broken_parts(of) == []


def broken_parts(of: Server) -> list[Path]:
    """Parts that the engine has put aside because it can't read them."""
    return list(of.home.store.glob("store/*/*/detached/*"))


def assert_stored_once_and_again_after_a_restart(of: Server, wanted: list[int]) -> None:
    assert numbers(of) == wanted
    of.restart()
    assert numbers(of) == wanted
    assert_summaries_are_those_of_the_events(of)
    assert broken_parts(of) == []


def assert_summaries_are_those_of_the_events(of: Server) -> None:
    """Summaries are brought up to date when a server ends; it has been started anew."""
    raw = "SELECT {}, count(), sum(cost_usd) FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request' GROUP BY 1 ORDER BY 1"
    kept = "SELECT session_id, requests, cost_usd FROM telemetry.session_summaries FINAL ORDER BY 1"
    assert of.query(kept) == of.query(raw.format("session_id"))
    kept = "SELECT toString((hour, feature)), sum(requests), sum(cost_usd) FROM telemetry.usage_hourly FINAL GROUP BY 1 ORDER BY 1"
    assert of.query(kept) == of.query(raw.format("toString((toDateTime(toStartOfHour(timestamp), 'UTC'), feature))"))
