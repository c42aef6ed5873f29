"""An audit as a person reads it: one line that says it all, then what is behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sp_telemetry.transcripts.audit import PENDING, Audit
from sp_telemetry.transcripts.reading import left_out

SHOWN = 5
WHY = {
    "auxiliary": "titles, summaries and the like: no transcript holds them",
    "of an unknown kind": "their query_source is a word that this version does not know; no transcript holds them",
    "transcript deleted": "no transcript of the session is here (any more)",
    "transcript unreadable": "lines of the session's transcript could not be read",
    "telemetry off then": "no event of that prompt arrived, and the server ran, or there was none yet; of a session that was resumed it may"
    " be Claude Code's: https://github.com/anthropics/claude-code/issues/89406",
    "on Microsoft Foundry": "no version tells of requests there: https://github.com/anthropics/claude-code/issues/55984",
    "server down then": "the server did not run",
    "sequence gap": "events are missing between those that arrived",
    "interrupted": "the answer was broken off, or Claude Code ended, before it told of it",
    "last events lost": "nothing of that run of Claude Code arrived after it: killed, say",
    "version known to misreport": "that version of Claude Code is known to lose events",
    "not yet exported": "less than a minute old",
    "not yet written": "less than a minute old",
    "unknown": "no reason was found",
    "billed for several attempts": "the transcript has more attempts than the event tells of",
    "last line not written": "the transcript ends within the answer",
    "tokens differ": "no reason was found",
    "models differ": "the event names another model than the transcript, not only by another name of it",
}


def text(audit: Audit) -> str:
    """The whole answer; several lines without a newline at the end."""
    lines = [line(audit)]
    for side, title in (("transcript", "only in transcripts"), ("telemetry", "only in telemetry"), ("both", "in both, and different")):
        for reason, requests in audit.reasons[side].items():
            lines.append(f"{title}: {requests:,} {reason} ({WHY.get(reason, reason)}){_sessions(audit, side, reason)}")
    for other in audit.other_prices:
        lines.append(
            f"cost: Claude Code {other['version']} counts {other['model']} at {other['factor']:g} times the price list"
            f" ({_requests(other['requests'])}, {_dollars(other['cost_differs_usd'])})"
        )
    for other in audit.unexplained_costs:
        lines.append(
            f"cost: of {other['model']}, Claude Code {other['version']}, {_requests(other['requests'])} cost"
            f" {_dollars(other['cost_apart_usd'])} more or less than their tokens at the price list"
        )
    numbers = audit.numbers
    lines.append(f"events: {numbers['gaps']:,} of {numbers['expected']:,} numbers missing (event.sequence)")
    lines += [f"  {_gap(gap)}" for gap in audit.gaps[:SHOWN]]
    if len(audit.gaps) > SHOWN:
        lines.append(f"  and {len(audit.gaps) - SHOWN:,} more: --json names them")
    if numbers["replayed_requests"] or numbers["repeated_lines"]:
        lines.append(
            f"replays: {_requests(numbers['replayed_requests'])} in several transcripts, {numbers['repeated_lines']:,} lines repeated;"
            " counted once"
        )
    lines += [_files(audit), *unread(left_out(audit.found, audit.read))]
    if audit.missing:
        lines.append("`sp-telemetry backfill` fills what is missing.")
    return "\n".join(lines)


def line(audit: Audit) -> str:
    """`2,318 of 2,318 requests in both · 12 auxiliary only in telemetry · 0 missing · cost differs by $0.00`"""
    both = audit.count("both")
    parts = [f"{both:,} of {both + audit.count('transcript'):,} requests in both"]
    for reason, requests in audit.reasons["telemetry"].items():
        parts.append(f"{requests:,} {reason} only in telemetry")
    if audit.filled:
        parts.append(f"{audit.filled:,} filled in from transcripts")
    pending = audit.count("transcript", *PENDING, filled=False)
    if pending:
        parts.append(f"{pending:,} not yet exported")
    parts.append(f"{audit.missing:,} missing")
    other_model = audit.count("both", "models differ")
    if audit.differing > other_model:
        parts.append(f"{audit.differing - other_model:,} with other tokens")
    if other_model:
        parts.append(f"{other_model:,} with another model")
    in_sum, apart = audit.cost_differs_usd, audit.cost_apart_usd
    more = f" in sum, by {_dollars(apart)} request by request" if apart - abs(in_sum) >= 0.005 else ""
    parts.append(f"cost differs by {_dollars(in_sum)}{more}")
    if audit.unpriced:
        parts.append(f"{audit.unpriced:,} unpriced, their cost not compared")
    return " · ".join(parts)


def _sessions(audit: Audit, side: str, reason: str) -> str:
    """Where they are: the sessions with the most of them, and from when to when."""
    rows = [row for row in audit.rows if (row["side"], row["reason"], row["filled"]) == (side, reason, False)]
    if reason in ("auxiliary", *PENDING):
        return ""
    by: dict[str, int] = {}
    for row in rows:
        by[row["session_id"]] = by.get(row["session_id"], 0) + row["requests"]
    most = sorted(by, key=lambda session: -by[session])[:SHOWN]
    first, last = min(row["first_at"] for row in rows), max(row["last_at"] for row in rows)
    more = f" and {len(by) - SHOWN} more" if len(by) > SHOWN else ""
    when = " to ".join(dict.fromkeys((_minute(first), _minute(last))))
    return f"\n  {when} UTC, session{'' if len(by) == 1 else 's'} {', '.join(most)}{more}"


def _gap(gap: dict[str, Any]) -> str:
    """`session …, process 2: 14 to 15, between 10:03:01 and 10:03:09 UTC on 2026-11-16`"""
    numbers = f"{gap['first']:,}" if gap["first"] == gap["last"] else f"{gap['first']:,} to {gap['last']:,}"
    process = f", process {gap['process']}" if gap["process"] else ""
    begun = f"between {_second(gap['after'])} and" if gap["after"] else "before"
    return f"session {gap['session_id']}{process}: {numbers}, {begun} {_second(gap['before'])} UTC"


def unread(left_out: Mapping[str, Any]) -> list[str]:
    """What of the transcripts could not be read (reading.left_out), a line each."""
    broken = ", ".join(f"{number:,} {what}" for what, number in left_out["lines_left_out"].items() if number)
    return [*([f"lines left out: {broken}"] if broken else []), *(f"not read: {_short(path)} {why}" for path, why in left_out["not_read"])]


def _files(audit: Audit) -> str:
    read = audit.read
    folders = ", ".join(map(_short, audit.found.folders)) or "no folder of Claude Code"
    news = f"{read.new:,} new or changed ({read.size / 1e6:,.1f} MB)" if read.new else "none new or changed"
    return f"transcripts: {read.files:,} in {folders}, {news}"


def _requests(number: int) -> str:
    return f"{number:,} request" + ("" if number == 1 else "s")


def _dollars(amount: float) -> str:
    return f"{'-' if amount <= -0.005 else ''}${abs(amount):,.2f}"


def _minute(moment: str) -> str:
    return datetime.fromisoformat(str(moment)[:19]).strftime("%Y-%m-%d %H:%M")


def _second(moment: str) -> str:
    return str(moment)[:19]


def _short(path: str) -> str:
    """The person's own home as ~, and nothing that could steer a terminal."""
    home = os.path.expanduser("~")
    path = "~" + path[len(home) :] if path.startswith(home + os.sep) else path
    return "".join(char if char.isprintable() else "�" for char in path)
