"""What stands under a report, in words: how far to trust its figures."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from sp_telemetry.reports.figures import plain

if TYPE_CHECKING:
    from sp_telemetry.reports.run import Result


def lines(result: Result, width: int) -> list[str]:
    """One sentence of facts, wrapped at `width` (0: not at all), and one for each thing that needs to be known beside."""
    facts = result.coverage
    parts = [counted(facts["requests"], "request"), counted(facts["sessions"], "session")]
    whole = result.total.get("cost_usd")
    share = facts["unattributed_usd"] / whole if whole else 0
    parts.append(f"{plain(share, 'ratio')} of cost unattributed")
    if facts["unpriced_requests"]:
        parts.append(f"{counted(facts['unpriced_requests'], 'request')} unpriced, {facts['unpriced_tokens']:,} tokens")
    else:
        parts.append("0 unpriced")
    if "expected" in facts:
        parts.append(f"gaps in event.sequence: {facts['gaps']:,} of {facts['expected']:,}")
    end = result.parameters.end
    until = f"{end:%Y-%m-%d}" if end else "now"
    parts.append(f"source: {result.report.source}, {result.parameters.start:%Y-%m-%d} to {until} ({result.parameters.zone})")
    sentences = [" · ".join(parts)]
    if not width:
        return sentences
    return [line for sentence in sentences for line in textwrap.wrap(sentence, width, break_long_words=False, break_on_hyphens=False)]


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
