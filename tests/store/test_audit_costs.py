"""What an audit says of cost: what Claude Code reported, held against what the same tokens cost by the price list."""

from __future__ import annotations

import pytest

from sp_telemetry.transcripts import summary
from tests.client.script import Usage
from tests.store.audited import DAY, NOW, Request, Session, of, performed, running, store

__all__ = ["of", "running"]  # fixtures
UNPRICED = "claude-of-tomorrow-9"


def priced(running, configuration, of, *reported: float, model: str = "claude-sonnet-4-5"):
    """An audit of requests of 1,000,000 tokens of input each, which cost 6 USD, beyond 200,000, of which so much was reported."""
    requests = [Request(f"{of[:8]}{n}", NOW - 5 * DAY + n, Usage(input=1_000_000), number=n) for n in range(len(reported))]
    session = Session(of, requests)
    lines = session.transcript()
    for line in lines:
        if line["type"] == "assistant":
            line["message"]["model"] = model
    configuration.session(of, lines)
    store(running, [event | {"cost_usd": usd, "model": model} for event, usd in zip(session.events(), reported, strict=True)])
    return performed(running, configuration, session=of)


def test_where_all_agree_the_whole_line_says_so(running, configuration, of):
    done = priced(running, configuration, of, 6.0, 6.0)
    assert summary.line(done) == "2 of 2 requests in both · 0 missing · cost differs by $0.00"
    assert (done.clean, done.unpriced, done.cost_apart_usd) == (True, 0, pytest.approx(0, abs=1e-9))


def test_more_of_one_request_does_not_make_up_for_less_of_another(running, configuration, of):
    done = priced(running, configuration, of, 7.0, 5.0, 6.0)
    assert summary.line(done).endswith(" · cost differs by $0.00 in sum, by $2.00 request by request")
    assert "2 requests cost $2.00 more or less than their tokens at the price list" in summary.text(done)
    told = done.as_dict()
    assert (done.clean, told["cost_differs_usd"], told["cost_apart_usd"]) == (False, 0, 2)


def test_what_has_no_price_is_not_said_to_agree(running, configuration, of):
    done = priced(running, configuration, of, 6.0, 9.0, model=UNPRICED)
    assert summary.line(done) == "2 of 2 requests in both · 0 missing · cost differs by $0.00 · 2 unpriced, their cost not compared"
    assert (done.clean, done.as_dict()["unpriced"]) == (True, 2)


@pytest.mark.parametrize("count", [1, 3])
def test_a_single_request_is_no_price_list(running, configuration, of, count):
    """Costs that differ by one factor throughout are another price list, which one wrong cost is not."""
    at = NOW - 5 * DAY
    requests = [Request(f"{of[:8]}{n}", at + n, Usage(input=1_000_000 * (n + 1))) for n in range(count)]
    session = Session(of, requests)
    configuration.session(of, session.transcript())
    store(running, [event | {"cost_usd": 36.0 * (n + 1)} for n, event in enumerate(session.events())])
    done = performed(running, configuration, session=of)
    assert [(each["factor"], each["requests"]) for each in (*done.other_prices, *done.unexplained_costs)] == [
        (None, 1) if count == 1 else (pytest.approx(6), 3)  # 3 USD, or 6 beyond 200,000 tokens
    ]
    assert done.clean == (count > 1)
    assert ("counts claude-sonnet-4-5 at 6 times the price list" in summary.text(done)) == (count > 1)
