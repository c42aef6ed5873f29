"""Who wins: the layers that give Claude Code its variables, the highest first, and what is in force of them.

managed settings > --settings (not to be seen from outside) > .claude/settings.local.json > .claude/settings.json > user settings > shell.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sp_telemetry.setup import claude_settings
from sp_telemetry.setup.claude_settings import as_text

MANAGED, LOCAL, PROJECT, USER, SHELL = "managed settings", "local settings", "project settings", "user settings", "shell"
IGNORED_SINCE = (2, 1, 282)
LOCKED_SINCE = (2, 1, 217)  # a managed endpoint takes everybody else's away, those of single signals too; protocols stay
_ENDPOINT = re.compile(r"OTEL_EXPORTER_OTLP_(.*_)?ENDPOINT$")
_TELEMETRY = re.compile(r"OTEL_|CLAUDE_CODE_ENABLE_TELEMETRY$|CLAUDE_CODE_ENHANCED_TELEMETRY_BETA$|ENABLE_ENHANCED_TELEMETRY_BETA$|"
                        r"(ENABLE_)?BETA_TRACING_|CLAUDE_CODE_OTEL_")  # fmt: skip
_IGNORED = re.compile(
    r"(CLAUDE_CODE_ENABLE_TELEMETRY|CLAUDE_CODE_ENHANCED_TELEMETRY_BETA|ENABLE_ENHANCED_TELEMETRY_BETA|OTEL_(LOGS|METRICS|TRACES)_EXPORTER|"
    r"OTEL_LOG_(USER_PROMPTS|ASSISTANT_RESPONSES|TOOL_CONTENT|TOOL_DETAILS|RAW_API_BODIES)|"
    r"OTEL_EXPORTER_OTLP_(.*_)?(ENDPOINT|HEADERS|PROTOCOL|CERTIFICATE|CLIENT_KEY|INSECURE)|OTEL_EXPORTER_PROMETHEUS_(HOST|PORT)|"
    r"ENABLE_BETA_TRACING_DETAILED|BETA_TRACING_ENDPOINT)$"
)
_OFF_COUNTS = re.compile(r"OTEL_(LOGS|METRICS|TRACES)_EXPORTER$")


@dataclass(frozen=True)
class Layer:
    """One place that sets variables. `problem` says why it could not be read."""

    name: str
    place: str
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Value:
    """A variable in force, where it comes from, and what it beats."""

    text: str
    layer: Layer
    beaten: tuple[tuple[Layer, str], ...] = ()


def layers(environ: Mapping[str, str], directory: Path | None, managed: tuple[Path, ...] | None = None) -> list[Layer]:
    """All layers that can be seen from here, the highest first. `directory` is where Claude Code would be started."""
    found = [_file(MANAGED, path) for path in (managed_files() if managed is None else managed)]
    project = _project(directory, environ) if directory else None
    if project:
        found += [_file(LOCAL, project / ".claude" / "settings.local.json"), _file(PROJECT, project / ".claude" / "settings.json")]
    found.append(_file(USER, claude_settings.locate(environ)))
    shell = {name: value for name, value in environ.items() if is_telemetry(name)}
    return [layer for layer in found if layer is not None] + [Layer(SHELL, "the shell", shell)]


def in_force(found: list[Layer], version: tuple[int, ...] | None) -> dict[str, Value]:
    """The telemetry variables as the client of `version` sees them (None: as the newest does)."""
    values: dict[str, Value] = {}
    locked = version is None or version >= LOCKED_SINCE
    locked = locked and any(_ENDPOINT.match(name) for layer in found if layer.name == MANAGED for name in layer.env)
    for layer in found:
        for name, text in layer.env.items():
            if not is_telemetry(name) or is_ignored(layer, name, text, version):
                continue
            if locked and layer.name != MANAGED and _ENDPOINT.match(name):
                continue
            known = values.get(name)
            values[name] = Value(text, layer) if known is None else Value(known.text, known.layer, (*known.beaten, (layer, text)))
    return values


def is_telemetry(name: str) -> bool:
    return bool(_TELEMETRY.match(name))


def shown(name: str, text: str) -> str:
    """`NAME=value` for a person to see, without what is a secret in it."""
    if "HEADERS" in name or "KEY" in name:
        return f"{name}=…"
    return f"{name}={without_credentials(text)}"


def without_credentials(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://…@", text)


def is_ignored(layer: Layer, name: str, text: str, version: tuple[int, ...] | None) -> bool:
    """Whether a client of `version` passes over this variable, because a repository may not set it."""
    if layer.name not in (LOCAL, PROJECT) or (version is not None and version < IGNORED_SINCE):
        return False
    if _OFF_COUNTS.match(name) and text.strip() == "none":
        return False
    return bool(_IGNORED.match(name))


def managed_files(platform: str = sys.platform) -> tuple[Path, ...]:
    """Where an administrator's settings lie; those of a management server can't be seen here."""
    folder = {
        "darwin": Path("/Library/Application Support/ClaudeCode"),
        "win32": Path("C:/Program Files/ClaudeCode"),
    }.get(platform, Path("/etc/claude-code"))
    try:
        more = sorted((folder / "managed-settings.d").glob("*.json"), reverse=True)
    except OSError:
        more = []
    return (*more, folder / "managed-settings.json")


def _file(name: str, path: Path) -> Layer | None:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Layer(name, str(path), problem=f"can't be read ({error.strerror})")
    except UnicodeDecodeError:
        return Layer(name, str(path), problem="is not UTF-8")
    try:
        whole = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        return Layer(name, str(path), problem=f"is not JSON ({error})")
    if not isinstance(whole, dict) or not isinstance(whole.get("env", {}), dict):
        return Layer(name, str(path), problem="is not an object, or its env is none")
    return Layer(name, str(path), {key: as_text(value) for key, value in whole.get("env", {}).items()}, whole)


def _project(directory: Path, environ: Mapping[str, str]) -> Path | None:
    """The directory whose .claude counts: the one above that has a repository, else the one given; never the user's home."""
    home = Path(environ.get("HOME") or Path.home())
    for folder in (directory, *directory.parents):
        if folder == home:
            break
        if (folder / ".git").exists():
            return folder
    return None if directory == home else directory
