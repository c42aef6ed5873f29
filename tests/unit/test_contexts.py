"""The context records beside each recording are what the rules make of what its hooks saw."""

from __future__ import annotations

import json

import pytest

from sp_telemetry.context import record
from tests.recordings.contexts import records
from tests.recordings.reading import recordings

each = pytest.mark.parametrize("recording", recordings(), ids=lambda recording: recording.name)


@each
def test_making_them_again_gives_the_committed_file(recording):
    committed = (recording.directory / "context.logs.json").read_bytes()
    assert record.to_otlp_json(records(recording)) + b"\n" == committed


@each
def test_every_session_has_a_context_before_its_first_event(recording):
    told = json.loads((recording.directory / "context.logs.json").read_text())["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    first: dict[str, int] = {}
    for one in told:
        attributes = {pair["key"]: pair["value"] for pair in one["attributes"]}
        first.setdefault(attributes["session.id"]["stringValue"], int(one["timeUnixNano"]))
    assert set(first) == {session["session_id"] for session in recording.about["sessions"]}
    for event in recording.events():
        if event.name == "api_request":
            assert first[event.attributes["session.id"]] < event.time_ns
