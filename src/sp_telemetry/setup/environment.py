"""The variables that make Claude Code export to this machine's server, and how each shell writes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

ENDPOINT = "http://127.0.0.1:4318"
RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"
PERSON = "enduser.id"
SHELLS = ("bash", "zsh", "fish", "powershell")

#: every variable that we may write, in the order in which they are shown
OURS = (
    "CLAUDE_CODE_ENABLE_TELEMETRY",
    "OTEL_METRICS_EXPORTER",
    "OTEL_LOGS_EXPORTER",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA",
    "OTEL_TRACES_EXPORTER",
    RESOURCE,
)
#: variables that send one signal elsewhere than the common ones say
DIVERTING = (
    *(f"OTEL_EXPORTER_OTLP_{signal}_{what}" for signal in ("LOGS", "METRICS", "TRACES") for what in ("ENDPOINT", "PROTOCOL")),
    "BETA_TRACING_ENDPOINT",
)


def variables(
    endpoint: str = ENDPOINT,
    person: str = "",
    attributes: str = "",
    *,
    console: bool = False,
    prometheus: bool = False,
    traces: bool = False,
) -> dict[str, str]:
    """What has to be set. `attributes` is the OTEL_RESOURCE_ATTRIBUTES that is there already; the person is merged into it."""
    exporter = "otlp,console" if console else "otlp"
    found = {
        "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
        "OTEL_METRICS_EXPORTER": exporter + (",prometheus" if prometheus else ""),
        "OTEL_LOGS_EXPORTER": exporter,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
    }
    if traces:
        found |= {"CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1", "OTEL_TRACES_EXPORTER": exporter}
    merged = with_person(attributes, person) if person else attributes
    if merged:
        found[RESOURCE] = merged
    return found


def person_of(attributes: str) -> str:
    """Whom OTEL_RESOURCE_ATTRIBUTES names, '' for nobody."""
    for entry in attributes.split(","):
        key, equals, value = entry.partition("=")
        if equals and key.strip() == PERSON:
            return unquote(value.strip())
    return ""


def with_person(attributes: str, person: str) -> str:
    """`attributes` with `enduser.id` set to `person`, percent-encoded; the other entries as they are, in their order."""
    entry = f"{PERSON}={quote(person, safe='')}"
    entries = [part for part in attributes.split(",") if part.strip()]
    mine = [index for index, part in enumerate(entries) if part.partition("=")[0].strip() == PERSON]
    for index in reversed(mine[1:]):
        del entries[index]
    if mine:
        entries[mine[0]] = entry
    else:
        entries.append(entry)
    return ",".join(entries)


def without_person(attributes: str) -> str:
    return ",".join(part for part in attributes.split(",") if part.strip() and part.partition("=")[0].strip() != PERSON)


def render(shell: str, values: Mapping[str, str], *, off: bool = False) -> str:
    """Lines for `shell` that set `values`, or take these variables away."""
    write = {"bash": _posix, "zsh": _posix, "fish": _fish, "powershell": _powershell}[shell]
    return "".join(write(name, None if off else value) + "\n" for name, value in values.items())


_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-]+")


def _posix(name: str, value: str | None) -> str:
    if value is None:
        return f"unset {name}"
    # shlex.quote leaves `=` bare, and zsh takes a word that starts with it for the path of a command.
    return f"export {name}=" + (value if _PLAIN.fullmatch(value) else "'" + value.replace("'", "'\"'\"'") + "'")


def _fish(name: str, value: str | None) -> str:
    if value is None:
        return f"set -e {name}"
    # In fish's single quotes a backslash escapes itself and the quote.
    return f"set -gx {name} " + (value if _PLAIN.fullmatch(value) else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'")


def _powershell(name: str, value: str | None) -> str:
    if value is None:
        return f"Remove-Item Env:{name} -ErrorAction SilentlyContinue"
    # PowerShell takes typographic quotes for straight ones; each is escaped by doubling.
    return f"$env:{name} = '" + re.sub("(['\u2018\u2019\u201a\u201b])", r"\1\1", value) + "'"
