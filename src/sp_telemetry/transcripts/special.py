"""What is special about the requests there are, for most often nothing is: the statements then go without what looks for it, which the
engine would plan for half a second to find nothing. The question is telemetry-server/transcripts/special.sql."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sp_telemetry.store.schema import Runner, run_file


@dataclass(frozen=True)
class Special:
    """`several`: some requests were billed for several attempts; `pairs`: some have no id of their own to be paired by."""

    several: bool
    pairs: bool

    def only(self, statement: str) -> str:
        """`statement` without its parts between `/* if … */` and `/* end */` of which there is none."""
        for part, is_there in vars(self).items():
            if not is_there:
                statement = re.sub(rf"/\* if {part} \*/.*?/\* end \*/", "", statement, flags=re.DOTALL)
        return statement


def special(runner: Runner) -> Special:
    """Ask the store. Raises ServerUnreachable, QueryFailed."""
    return Special(*(each == "1" for each in run_file(runner, "transcripts/special.sql").decode().split()))
