"""Holds every API request that transcripts know of against the telemetry, one to one, and says why one side lacks what the other has.

The statements are telemetry-server/transcripts/matched.sql (what goes with what) and telemetry-server/queries/audit.sql (why not).
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sp_telemetry import resources
from sp_telemetry.store.client import Client, Statements
from sp_telemetry.store.schema import run_file, shipped
from sp_telemetry.transcripts import GRACE_S, kept_since
from sp_telemetry.transcripts.files import Found
from sp_telemetry.transcripts.links import linking
from sp_telemetry.transcripts.reading import Read, left_out
from sp_telemetry.transcripts.special import special

DETAILS = 1000
LAST_DAYS = 30  # what the statements look at where no beginning is given
PENDING = ("not yet exported", "not yet written")
EXPLAINED = ("auxiliary", "of an unknown kind", "transcript deleted", *PENDING)  # requests that only telemetry can know
TOKENS = ("input", "output", "cache_read", "cache_creation")
_BOTH = ("telemetry_tokens", "transcript_tokens")
_DETAIL = ("timestamp", "request_id", "message_id", "query_source", *_BOTH, "telemetry_usd", "transcript_usd")
_FACTOR = 0.001  # costs that differ by one factor throughout are a price list that differs; a single one is not throughout


@dataclass(frozen=True)
class Audit:
    """`rows`: of each session, model, version, side and reason, as queries/audit.sql says; `numbers`: event.sequence and replays;
    `gaps`: ranges of numbers that are missing, as transcripts/gaps.sql says."""

    rows: list[dict[str, Any]]
    numbers: Mapping[str, int]
    gaps: list[dict[str, Any]]
    read: Read
    found: Found

    def count(self, side: str, *reasons: str, filled: bool | None = None) -> int:
        """Requests of a side; with `reasons` only those."""
        return sum(
            row["requests"]
            for row in self.rows
            if row["side"] == side and (not reasons or row["reason"] in reasons) and filled in (None, row["filled"])
        )

    @property
    def reasons(self) -> dict[str, dict[str, int]]:
        """side -> reason -> requests; of those in both only what differs, of those missing only what was not filled in."""
        counted: dict[str, Counter[str]] = {"both": Counter(), "telemetry": Counter(), "transcript": Counter()}
        for row in self.rows:
            if row["reason"] and not row["filled"]:
                counted[row["side"]][row["reason"]] += row["requests"]
        return {side: dict(counter.most_common()) for side, counter in counted.items()}

    @property
    def missing(self) -> int:
        return self.count("transcript", filled=False) - self.count("transcript", *PENDING, filled=False)

    @property
    def filled(self) -> int:
        return self.count("transcript", filled=True)

    @property
    def pending(self) -> int:
        return self.count("transcript", *PENDING, filled=False) + self.count("telemetry", *PENDING) + self.count("both", *PENDING)

    @property
    def unexplained(self) -> int:
        """Requests that only telemetry has, though the transcript is there."""
        return self.count("telemetry") - self.count("telemetry", *EXPLAINED)

    @property
    def differing(self) -> int:
        return sum(row["requests"] for row in self.rows if row["side"] == "both" and row["reason"] not in ("", *PENDING))

    @property
    def cost_differs_usd(self) -> float:
        """What Claude Code reported less what its tokens cost by the price list, of requests in both."""
        return sum(row["cost_differs_usd"] for row in self.rows)

    @property
    def cost_apart_usd(self) -> float:
        """The same without its sign, request by request: more of one does not make up for less of another."""
        return sum(row["cost_apart_usd"] for row in self.rows)

    @property
    def unpriced(self) -> int:
        """Requests in both whose cost has nothing to be held against."""
        return sum(row["unpriced"] for row in self.rows if row["side"] == "both")

    @property
    def other_prices(self) -> list[dict[str, Any]]:
        """Models that a version counts at other prices throughout: model, version, factor, requests, cost_differs_usd, cost_apart_usd."""
        return [each for each in self._cost_differences() if each["factor"]]

    @property
    def unexplained_costs(self) -> list[dict[str, Any]]:
        """The same where no factor explains it."""
        return [each for each in self._cost_differences() if not each["factor"]]

    @property
    def clean(self) -> bool:
        return not (self.missing or self.unexplained or self.differing or self.unexplained_costs)

    def _cost_differences(self) -> list[dict[str, Any]]:
        by: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in self.rows:
            if row["side"] == "both" and not row["reason"]:
                by.setdefault((row["model"], row["version"]), []).append(row)
        found = []
        for (model, version), rows in by.items():
            other = sum(row["other_costs"] for row in rows)
            if not other:
                continue
            least = min(row["least_factor"] for row in rows if row["other_costs"])
            most = max(row["most_factor"] for row in rows)
            throughout = most - least < _FACTOR * most and other == sum(row["requests"] - row["unpriced"] for row in rows) > 1
            found.append(
                {
                    "model": model,
                    "version": version,
                    "requests": other,
                    "cost_differs_usd": sum(row["cost_differs_usd"] for row in rows),
                    "cost_apart_usd": sum(row["cost_apart_usd"] for row in rows),
                    "factor": round(most, 4) if throughout else None,
                }
            )
        return sorted(found, key=lambda each: -each["cost_apart_usd"])

    def as_dict(self) -> dict[str, Any]:
        return {
            "clean": self.clean,
            "both": self.count("both"),
            "missing": self.missing,
            "filled": self.filled,
            "pending": self.pending,
            "only_telemetry": self.count("telemetry"),
            "auxiliary": self.count("telemetry", "auxiliary"),
            "differing": self.differing,
            "cost_differs_usd": round(self.cost_differs_usd, 6),
            "cost_apart_usd": round(self.cost_apart_usd, 6),
            "unpriced": self.unpriced,
            "other_prices": self.other_prices,
            "unexplained_costs": self.unexplained_costs,
            "reasons": self.reasons,
            "sequence": {**self.numbers, "missing": self.gaps},
            "rows": self.rows,
            "transcripts": {
                "folders": self.found.folders,
                "files": self.read.files,
                "read": self.read.new,
                "bytes": self.read.size,
                **left_out(self.found, self.read),
            },
        }


def audit(
    client: Client,
    found: Found,
    read: Read,
    *,
    start: str,
    end: str,
    tz: str,
    session: str,
    loses: Callable[[str], bool],
    grace_s: int = GRACE_S,
    details: int = DETAILS,
) -> Audit:
    """Match, explain, and keep what was found for the coverage under reports. `client` may write.

    `start`, `end`: moments or days, empty for the last 30 days and no end; `loses`: whether a version of Claude Code is known to
    lose events; `grace_s`: what is younger may still be under way; `details`: how many requests
    each row names, 0: none. Raises ServerUnreachable, QueryFailed.
    """
    asked = {"from": start, "to": end, "tz": tz, "session": session}
    runner = Statements(client)
    sql = resources.path("telemetry-server/queries/audit.sql").read_text("utf-8")
    with ThreadPoolExecutor(2) as beside, linking(client, read):
        numbers, flawed = beside.submit(_numbers, client, asked), beside.submit(_flawed, client, loses)
        at = _matched(runner, asked, "findings")
        asked_of_it = {"session": session, "audited_at": at, "grace": grace_s, "flawed": flawed.result(), "details": details}
        rows = [_in_words(row) for row in client.query(sql, asked_of_it).records()]
        return Audit(rows, *numbers.result(), read, found)


def refresh(client: Client, tz: str) -> None:
    """Match the last 30 days, or those of which events are kept if these are fewer, unless nothing has changed, and count for the coverage
    under reports what stands where; nobody asks which requests these are, so none is written down."""
    runner = Statements(client)
    kept = kept_since(client)
    start = f"{kept:%Y-%m-%dT%H:%M:%SZ}" if kept and kept > datetime.now(UTC) - timedelta(LAST_DAYS + 2) else ""
    _matched(runner, {"from": start, "to": "", "tz": tz, "session": ""}, "counts")


def is_known(client: Client, session: str) -> bool:
    """Whether any transcript that was read or any event is of `session`."""
    tables = ("transcript_copies", "transcript_files", "telemetry_events")
    known = " OR ".join(f"{{session:String}} IN (SELECT session_id FROM telemetry.{table})" for table in tables)
    return bool(client.query(f"SELECT {known}", {"session": session}).rows[0][0])


def _in_words(row: dict[str, Any]) -> dict[str, Any]:
    """A row of queries/audit.sql with its tuples as dictionaries."""
    row |= {name: dict(zip(TOKENS, row[name], strict=True)) for name in _BOTH}
    row["filled"] = bool(row["filled"])
    row["details"] = [dict(zip(_DETAIL, detail, strict=True)) for detail in row["details"]]
    for detail in row["details"]:
        detail |= {name: dict(zip(TOKENS, detail[name], strict=True)) for name in _BOTH}
    return row


def _matched(runner: Statements, asked: Mapping[str, str], asked_for: str) -> str:
    """Match both sides, and count for the coverage under reports what stands where, unless the same was asked of the same state before.
    `asked_for`: findings, or only counts. Returns the name of the audit: its moment."""
    state = run_file(runner, "transcripts/state.sql", **asked).decode().strip()
    known = {"asked": json.dumps([asked_for, asked["from"], asked["to"], asked["tz"], asked["session"]]), "state": state}
    if at := run_file(runner, "transcripts/audited.sql", **known).decode().strip():
        return at
    at = f"{time.time_ns() / 1e9:.6f}"
    there = special(runner)
    if asked_for == "findings":
        runner.query(there.matched(*shipped("transcripts/match.sql"), asked_for), "TabSeparated", {**asked, "audited_at": at})
    if not asked["session"]:
        runner.query(there.matched(*shipped("transcripts/sessions.sql"), asked_for), "TabSeparated", {**asked, "audited_at": at})
    run_file(runner, "transcripts/remember.sql", **known, audited_at=at)
    return at


def _flawed(client: Client, loses: Callable[[str], bool]) -> str:
    versions = client.query("SELECT DISTINCT service_version FROM telemetry.transcript_copies").rows
    return ",".join(version for [version] in versions if loses(version))


def _numbers(client: Client, asked: Mapping[str, str]) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Events by their numbers (expected, received, gaps) and what stands in transcripts more than once; the ranges that are missing.

    The order of time tells of more gaps than coverage counts, which does without it for the sake of every report."""

    def ask(file: str, **more: Any) -> list[dict[str, Any]]:
        return client.query(resources.path(f"telemetry-server/{file}").read_text("utf-8"), {**asked, **more}).records()

    [coverage] = ask("queries/coverage.sql", user="", chapter="", feature="")
    [again] = ask("transcripts/replays.sql")
    missing = ask("transcripts/gaps.sql", details=DETAILS) if coverage["received"] else []
    gaps = max(coverage["gaps"], missing[0]["total"] if missing else 0)
    numbers = {"expected": coverage["received"] + gaps, "received": coverage["received"], "gaps": gaps}
    return numbers | again, [{name: each[name] for name in each if name != "total"} for each in missing]
