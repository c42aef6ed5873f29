"""Every setting, declared once: name, environment variable, type, default, help.

One order of precedence: the environment, `config.toml` in the home directory, the default. An empty value means "not set".
Standard library only, for it is read at each start of the command line.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sp_telemetry.errors import UsageError


@dataclass(frozen=True)
class Setting:
    """One setting. Its text is read as its default's type; `choices` limits it, of a number `least` and `most`, of a text `form`: a test
    and what passes it, in words."""

    name: str
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    least: int = 0
    most: int = 2**31 - 1
    form: tuple[Callable[[str], bool], str] | None = None

    @property
    def variable(self) -> str:
        return "SP_TELEMETRY_" + self.name.upper()

    def read(self, value: Any, origin: str) -> Any:
        """`value` as this setting's type, or UsageError that names where it came from."""
        kind = type(self.default)
        try:
            if kind is bool and type(value) is int:
                value = str(value)
            if type(value) not in (kind, str):  # of TOML; int() takes True and 1.5 for 1, and str() takes anything
                raise TypeError
            if kind is bool and isinstance(value, str):
                parsed: Any = {"1": True, "true": True, "yes": True, "on": True}.get(value.lower())
                if parsed is None:
                    parsed = {"0": False, "false": False, "no": False, "off": False}[value.lower()]
            else:
                parsed = kind(value)
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{origin}: {self.name} is {value!r}; expected {kind.__name__}.") from None
        if self.choices and parsed not in self.choices:
            allowed = ", ".join(map(str, self.choices))
            raise UsageError(f"{origin}: {self.name} is {value!r}; allowed are {allowed}.")
        if kind is int and not self.least <= parsed <= self.most:
            raise UsageError(f"{origin}: {self.name} is {value!r}; expected a number from {self.least} to {self.most}.")
        if self.form and not self.form[0](parsed):
            raise UsageError(f"{origin}: {self.name} is {value!r}; expected {self.form[1]}.")
        return parsed


def _is_ipv4(text: str) -> bool:
    """Nothing else is listened on: of a name and of IPv6 the kernel is not asked whose program calls (serve/peer.py)."""
    parts = text.split(".")
    return len(parts) == 4 and all(part.isascii() and part.isdecimal() and len(part) <= 3 and int(part) < 256 for part in parts)


_IPV4 = (_is_ipv4, "an IPv4 address like 127.0.0.1")
SETTINGS = (
    Setting("backend", "embedded", "what serves: one process of ours, or containers of Docker Compose", ("embedded", "compose")),
    Setting("bind", "127.0.0.1", "IPv4 address that every listener binds; loopback unless you know why not", form=_IPV4),
    Setting("otlp_http_port", 4318, "OTLP over HTTP (0 takes a free port)", most=65535),
    Setting("otlp_grpc_port", 4317, "OTLP over gRPC (0 takes a free port)", most=65535),
    Setting("clickhouse_port", 8123, "the ClickHouse HTTP interface (0 takes a free port)", most=65535),
    Setting("health_port", 13133, "health check (0 takes a free port)", most=65535),
    Setting("metrics_port", 8888, "the pipeline's own metrics, for Prometheus (0 takes a free port)", most=65535),
    Setting("clickhouse_native_port", 9000, "ClickHouse's native protocol, of backend compose", most=65535),
    Setting("prometheus_port", 8889, "Claude Code's metrics for Prometheus, of backend compose", most=65535),
    Setting("anonymous_reads", False, "let requests without credentials read through the ClickHouse interface"),
    Setting("other_users", False, "answer the programs of other users of this machine too (Linux; elsewhere they always are)"),
    Setting("retention_events_days", 90, "how long raw events are kept; 0 keeps them for ever"),
    Setting("retention_sessions_days", 365, "how long session summaries are kept; 0 keeps them for ever"),
    Setting("max_request_mib", 32, "largest OTLP request that is accepted, decompressed", least=1),
    Setting("max_queued_mib", 64, "OTLP requests held while they wait for the store; beyond it senders are told to retry", least=1),
    Setting("query_timeout_s", 30, "longest time that a reader's query may take"),
    Setting("query_memory_mib", 1024, "most memory that a reader's query may take"),
    Setting("timezone", "", "time zone in which days are cut; empty means the machine's own"),
    Setting("person", "", "under whose name this machine's sessions are reported; set-up asks"),
    Setting("privacy_level", "strict", "what is kept of each attribute; see `sp-telemetry privacy show`", ("strict", "standard", "full")),
    Setting("autostart", True, "let the start of a session start the server when it is down"),
    Setting("backfill", False, "let the start of a session fill in what telemetry missed from Claude Code's transcripts, at most hourly"),
    Setting("session_line", True, "show feature, chapter and today's cost at the start of a session"),
    Setting("prices", "", "CSV file of own prices, in place of the shipped ones; empty means prices.csv in the home, if it exists"),
    Setting("url", "", "address of a ClickHouse HTTP interface to ask instead of the local server"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True)
class Settings:
    """The settings in force, as attributes, and where each came from (`origins`: name -> text)."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None

    @classmethod
    def load(cls, home: Path, environ: Mapping[str, str] = os.environ) -> Settings:
        """Settings of the installation in `home`. Raises UsageError for an unknown name or a wrong value."""
        file = home / "config.toml"
        stored = _read_file(file)
        values, origins = {}, {}
        for setting in SETTINGS:
            if environ.get(setting.variable):
                value, origin = environ[setting.variable], setting.variable
            elif stored.get(setting.name, "") != "":
                value, origin = stored[setting.name], str(file)
            else:
                value, origin = setting.default, "default"
            values[setting.name], origins[setting.name] = setting.read(value, origin), origin
        return cls(values, origins)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        stored = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # of TOML or of UTF-8
        raise UsageError(f"{file} can't be read: {error}.", "Mend it or move it away.") from None
    for name in stored:
        if name not in _BY_NAME and not isinstance(stored[name], dict):
            raise UsageError(f"{file}: unknown setting {name!r}.", "Known are " + ", ".join(sorted(_BY_NAME)) + ".")
    return stored


def reached_at(bind: str) -> str:
    """The address under which programs of this machine call what listens on `bind`. 0.0.0.0 is every address and none to call, and a
    request that names it is refused (serve/guard.py)."""
    return "127.0.0.1" if bind == "0.0.0.0" else bind


def default_home(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The directory that holds everything of an installation: `SP_TELEMETRY_HOME`, else the platform's place for it. Raises UsageError
    where there is none."""
    try:
        if environ.get("SP_TELEMETRY_HOME"):
            return Path(environ["SP_TELEMETRY_HOME"]).expanduser().absolute()
        user = Path(environ.get("HOME") or environ.get("USERPROFILE") or Path.home())
    except RuntimeError:  # ~name of nobody; a user whom the system does not know, as in containers
        raise UsageError("The home directory can't be told.", "Name a directory in SP_TELEMETRY_HOME, with its whole path.") from None
    if platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or user / "AppData" / "Local") / "sp-telemetry"
    if platform == "darwin":
        return user / "Library" / "Application Support" / "sp-telemetry"
    return Path(environ.get("XDG_DATA_HOME") or user / ".local" / "share") / "sp-telemetry"
