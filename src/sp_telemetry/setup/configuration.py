"""Writes `config.toml` a line at a time, so that what a person wrote around it stays. Read by `settings.py`, and by the hooks."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home

HEADER = "# sp-telemetry's settings; `sp-telemetry serve --help` says what there is.\n"
ASIDE = "config.toml.uninstalled"


def save(home: Home, values: Mapping[str, str | int | bool]) -> bool:
    """Set these settings in the home's config.toml; False where they stood there already."""
    file = home.path / "config.toml"
    aside = home.path / ASIDE
    if not file.exists() and aside.exists():
        aside.replace(file)
    text = file.read_text("utf-8") if file.exists() else None
    new = changed(text if text is not None else HEADER, values)
    if new == text:
        return False
    home.write_atomically(file, new)
    return True


def put_aside(home: Home) -> bool:
    """Take config.toml out of force: without one, hooks start no server. The next set-up takes it up again."""
    try:
        (home.path / "config.toml").replace(home.path / ASIDE)
        return True
    except FileNotFoundError:
        return False


def changed(text: str, values: Mapping[str, str | int | bool]) -> str:
    """`text` with these settings at its top level, the other lines as they are. Raises UsageError where they can't be told apart."""
    stored = tomllib.loads(text)
    for name, value in values.items():
        if name in stored and stored[name] == value and type(stored[name]) is type(value):
            continue
        line = f"{name} = {_toml(value)}"
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # TOML ends a line nowhere else
        top = next((index for index, one in enumerate(lines) if one.lstrip().startswith("[")), len(lines))
        at = next((index for index in range(top) if re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", lines[index])), None)
        if at is not None:
            lines[at] = line + "\n"
        else:
            if top and not lines[top - 1].endswith("\n"):
                lines[top - 1] += "\n"
            lines.insert(top, line + "\n")
        text = "".join(lines)
    try:
        if tomllib.loads(text) == stored | values:
            return text
    except ValueError:
        pass
    what = "config.toml can't be changed here: it has a text or a list over several lines."
    raise UsageError(what, "Put it on one line, or move the file away; then run this again.")


def _toml(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
