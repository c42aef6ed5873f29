"""Opens recordings: `for recording in recordings(): for event in recording.events(): …`.

Plain Python on purpose. It is the second opinion that the engine's decoding is tested against, so it shares no code
with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Event:
    """One log record: its attributes with the types they had on the wire, and the resource it came from."""

    name: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    time_ns: int
    received_at: int


@dataclass(frozen=True)
class Recording:
    directory: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        return json.loads((self.directory / "recording.json").read_text())

    @property
    def name(self) -> str:
        return self.directory.name

    def requests(self, signal: str) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Each export request of a signal in order of arrival: what recording.json says of it, and its body."""
        for request in self.about["requests"]:
            if request["signal"] == signal:
                yield request, (self.directory / request["file"]).read_bytes()

    def events(self) -> Iterator[Event]:
        """Every log record, in order of arrival."""
        for request, body in self.requests("logs"):
            for block in _decoded("logs", request["file"], body).get("resourceLogs", ()):
                resource = _attributes(block["resource"].get("attributes", ()))
                for scope in block["scopeLogs"]:
                    for record in scope["logRecords"]:
                        attributes = _attributes(record["attributes"])
                        yield Event(attributes["event.name"], attributes, resource,
                                    int(record["timeUnixNano"]), request["received_at"])

    def points(self) -> Iterator[tuple[str, dict[str, Any], float]]:
        """Every metric data point: name, attributes, value."""
        for request, body in self.requests("metrics"):
            for block in _decoded("metrics", request["file"], body).get("resourceMetrics", ()):
                for scope in block["scopeMetrics"]:
                    for metric in scope["metrics"]:
                        for point in metric["sum"]["dataPoints"]:
                            value = point.get("asDouble", point.get("asInt", 0))
                            yield metric["name"], _attributes(point.get("attributes", ())), float(value)

    def spans(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every span: name, attributes."""
        for request, body in self.requests("traces"):
            for block in _decoded("traces", request["file"], body).get("resourceSpans", ()):
                for scope in block["scopeSpans"]:
                    for span in scope["spans"]:
                        yield span["name"], _attributes(span.get("attributes", ()))

    def hooks(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "hooks.jsonl").read_text().splitlines()]


def recordings() -> list[Recording]:
    return [Recording(path.parent) for path in sorted(HERE.glob("*/recording.json"))]


def _decoded(signal: str, file: str, body: bytes) -> dict[str, Any]:
    if file.endswith(".json"):
        return json.loads(body)
    from google.protobuf.json_format import MessageToDict

    from tests.recordings.clean import empty_message

    message = empty_message(signal)
    message.ParseFromString(body)
    return MessageToDict(message)


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair["key"]: _value(pair["value"]) for pair in pairs}


def _value(value: dict[str, Any]) -> Any:
    for kind, inner in value.items():
        if kind == "intValue":
            return int(inner)  # JSON writes 64-bit integers as strings
        if kind == "doubleValue":
            return float(inner)
        if kind == "arrayValue":
            return [_value(each) for each in inner.get("values", ())]
        return inner
    return None
