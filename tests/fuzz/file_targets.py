"""Files of the repository and of Claude Code, and what people type."""

from __future__ import annotations

import json
import tomllib
from datetime import datetime
from typing import Any

from sp_telemetry.context import configfile, observe, rules
from sp_telemetry.errors import UsageError
from sp_telemetry.reports import parameters
from sp_telemetry.reports.catalogue import REPORTS
from sp_telemetry.setup import claude_settings, json_text, layers
from tests.fuzz.targets import can_be_shown, either, folder, pieces, same, target, text_of


@target
def context_settings(data: bytes) -> None:
    """What is read at all is read as tomllib reads it."""
    text = text_of(data)
    ours = either(lambda: configfile.parse(text), ValueError)
    if not isinstance(ours, ValueError):
        assert tomllib.loads(text.replace("\r\n", "\n")) == ours, (text, ours)


@target
def context_checked(data: bytes) -> None:
    """`.claude/telemetry.toml` as `sp-telemetry context` reads it: UsageError that names the file, or settings that decide something."""
    top = folder("checked", {configfile.NAME: data})
    read = either(lambda: observe.load_configuration(top), UsageError)
    if isinstance(read, UsageError):
        assert configfile.NAME in str(read) and read.hint
        return
    settings, file = read
    assert (file is not None) == bool(data)
    rules.decide("017-usage", "manuscript/05-part", ["05-part/33-agents/a.md"], ["specs/017-usage"], "/plan it", settings)
    hooks, reason = configfile.read(str(top))
    assert reason or hooks == settings, (hooks, settings)


@target
def context_rules(data: bytes) -> None:
    """Any branch, directory, file, prompt and configuration: a decision of clean, short texts."""
    branch, directory, file, prompt, written = map(text_of, pieces(data, 5))
    config = either(lambda: configfile.parse(written), ValueError)
    decision = rules.decide(branch, directory, [file], [directory], prompt, {} if isinstance(config, ValueError) else config)
    for finding in decision:
        for value in finding if isinstance(finding, tuple) else (finding,):
            assert not isinstance(value, str) or (len(value) <= 2000 and can_be_shown(value)), finding


@target
def settings_json(data: bytes) -> None:
    """A member put into a file that is JSON is there, nothing else changed; removed, it is not there."""
    text = text_of(data)
    before = either(lambda: json_text.parse(text), json_text.NotJson)
    if isinstance(before, json_text.NotJson) or not isinstance(before, dict) or not isinstance(before.get("env", {}), dict):
        either(lambda: json_text.put(text, ("env", "OURS"), "x"), json_text.NotJson)
        return
    put = json_text.put(text, ("env", "OURS"), "é\n")
    expected = {**before, "env": {**before.get("env", {}), "OURS": "é\n"}}
    assert same(_sorted(json_text.parse(put)), _sorted(expected)), (text, put)
    removed = json_text.parse(json_text.remove(put, ("env", "OURS")))
    assert "OURS" not in removed["env"]


def _sorted(value: Any) -> Any:
    return {name: _sorted(inner) for name, inner in sorted(value.items())} if isinstance(value, dict) else value


@target
def settings_layer(data: bytes) -> None:
    """Claude Code's settings as the doctor reads them: variables as json reads them, or what is wrong with the file. What set-up can edit,
    the doctor can read."""
    path = folder("layer", {"settings.json": data}) / "settings.json"
    layer = layers._file(layers.USER, path)
    edited = either(lambda: claude_settings.read(path), UsageError)
    assert layer if data else not layer
    if not layer:
        return
    if layer.problem:
        assert isinstance(edited, UsageError) and not layer.env
        return
    text = data.decode("utf-8-sig")
    told = json.loads(text) if text.strip() else {}
    assert layer.env == {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.get("env", {}).items()}
    assert all(isinstance(value.text, str) for value in layers.in_force([layer], None).values())


@target
def report_arguments(data: bytes) -> None:
    """What stands behind --since, --from, --to, --tz, --by, --type, --user: UsageError, or a range of moments that are read back."""
    since, start, end, zone, by, kind, user = (text_of(piece) or None for piece in pieces(data, 7))
    for report in ("cost", "errors"):
        asked = either(
            lambda report=report: parameters.parameters(
                REPORTS[report], since=since, start=start, end=end, tz=zone, timezone="UTC", by=by, filters={"type": kind, "user": user}
            ),
            UsageError,
        )
        if isinstance(asked, UsageError):
            assert str(asked)
            continue
        query = asked.for_query()
        assert datetime.fromisoformat(query["from"]) == asked.start
        assert asked.end is None or asked.start.timestamp() < asked.end.timestamp() == datetime.fromisoformat(query["to"]).timestamp()
        assert json.loads(json.dumps(asked.as_dict()))["tz"] == asked.zone
