"""What stands under a report, in words: how far to trust its figures."""

from __future__ import annotations

import textwrap
from datetime import timedelta
from typing import TYPE_CHECKING

from sp_telemetry.reports.figures import money, plain, printable

if TYPE_CHECKING:
    from sp_telemetry.reports.run import Result


def lines(result: Result, width: int) -> list[str]:
    """One line of facts, and one for each client version with a known fault; wrapped at `width` (0: not at all)."""
    facts, total = result.coverage, result.total
    parts = [counted(total[name], name[:-1]) for name in ("requests", "calls", "errors", "sessions") if total.get(name) is not None]
    share = plain(facts["unattributed_share"], "ratio").replace("%", " %")
    if not 0 <= facts["unattributed_share"] <= 1:  # of differences, which cancel
        share = money(facts["unattributed"])
    parts.append(f"{share} of {result.report.noun} unattributed")
    if plans := facts.get("plans"):
        names = ", ".join(sorted({plan if plan.isalnum() else "other" for plan in plans}))
        parts.append(f"{money(facts['under_plan'])} of it under a plan ({names}), at list prices")
    if facts["unpriced_requests"]:
        parts.append(f"{counted(facts['unpriced_requests'], 'request')} unpriced, {facts['unpriced_tokens']:,} tokens")
    elif facts["unpriced_requests"] is not None:
        parts.append("0 unpriced")
    parts.append(f"gaps in event.sequence: {facts['gaps']:,} of {facts['expected']:,}")
    if facts.get("audited_sessions"):
        missing = f"{facts['missing_requests']:,} of {facts['audited_requests']:,} requests missing"
        parts.append(f"{missing} by the audit of {facts['audited_at'][:10]}")
    elif facts.get("audited_sessions") == 0:
        parts.append("not audited")
    if facts.get("filled_requests"):
        parts.append(f"{counted(facts['filled_requests'], 'request')} filled in from transcripts")
    if since := facts["events_since"]:
        summed = result.report.sums and "session" not in (*result.parameters.by, *result.parameters.filters)
        how = "by sums of hours" if summed else "no longer kept in full"
        parts.append(f"events before {since[:10]} {since[11:16]} {how}")
    parts.append(f"source: {result.report.source}, {_range(result)} ({result.parameters.zone})")
    sentences = [" · ".join(parts)]
    if facts["chunked_versions"]:
        versions = ", ".join(map(printable, facts["chunked_versions"]))
        sentences.append(f"Sent by Claude Code {versions}: some receivers lose requests of 2.1.191 to 2.1.211, which send them chunked.")
    if not width:
        return sentences
    return [line for sentence in sentences for line in textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False)]


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _range(result: Result) -> str:
    """The days of the range; with the times where it does not begin and end at midnight. An open end is today."""
    start, end = result.parameters.start, result.parameters.end
    if f"{start:%H%M}" != "0000" or (end and f"{end:%H%M}" != "0000"):
        return f"{start:%Y-%m-%d %H:%M} to " + (f"{end:%Y-%m-%d %H:%M}" if end else "now")
    return f"{start:%Y-%m-%d} to " + (f"{end - timedelta(days=1):%Y-%m-%d}" if end else "now")
