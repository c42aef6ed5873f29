"""Each report, declared once: its file, what it can be grouped by, its columns. The command line, the renderers and the tests read this.

The files are in telemetry-server/queries/ and are asked as they stand. Each answers with rows of three kinds (column `row`: group,
unattributed, total), the names in group_1 … group_3, and the columns declared here.
"""

from __future__ import annotations

from dataclasses import dataclass

from sp_telemetry import resources

UNATTRIBUTED = "(unattributed)"
#: groupings in which a request may have no name: context that was not known at its moment
ATTRIBUTED = ("chapter", "feature", "step", "branch", "project", "user")
#: columns of the total that say how far to trust a report
FACTS = ("requests", "sessions", "unattributed_usd", "unpriced_requests", "unpriced_tokens")
_COMMON = ("chapter", "feature", "user", "day", "session", "step", "branch", "project")


@dataclass(frozen=True)
class Column:
    """A column of a report. `rank` says which go first when the width does not hold all: 0 is always there, 9 never in a table."""

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
    main: str  # the column that shares are of, and that rows are ordered by
    source: str  # the events that it reads
    types: tuple[str, ...]  # what --type may be

    @property
    def file(self) -> str:
        return f"{self.name}.sql"

    def sql(self) -> str:
        return query(self.file)


def query(file: str) -> str:
    """The text of a shipped query."""
    return resources.path(f"telemetry-server/queries/{file}").read_text()


_UNPRICED = (Column("unpriced_requests", "unpriced", "count", 9), Column("unpriced_tokens", "unpriced tokens", "tokens", 9))

REPORTS = {
    report.name: report
    for report in (
        Report(
            "cost", "what was spent", "chapter", (*_COMMON, "model"),
            (
                Column("cost_usd", "cost", "money"),
                Column("requests", "requests", "count"),
                Column("sessions", "sessions", "count", 1),
                Column("token_count", "in + out", "tokens", 2),
                Column("cache_read_tokens", "cache read", "tokens", 3),
                Column("cache_creation_tokens", "cache write", "tokens", 4),
                *_UNPRICED,
            ),
            "cost_usd", "api_request events", ("api_request",),
        ),
    )
}
