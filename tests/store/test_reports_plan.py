"""What of a cost was under a subscription: as Claude Code 2.1.330 tells it of each event, and as reports say it."""

from __future__ import annotations

from typing import Any

import pytest

from sp_telemetry.reports import coverage
from sp_telemetry.reports.catalogue import COSTS, REPORTS
from sp_telemetry.reports.parameters import parameters
from sp_telemetry.reports.run import Result, ask
from sp_telemetry.store import maintenance, prices
from sp_telemetry.store.client import Client
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, as_protobuf, log_request
from tests.store.clickhouse_server import Server
from tests.store.reporting import clear, client, server
from tests.transcripts import identifier

__all__ = ["client", "server"]  # fixtures

START = 1_790_000_000 * 10**9
ACCOUNTS = {  # session -> what its account makes the client tell, beside the provider that each event has
    "max": {"anthropic.plan": "max"},
    "team": {"anthropic.plan": "team", "anthropic.seat_type": "premium"},
    "enterprise": {"anthropic.plan": "enterprise", "anthropic.seat_type": "standard"},
    "by use": {"anthropic.plan": "enterprise", "anthropic.seat_type": "usage_based"},  # is billed by use
    "key": {},  # an API key, or a client of before
}


def event(session: str, cost_usd: float, second: int, **more: Any) -> dict[str, Any]:
    """A million input tokens: $2 by the list."""
    provider = {"anthropic.provider": "firstParty", "anthropic.custom_base_url": False}
    asked = {"model": "claude-sonnet-5-5", "cost_usd": cost_usd, "input_tokens": 1_000_000, "output_tokens": 0}
    return {"name": "api_request", "time_ns": START + second * 10**9, "session.id": identifier(session), **provider, **asked, **more}


def store(server: Server, events: list[dict[str, Any]], resource: dict[str, Any] | None = None) -> None:
    """By both ways: what a query that never ends types, and statements."""
    clear(server)
    server.owner("TRUNCATE TABLE telemetry.event_retention")
    with server.engine.handle() as handle:
        prices.load(handle)
        pipeline = Pipeline(handle)
        pipeline.store(Lane("logs", "protobuf"), [as_protobuf(log_request(events[::2], resource))])
        pipeline.store(Lane("logs", "json"), [as_json(log_request(events[1::2], resource))])
        pipeline.close()


def cost(client: Client, how: str = "reported", **filters: str) -> Result:
    return ask(client, COSTS[how], parameters(COSTS[how], by="chapter", start="2026-01-01", tz="UTC", filters=filters))


def said(result: Result) -> tuple[Any, Any, str]:
    """What is under a plan: in JSON, and what the line says of it."""
    facts = result.as_dict()["coverage"]
    [line] = coverage.lines(result, 0)
    return facts["under_plan"], facts["plans"], " · ".join(part for part in line.split(" · ") if "plan" in part)


def test_pitfall_21_a_report_says_what_of_its_cost_was_under_a_plan(server: Server, client: Client) -> None:
    """A seat that is billed by use is under no plan, and where nobody tells of one nothing is said."""
    store(server, [event(session, 3.0 + second, second, **account) for second, (session, account) in enumerate(ACCOUNTS.items())])
    assert cost(client).total["cost_usd"] == 25
    plans = ["enterprise", "max", "team"]
    for how, usd in (("reported", 12.0), ("computed", 6.0), ("both", 6.0)):
        assert said(cost(client, how)) == (usd, plans, f"${usd:.2f} of it under a plan (enterprise, max, team), at list prices")
        for session, account in ACCOUNTS.items():
            if session in ("by use", "key"):
                assert said(cost(client, how, session=identifier(session))) == (0, [], "")
            else:
                assert said(cost(client, how, session=identifier(session)))[1] == [account["anthropic.plan"]]
    tokens = ask(client, REPORTS["tokens"], parameters(REPORTS["tokens"], start="2026-01-01", tz="UTC"))
    assert said(tokens) == (None, None, "")


def test_hours_whose_events_have_gone_say_nothing_of_a_plan(server: Server, client: Client) -> None:
    store(server, [event("a", 1.0, second, **{"anthropic.plan": "max"}) for second in (0, 7200)])
    with server.engine.handle() as handle:
        maintenance.summarise(handle)
    until = f"toStartOfHour(fromUnixTimestamp64Nano({START + 3600 * 10**9}))"
    server.owner(f"INSERT INTO telemetry.event_retention (days, lost_before) SELECT 0, {until}")
    server.owner(f"ALTER TABLE telemetry.telemetry_events DELETE WHERE timestamp < {until} SETTINGS mutations_sync = 2")
    result = cost(client)
    assert result.total["cost_usd"] == 2
    assert said(result) == (1.0, ["max"], "$1.00 of it under a plan (max), at list prices")


@pytest.mark.parametrize("as_resource", [False, True])
def test_a_plan_that_is_no_word_of_the_clients_is_not_told(server: Server, client: Client, as_resource: bool) -> None:
    """Anybody can set both in OTEL_RESOURCE_ATTRIBUTES."""
    own = {"anthropic.plan": "sk-ant-api03-abcdef0123456789", "anthropic.seat_type": "the boss"}
    store(server, [event("a", 1.0, 0, **({} if as_resource else own))], own if as_resource else None)
    [row] = server.owner("SELECT plan, seat_type, attributes FROM telemetry.telemetry_events").splitlines()
    plan, seat, attributes = row.split("\t")
    assert {plan[:6], seat[:6]} == {"other-"} and len(plan) == len(seat) == 14
    assert "plan" not in attributes and "seat" not in attributes
    assert said(cost(client)) == (1.0, [plan], "$1.00 of it under a plan (other), at list prices")
