"""Whether Claude Code's OpenTelemetry SDK would send all that it is given: variables with which everything looks well and events, or what
stands in them, are lost on the way.

Every rule was seen on the real client, both versions (tests/e2e/test_setup_sdk.py); the documentation tells of few of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sp_telemetry.setup import layers
from sp_telemetry.setup.doctor import ERROR, WARNING, Finding
from sp_telemetry.setup.doctor_variables import NO_DATA, ON, PROTOCOLS, mend_of, protocol_of, shown, text_of
from sp_telemetry.setup.layers import Layer, Value

EXPORTERS = {
    "LOGS": ("otlp", "console", "none"),
    "METRICS": ("otlp", "console", "prometheus", "none"),
    "TRACES": ("otlp", "console", "none"),
}
NOTHING = f"Claude Code then sends nothing at all, of no signal. {NO_DATA}"
HELPER = "otelHeadersHelper"
HALF_ESCAPES_SEEN = (2, 1, 330)  # takes `a=100%` for a header as it stands; 2.1.197 sends nothing
_HEADER = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class Least:
    """A number below which something is lost, by versions before `until`. `fatal`: below this one nothing that is worth it arrives."""

    variable: str
    number: int
    fatal: int
    lost: str
    until: tuple[int, ...] = ()


LEAST = (
    Least("OTEL_METRIC_EXPORT_INTERVAL", 1, 1, NOTHING),
    Least("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", 1, 1, "With 0 Claude Code never ends, with less no event is sent.", (2, 1, 332)),
    Least("OTEL_BLRP_MAX_QUEUE_SIZE", 512, 1, "Events that come while so many wait are thrown away."),
    Least("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", 64, 64, "What an event has more is thrown away: cost, tokens, ids."),
    Least("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", 1024, 64, "Longer values are cut off, ids among them: sessions become one."),
)


def losses(force: dict[str, Value], seen: list[Layer], version: tuple[int, ...] | None, directory: Path) -> Iterator[Finding]:
    """Of variables in force in `directory`, as the client of `version` takes them (None: as one that is not known)."""
    yield from _unknown(force)
    yield from _numbers(force, version)
    yield from _session(force)
    yield from _headers(force, version)
    yield from _helper(force, seen, directory)


def _unknown(force: dict[str, Value]) -> Iterator[Finding]:
    """A word that the client does not know stops it from sending anything, whichever signal it is for."""
    beta = any(text_of(force, name).lower() in ON for name in ("CLAUDE_CODE_ENHANCED_TELEMETRY_BETA", "ENABLE_ENHANCED_TELEMETRY_BETA"))
    for signal, known in EXPORTERS.items():
        if signal == "TRACES" and not beta:
            continue
        name = f"OTEL_{signal}_EXPORTER"
        wrong = [word for word in map(str.strip, text_of(force, name).split(",")) if word and word not in known]
        if wrong:
            yield _wrong(ERROR, "unknown-exporter", name, force[name], f"{wrong[0]!r} is none of {', '.join(known)}.", NOTHING)
        name = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
        if signal != "LOGS" and name in force and text_of(force, name) not in PROTOCOLS:
            what = f"{text_of(force, name)!r} is none of {', '.join(PROTOCOLS)}."
            yield _wrong(ERROR, "unknown-protocol", name, force[name], what, NOTHING)


def _numbers(force: dict[str, Value], version: tuple[int, ...] | None) -> Iterator[Finding]:
    for least in LEAST:
        if least.until and version and version >= least.until:
            continue
        told = re.match(r"[+-]?[0-9]+(\.[0-9]+)?", text_of(force, least.variable))  # with anything else the default holds
        if told and float(told[0]) < least.number:
            level = ERROR if float(told[0]) < least.fatal else WARNING
            what = f"that is less than {least.number}."
            yield _wrong(level, "export-limit", least.variable, force[least.variable], what, least.lost, least=least.number)


def _session(force: dict[str, Value]) -> Iterator[Finding]:
    name = "OTEL_METRICS_INCLUDE_SESSION_ID"
    if name in force and text_of(force, name).lower() not in ON:
        why = "Events lack it too, and without it nobody can tell which feature and chapter they are of."
        yield _wrong(ERROR, "no-session-id", name, force[name], "no session.id is sent.", why)


def _headers(force: dict[str, Value], version: tuple[int, ...] | None) -> Iterator[Finding]:
    escapes = version is None or version < HALF_ESCAPES_SEEN
    for signal in ("", "LOGS_", "METRICS_"):
        name = f"OTEL_EXPORTER_OTLP_{signal}HEADERS"
        for entry in text_of(force, name).split(","):
            key, sign, value = entry.partition("=")
            if sign and (not _HEADER.fullmatch(key.strip()) or not value.isprintable() or (escapes and _PERCENT.search(value))):
                yield _wrong(ERROR, "bad-headers", name, force[name], "an entry of it can't be a header.", NOTHING)
                break


def _helper(force: dict[str, Value], seen: list[Layer], directory: Path) -> Iterator[Finding]:
    """A program that Claude Code asks for headers before it sends by HTTP. Nothing is run here: it may be a repository's."""
    layer = next((layer for layer in seen if layer.settings.get(HELPER)), None)
    if layer is None or protocol_of(force) == "grpc":
        return
    command = str(layer.settings[HELPER]).strip()
    file = Path(directory, os.path.expanduser(command))
    missing = not re.search(r"[\s'\"$;|&<>()`]", command) and "/" in command and not os.access(file, os.X_OK)
    what = f"{HELPER} ({layer.place}) {'names a program that is not there' if missing else 'is asked before anything is sent'}."
    why = f"While it fails, Claude Code sends nothing{'' if missing else ', and says so in /status only'}. Our server needs no headers."
    mend = f"Remove {HELPER} from {layer.place}" + ("" if missing else ", or see that it prints a JSON object of texts")
    yield Finding(ERROR if missing else WARNING, "settings", "headers-helper", what, why, mend, {"layer": layer.name})


def _wrong(level: str, code: str, name: str, value: Value, what: str, why: str, **facts: object) -> Finding:
    told = {"variable": name, "layer": value.layer.name, **facts}
    ours = value.layer.name == layers.USER and name not in ("OTEL_LOGS_EXPORTER", "OTEL_METRICS_EXPORTER")  # which set-up puts right
    mend = f"Remove {name} from {value.layer.place}" if ours else mend_of(value, name)
    return Finding(level, "settings", code, f"{shown(name, value)}: {what}", why, mend, told)
