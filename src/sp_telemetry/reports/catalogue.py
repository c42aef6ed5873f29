"""Each report, declared once: its file, what it can be grouped by, its columns. The command line, the renderers and the tests read this.

The files are in telemetry-server/queries/ and are asked as they stand, but for a part that nobody needs. Each answers with rows of three
kinds (column `row`: group, unattributed, total), the names in group_1 … group_3, the columns declared here, `unattributed` (of `main`)
and `groups`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sp_telemetry import resources

UNATTRIBUTED = "(unattributed)"
#: groupings in which a request may have no name: context that was not known at its moment
ATTRIBUTED = ("chapter", "feature", "step", "branch", "project", "user")
_COMMON = ("chapter", "feature", "user", "day", "session", "step", "branch", "project")


@dataclass(frozen=True)
class Column:
    """A column of a report. `rank` says which give way first where a table is too narrow: 0 never does, 9 is not in tables at all."""

    name: str
    title: str
    kind: str  # money, tokens, count, ms, bytes, ratio, time, text
    rank: int = 0


@dataclass(frozen=True)
class Report:
    name: str
    help: str
    default_by: str
    groupings: tuple[str, ...]
    columns: tuple[Column, ...]
    main: str  # the column that rows are ordered by, and shares are of
    noun: str  # what `main` adds up
    source: str  # the events that it reads, in words
    types: tuple[str, ...]  # what --type may be; empty: anything
    types_help: str = ""
    file: str = ""
    sums: bool = False  # of hours whose events are no longer kept it adds what was summed up, but by session

    def sql(self, sums: bool = True) -> str:
        """`sums`: with the part that reads sums of hours, whose planning takes a fifth of the time."""
        return resources.only(query(f"{self.file or self.name}.sql"), sums=sums)


def query(file: str) -> str:
    """The text of a shipped query."""
    return resources.path(f"telemetry-server/queries/{file}").read_text("utf-8")


REPORTS = {
    report.name: report
    for report in (
        Report(
            "cost", "what was spent", "chapter", (*_COMMON, "model"),
            (
                Column("cost_usd", "cost", "money"),
                Column("requests", "requests", "count"),
                Column("sessions", "sessions", "count", 1),
                Column("token_count", "in + out", "tokens", 3),
                Column("cache_read_tokens", "cache read", "tokens", 4),
                Column("cache_creation_tokens", "cache write", "tokens", 5),
                Column("unpriced_requests", "unpriced", "count", 9),
                Column("unpriced_tokens", "unpriced tokens", "tokens", 9),
            ),
            "cost_usd", "cost", "api_request events", ("api_request",), sums=True,
        ),
        Report(
            "cost-differences", "where what Claude Code reported and what the price list says differ, and why", "reason",
            ("reason", "model", "version", "request", *_COMMON),
            (
                Column("difference_usd", "reported more", "money"),
                Column("requests", "requests", "count"),
                Column("reported_usd", "reported", "money", 1),
                Column("computed_usd", "computed", "money", 1),
                Column("sessions", "sessions", "count", 3),
                Column("unpriced_requests", "unpriced", "count", 9),
                Column("unpriced_tokens", "unpriced tokens", "tokens", 9),
            ),
            "difference_usd", "difference", "api_request events, transcripts, the price list", ("api_request",),
        ),
        Report(
            "tokens", "what was read, written and cached", "model", (*_COMMON, "model"),
            (
                Column("input_tokens", "input", "tokens"),
                Column("output_tokens", "output", "tokens"),
                Column("cache_read_tokens", "cache read", "tokens"),
                Column("cache_creation_tokens", "cache write", "tokens"),
                Column("cache_hit_ratio", "hit", "ratio", 1),
                Column("requests", "requests", "count", 3),
                Column("sessions", "sessions", "count", 4),
                Column("cache_creation_5m_tokens", "written for 5 min", "tokens", 9),
                Column("cache_creation_1h_tokens", "written for 1 h", "tokens", 9),
                Column("token_count", "in + out", "tokens", 9),
            ),
            "token_count", "input and output tokens", "api_request events", ("api_request",), sums=True,
        ),
        Report(
            "sessions", "what happened in each session", "session", ("session", *(name for name in _COMMON if name != "session")),
            (
                Column("cost_usd", "cost", "money"),
                Column("sessions", "sessions", "count", 5),
                Column("prompts", "prompts", "count"),
                Column("active_ms", "active", "ms"),
                Column("ended_by", "ended by", "text"),
                Column("joined", "joined", "text", 1),
                Column("joined_sessions", "joined sessions", "text", 9),
                Column("requests", "requests", "count", 2),
                Column("tool_calls", "tools", "count", 2),
                Column("tool_failures", "failed", "count", 2),
                Column("api_errors", "errors", "count", 3),
                Column("started_at", "first", "time", 3),
                Column("ended_at", "last", "time", 9),
                Column("elapsed_ms", "elapsed", "ms", 4),
                Column("api_ms", "requests took", "ms", 9),
            ),
            "cost_usd", "cost", "user_prompt, api_request, api_error and tool_result events",
            ("user_prompt", "api_request", "api_error", "tool_result"),
        ),
        Report(
            "tools", "how often tools were called and failed, and how long they took", "tool", ("tool", *_COMMON),
            (
                Column("calls", "calls", "count"),
                Column("failures", "failed", "count"),
                Column("failure_ratio", "of calls", "ratio"),
                Column("rejected", "rejected", "count", 1),
                Column("p50_ms", "p50", "ms", 1),
                Column("p95_ms", "p95", "ms", 1),
                Column("result_bytes", "gave back", "bytes", 3),
                Column("sessions", "sessions", "count", 4),
            ),
            "calls", "calls", "tool_result and tool_decision events", ("tool_result", "tool_decision"),
        ),
        Report(
            "errors", "requests and tool calls that failed", "type", ("type", "code", "tool", "model", *_COMMON),
            (
                Column("errors", "errors", "count"),
                Column("api_errors", "requests", "count"),
                Column("tool_failures", "tool calls", "count"),
                Column("sessions", "sessions", "count", 1),
                Column("since_at", "first", "time", 3),
                Column("latest_at", "last", "time", 1),
            ),
            "errors", "errors", "api_error, internal_error and failed tool_result events", (),
        ),
    )
}  # fmt: skip

_COST = REPORTS["cost"]
_BY_LIST = replace(_COST, file="cost-computed", sums=False, source="api_request events, transcripts, the price list")
#: the ways to say what was spent (`report cost --cost`)
COSTS = {
    "reported": _COST,
    "computed": _BY_LIST,
    "both": replace(
        _BY_LIST,
        columns=(
            Column("reported_usd", "reported", "money"),
            Column("cost_usd", "computed", "money"),
            Column("difference_usd", "reported more", "money"),
            *_COST.columns[1:],
        ),
    ),
}
