"""What is special about the requests there are, for most often nothing is: the statements then go without what looks for it, which the
engine would plan for half a second to find nothing. The question is telemetry-server/transcripts/special.sql."""

from __future__ import annotations

from dataclasses import dataclass

from sp_telemetry.resources import only
from sp_telemetry.store.schema import Runner, run_file, shipped


@dataclass(frozen=True)
class Special:
    """`several`: some requests were billed for several attempts; `pairs`: some have no id of their own to be paired by; `events`: telemetry
    knows of any request."""

    several: bool
    pairs: bool
    events: bool

    def matched(self, statement: str, asked_for: str) -> str:
        """`statement` over what transcripts/matched.sql matches, for `findings` or `counts`: without what is not so or not asked for, which
        stands between `/* if … */` and `/* end */`."""
        [matched] = shipped("transcripts/matched.sql")
        parts = {**vars(self), "silence": not self.events, "findings": asked_for == "findings", "counts": asked_for == "counts"}
        return only(only(statement, **parts).replace("{matched}", matched), **parts)


def special(runner: Runner) -> Special:
    """Ask the store. Raises ServerUnreachable, QueryFailed."""
    return Special(*(each == "1" for each in run_file(runner, "transcripts/special.sql").decode().split()))
