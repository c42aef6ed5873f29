"""An event that comes after its request was filled in keeps what the transcript said of its context, unless a hook tells more."""

from __future__ import annotations

import pytest

from sp_telemetry.store import maintenance
from sp_telemetry.store.client import Statements
from sp_telemetry.transcripts import backfill, files
from tests.server import JSON, as_json, context, log_request
from tests.store.audited import DAY, NOW, Session, made, of, running, store
from tests.transcripts import SECRET, Configuration, identifier

__all__ = ["of", "running"]  # fixtures
BRANCH = "017-usage"
OF_TRANSCRIPT = [BRANCH, BRANCH, "feature:transcript branch chapter:"]


def filled_in(running, configuration: Configuration, of: str) -> Session:
    """Three requests that no event tells of, filled in."""
    session = made(of, NOW - 5 * DAY, 3)
    configuration.session(of, session.transcript())
    configuration.bring(running.client)
    backfill.fill(running.client, files.machine(SECRET), NOW - 30 * DAY, "Ada")
    assert said(running, of, "transcript") == [OF_TRANSCRIPT] * 3
    return session


def said(running, of: str, source: str = "otlp") -> list[list]:
    """Branch, feature and their source, of each request in the order of time."""
    asked = "SELECT branch, feature, context_source FROM telemetry.telemetry_events FINAL WHERE event_type = 'api_request'"
    return running.query(f"{asked} AND session_id = {{of:String}} AND source = {{source:String}} ORDER BY timestamp", of=of, source=source)


def told(running, of: str, at: float, branch: str) -> None:
    """A hook's record that comes late, with one of another session and of long before; returns when the server has honoured it."""
    said = {"branch": branch, "feature": branch, "feature_source": "branch", "confidence": "1"}
    records = [context(of, int(at * 1e9), **said), context(identifier(of), int((at - DAY) * 1e9), **said)]
    running.stored("logs", as_json(log_request(records)), JSON)
    maintenance.reattribute(Statements(running.client), NOW - DAY)


def test_an_event_of_which_no_hook_told_keeps_the_transcripts_context(running, configuration, of):
    session = filled_in(running, configuration, of)
    store(running, session.events()[:2])
    assert (said(running, of), said(running, of, "transcript")) == ([OF_TRANSCRIPT] * 2, [OF_TRANSCRIPT])
    store(running, session.events())  # once more, and the third
    assert (said(running, of), said(running, of, "transcript")) == ([OF_TRANSCRIPT] * 3, [])


@pytest.mark.parametrize("before", [True, False], ids=["told before it comes", "told when it is there"])
def test_what_a_hook_told_counts_more_and_from_its_moment_on(running, configuration, of, before):
    session = filled_in(running, configuration, of)
    first, second, third = (request.at for request in session.requests)
    assert first < second < third
    if before:
        told(running, of, second - 1, "018-cost")
    store(running, session.events())
    if not before:
        told(running, of, second - 1, "018-cost")
    of_hook = ["018-cost", "018-cost", "feature:branch chapter:"]
    assert said(running, of) == [OF_TRANSCRIPT, of_hook, of_hook]
