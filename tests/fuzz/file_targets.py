"""Files that people write, and what they type."""

from __future__ import annotations

import tomllib
from typing import Any

from sp_telemetry.context import configfile, rules
from sp_telemetry.setup import json_text
from tests.fuzz.targets import either, same, target, text_of


@target
def context_settings(data: bytes) -> None:
    """What is read at all is read as tomllib reads it."""
    text = text_of(data)
    ours = either(lambda: configfile.parse(text), ValueError)
    if not isinstance(ours, ValueError):
        assert tomllib.loads(text.replace("\r\n", "\n")) == ours, (text, ours)


@target
def context_rules(data: bytes) -> None:
    """Any branch, directory, file, prompt and configuration: a decision of clean, short texts."""
    pieces = [*text_of(data).split("\x1f"), *[""] * 5][:5]
    branch, directory, file, prompt, written = pieces
    config = either(lambda: configfile.parse(written), ValueError)
    decision = rules.decide(branch, directory, [file], [directory], prompt, {} if isinstance(config, ValueError) else config)
    for finding in decision:
        for value in finding if isinstance(finding, tuple) else (finding,):
            assert not isinstance(value, str) or (len(value) <= 2000 and value.isprintable()), finding


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
