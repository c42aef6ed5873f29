"""A report to pass on: codes, levels and facts of the findings, versions, settings that were changed. Nothing private can be in it, for
no sentence, path, name or value that a person typed is taken over: only numbers, and words from lists that are fixed in the sources.
"""

from __future__ import annotations

import builtins
import json
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sp_telemetry import __version__
from sp_telemetry.settings import SETTINGS, Settings
from sp_telemetry.setup import layers, listeners
from sp_telemetry.setup.client_versions import FLAWS
from sp_telemetry.setup.doctor import Examination
from sp_telemetry.setup.doctor_settings import PROTOCOLS

PACKAGES = ("chdb-core", "clickhouse-connect", "aiohttp", "grpcio", "httpx")
_VERSION = re.compile(r"((before |since )?\d+(\.\d+){0,3}( to before \d+(\.\d+){0,3})?|every version)?")
_WORDS = frozenset((
    *(layers.MANAGED, layers.LOCAL, layers.PROJECT, layers.USER, layers.SHELL),
    *(*listeners.ALL, *PROTOCOLS, "otlp", "console", "prometheus", "none", "other"),
    *("version", "server", "settings", "hooks", "spool", "store", "disk", "look"),
    *(name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)),
    *("Late", "ServerUnreachable", "UsageError", "StoreBusy", "QueryFailed", "SpTelemetryError"),
    *(flaw.source for flaw in FLAWS),
))  # fmt: skip


def bundle(examination: Examination, settings: Settings) -> dict[str, Any]:
    """The report, ready for JSON."""
    return {
        "sp_telemetry": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "changed_settings": {one.name: _plain(settings.values[one.name]) for one in SETTINGS if settings.origins[one.name] != "default"},
        "level": examination.level,
        "seconds": examination.seconds,
        "findings": [
            {"level": finding.level, "area": finding.area, "code": finding.code, "facts": _facts(dict(finding.facts))}
            for finding in examination.findings
        ],
    }


def as_text(report: dict[str, Any]) -> str:
    return json.dumps(report, indent=2) + "\n"


def _plain(value: Any) -> Any:
    """Numbers and switches as they are; of a text only whether there is one."""
    return value if isinstance(value, (bool, int, float)) else bool(value)


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    """A second look: a text that is no version, no word of ours and no variable's name is left out."""
    return {name: _clean(value) for name, value in facts.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _clean(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(one) for one in value]
    if isinstance(value, str):
        name = layers.is_telemetry(value) and re.fullmatch(r"[A-Z][A-Z_]{0,60}", value)
        return value if value in _WORDS or name or _VERSION.fullmatch(value) else "(left out)"
    return value


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
