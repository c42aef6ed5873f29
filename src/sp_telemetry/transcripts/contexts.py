"""What a branch and a directory that stand in a transcript were for: by the rules of the hooks, with less to go by.

A transcript tells neither which files were touched nor what was configured then. Where the repository is still there, its own
`.claude/telemetry.toml` and spec directories count, as they are today.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from sp_telemetry.context import configfile, gitfiles, rules


def decide(pairs: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """For each (branch, directory) a row of telemetry.transcript_contexts. Directories begin with ~ where they are in a home."""
    return [_decide(branch, directory) for branch, directory in pairs]


def _decide(branch: str, directory: str) -> dict[str, Any]:
    place = os.path.expanduser(directory)
    repository = gitfiles.read(place) if os.path.isdir(place) else gitfiles.NONE
    top = repository.toplevel
    settings = configfile.read(top)[0] if top else {}
    decision = rules.decide(
        branch="" if branch == "HEAD" else branch,
        directory=gitfiles.relative(repository, place) if top else directory.replace("\\", "/").removeprefix("~/"),
        spec_directories=gitfiles.spec_directories(top, rules.spec_roots(settings)),
        config=settings,
    )
    found = [finding for finding in (decision.feature, decision.chapter) if finding.value]
    return {
        "branch": branch,
        "directory": directory,
        "project": rules.project_of(settings, repository.project).value,
        "feature": decision.feature.value,
        "chapter": decision.chapter.value,
        "part": decision.part.value,
        "feature_source": decision.feature.source,
        "chapter_source": decision.chapter.source,
        "confidence": min((finding.confidence for finding in found), default=0.0),
    }
