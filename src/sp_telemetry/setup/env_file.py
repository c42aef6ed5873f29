"""The file `.env` of a Compose stack: read as Compose reads it, and written so that it reads back the same."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sp_telemetry.errors import UsageError

_LINE = re.compile(r"^([A-Z][A-Z0-9_]*)=(.*)$", re.M)


def values(text: str) -> dict[str, str]:
    """Variable -> value, without quotes."""
    found = {}
    for name, value in _LINE.findall(text):
        value = value.strip()
        if value[:1] == value[-1:] == "'" and len(value) > 1:
            value = value[1:-1]
        elif value[:1] == value[-1:] == '"' and len(value) > 1:
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        found[name] = value
    return found


def merged(template: str, present: str, mine: Mapping[str, str]) -> str:
    """`template` with the values of `mine`, and where `present` has others, those. The versions are the template's: an update of this
    program brings its own, and a digest holds for the version for which it was written."""
    shipped, kept = values(template), values(present)
    for what in ("CLICKHOUSE", "COLLECTOR"):
        if kept.pop(f"{what}_IMAGE", None) != shipped[f"{what}_IMAGE"]:
            kept.pop(f"{what}_DIGEST", None)
    chosen = shipped | kept | mine
    lines = []
    for line in template.splitlines():
        name = line.partition("=")[0]
        lines.append(f"{name}={_quoted(chosen.pop(name))}" if name in chosen and not line.startswith("#") else line)
    extra = [f"{name}={_quoted(value)}" for name, value in chosen.items()]
    return "\n".join([*lines, *(["", "# Not of the template"] if extra else []), *extra]) + "\n"


def _quoted(value: str) -> str:
    """As Compose reads it back, `$`, blanks and `#` and all."""
    if re.fullmatch(r"[\w./:\[\]@%+,-]*", value):
        return value
    if "\n" in value:
        raise UsageError(f"{value!r} can't stand in .env.", "Name the home directory otherwise (SP_TELEMETRY_HOME).")
    if "'" not in value:
        return f"'{value}'"
    escaped = re.sub(r'([\\"$])', r"\\\1", value)
    return f'"{escaped}"'
