"""The Claude Code that is installed, and which numbers its version spoils."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

ASK_S = 10
ISSUES = "https://github.com/anthropics/claude-code/issues/"
MONITORING = "https://code.claude.com/docs/en/monitoring-usage"


@dataclass(frozen=True)
class Flaw:
    """What the versions from `since` to before `until` get wrong; () is open. `matters` says for which numbers here."""

    since: tuple[int, ...]
    until: tuple[int, ...]
    what: str
    matters: str
    source: str
    ours: bool = True  # whether a number that our reports show is touched
    loses: bool = False  # whether events may be missing by it

    def holds(self, version: tuple[int, ...]) -> bool:
        return self.since <= version and (not self.until or version < self.until)

    @property
    def lasts(self) -> bool:
        return not self.since and not self.until

    @property
    def versions(self) -> str:
        begin, end = ".".join(map(str, self.since)), ".".join(map(str, self.until))
        if begin and end:
            return f"{begin} to before {end}"
        return f"before {end}" if end else f"since {begin}" if begin else "every version"


FLAWS = (
    Flaw((), (2, 1, 122), "numbers of api_request arrive as text", "none: both are read", MONITORING, ours=False),
    Flaw((), (2, 1, 161), "OTEL_RESOURCE_ATTRIBUTES stand in the resource only", "none: it is read too", MONITORING, ours=False),
    Flaw((2, 1, 161), (2, 1, 192), "more than 12 OTEL_RESOURCE_ATTRIBUTES stop metrics silently", "metrics", ISSUES + "71447", ours=False),
    Flaw((2, 1, 191), (2, 1, 212), "requests are sent in chunks", "none here; other receivers lose them", MONITORING,
         ours=False, loses=True),
    Flaw((), (2, 1, 193), "there is no assistant_response event", "lengths of answers", MONITORING),
    Flaw((), (2, 1, 214), "behind a gateway that repeats usage, the metrics of cost and tokens count it each time",
         "none: cost and tokens come from events", MONITORING, ours=False),
    Flaw((), (2, 1, 222), "mcp_server.name stays on every request after the first MCP call", "cost by MCP server", MONITORING),
    Flaw((), (2, 1, 273), "third-party skill and plugin names are missing on api_request", "cost by skill and plugin", MONITORING),
    Flaw((), (), "subagent_completed.total_tokens is the last request's only", "none: it is never added up", MONITORING),
    Flaw((), (), "query_source has other words on events than on metrics", "none: they are never joined", MONITORING),
    Flaw((), (), "metrics of sessions under a minute are often lost", "none: cost and tokens come from events", MONITORING),
    Flaw((), (), "agent.name is often missing", "cost by agent", ISSUES + "83430"),
    Flaw((), (), "auto mode's own requests may be missing", "cost in auto mode", ISSUES + "86375"),
    Flaw((), (), "events may stop after a session was resumed", "cost of resumed sessions; reports show gaps", ISSUES + "89406"),
    Flaw((), (), "Microsoft Foundry sends no api_request", "cost on Foundry", ISSUES + "55984"),
)  # fmt: skip


@dataclass(frozen=True)
class Client:
    """The executable and its version; `version` is () where it did not say."""

    path: str
    version: tuple[int, ...]
    text: str


def installed(environ: Mapping[str, str]) -> Client | None:
    """The `claude` on PATH, None without one."""
    path = shutil.which("claude", path=environ.get("PATH"))
    if not path:
        return None
    try:
        done = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_S,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
        )
        text = done.stdout.strip()[:80]
    except (OSError, subprocess.TimeoutExpired):
        text = ""
    return Client(path, parse(text), text)


def parse(text: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def flaws(version: tuple[int, ...]) -> list[Flaw]:
    """What this version gets wrong that others don't."""
    return [flaw for flaw in FLAWS if flaw.holds(version) and not flaw.lasts]


def loses_events(version: str) -> bool:
    """Whether this version is known to lose events that others don't."""
    return any(flaw.loses for flaw in flaws(parse(version)))
