"""Takes out of a recording what belongs to the machine that made it, and proves that nothing is left.

The client already ran under neutral names (tests/client/neutral.py). What is left is the kernel's version, which no
namespace hides; and, in transcripts, pages of the client's own notes and prompts, which are long and of no use here.
"""

from __future__ import annotations

import json
import os
import platform
import re
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

RELEASE = "6.8.0-45-generic"
LONGEST = 1500
_CONVERSATION = {"user", "assistant", "system", "summary", "cost-state"}


def text(value: str) -> str:
    return value.replace(platform.release(), RELEASE).replace(platform.version(), "#45-Ubuntu SMP")


def export(signal: str, extension: str, body: bytes) -> bytes:
    """An export request with the kernel's version replaced; decoded and encoded again only when it was there."""
    needle = platform.release().encode()
    if needle not in body:
        return body
    if extension == "json":
        return text(body.decode()).encode()
    message = empty_message(signal)
    message.ParseFromString(body)
    _strings(message, text)
    return message.SerializeToString()


def transcript(lines: str) -> str:
    """A transcript with its conversation whole. Of the client's own notes the first of each kind is kept, long ones cut."""
    kept = []
    seen = set()
    for line in lines.splitlines():
        entry = json.loads(text(line))
        kind = (entry.get("type"), (entry.get("attachment") or {}).get("type"))
        if kind[0] not in _CONVERSATION:
            if kind in seen:
                continue
            seen.add(kind)
            entry = _cut(_short(entry), 120)
        elif len(line) > LONGEST:
            entry = _cut(entry, LONGEST)
        kept.append(json.dumps(entry, separators=(",", ":"), ensure_ascii=False) + "\n")
    return "".join(kept)


def leaks(recordings: Path, checkout: Path) -> list[str]:
    """Every place that still names this machine: its host, the checkout, its private directories, its kernel."""
    host = re.escape(socket.gethostname())
    user = re.escape(os.environ.get("SUDO_USER") or "root")
    # The directory at the top of the checkout's path, unless it is where the recorded homes are too.
    places = {"/root", "/tmp", tempfile.gettempdir(), str(Path.home()), f"/{checkout.parts[1]}"} - {"/home"}
    paths = re.compile("|".join([re.escape(str(checkout)), re.escape(platform.release()), *(
        rf"(?<![\w.-]){re.escape(place)}(?![\w-])" for place in sorted(places))]))
    names = re.compile(rf"(?<![\w-])(?:{host}|{user}@)(?![\w-])")
    found = []
    for path in sorted(recordings.glob("*/**/*")):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        raw = path.read_bytes().decode("utf-8", "replace")
        # A host may be called something short: look for names in texts only, not in random bytes.
        texts = raw
        if path.suffix == ".pb":
            message = empty_message(path.suffixes[0][1:])
            message.ParseFromString(path.read_bytes())
            collected: list[str] = []
            _strings(message, partial(_collect, collected))
            texts = "\n".join(collected)
        for match in [*paths.finditer(raw), *names.finditer(texts)]:
            around = match.string[max(0, match.start() - 40):match.end() + 40].replace("\n", " ")
            found.append(f"{path.relative_to(recordings)}: {match.group()!r} in …{around}…")
    return found


def _collect(collected: list[str], value: str) -> str:
    collected.append(value)
    return value


def _short(entry: dict[str, Any]) -> dict[str, Any]:
    """The same keys; a structure that is long becomes a note of how long it was."""
    short: dict[str, Any] = {}
    for key, value in entry.items():
        size = len(json.dumps(value))
        if key in ("attachment", "message") and isinstance(value, dict):
            value = _short(value)
        elif isinstance(value, (dict, list)) and size > 200:
            value = f"[{size} characters, cut in the recording]"
        short[key] = value
    return short


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, dict):
        return {key: _cut(inner, longest) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cut(inner, longest) for inner in value]
    if isinstance(value, str) and len(value) > longest:
        return f"{value[:40]}… [{len(value)} characters, cut in the recording]"
    return value


def empty_message(signal: str) -> Any:
    """The export request of a signal, to parse a body into."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    return {"logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest, "traces": ExportTraceServiceRequest}[signal]()


def _strings(message: Any, change: Any) -> None:
    """Applies `change` to every text in a protobuf message."""
    for descriptor, value in message.ListFields():
        repeated = getattr(descriptor, "is_repeated", None)
        if repeated is None:
            repeated = descriptor.label == descriptor.LABEL_REPEATED
        if descriptor.type == descriptor.TYPE_MESSAGE:
            for inner in value if repeated else (value,):
                _strings(inner, change)
        elif descriptor.type == descriptor.TYPE_STRING:
            if repeated:
                value[:] = [change(each) for each in value]
            elif (changed := change(value)) != value:
                setattr(message, descriptor.name, changed)
