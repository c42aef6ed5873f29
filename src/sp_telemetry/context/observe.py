"""What holds here, and why: repository, configuration and rules put together, for a person who asks.

The hooks do the same with `gitfiles` and `configfile` and keep silent about a configuration that they can't follow. Here it is
checked in full, and each difference between what the hooks read and what git and `tomllib` read is named.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sp_telemetry.context import configfile, gitfiles, mentions, record, repository, rules
from sp_telemetry.errors import UsageError

HINT = "Patterns and keys: sp-telemetry context --help."


def _pattern(value: str) -> str:
    problem = rules.pattern_problem(value)
    if problem:
        raise ValueError(problem)
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Name = Annotated[str, Field(min_length=1, max_length=rules.LONGEST)]

Most = Field(max_length=rules.MOST_PATTERNS)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FeatureTable(_Table):
    branches: Annotated[list[Pattern], Most] | None = None
    specs: Annotated[list[Name], Most] | None = None
    trunks: Annotated[list[Name], Most] | None = None


class ChapterTable(_Table):
    paths: Annotated[list[Pattern], Most] | None = None
    branches: Annotated[list[Pattern], Most] | None = None


class StepTable(_Table):
    names: Annotated[list[Name], Most] | None = None
    aliases: dict[str, Name] | None = None


class Configuration(_Table):
    """`.claude/telemetry.toml`. A list that is given replaces the default list."""

    project: Name | None = None
    feature: FeatureTable | None = None
    chapter: ChapterTable | None = None
    step: StepTable | None = None


class Explained(NamedTuple):
    """One dimension: what holds, where that came from, and the rule or the reason."""

    dimension: str
    value: str
    source: str
    why: str


class Observation(NamedTuple):
    """A record as a hook would write it, its explanation, and what was read on the way."""

    record: record.ContextRecord
    explanation: list[Explained]
    repository: gitfiles.Repository
    configuration: Path | None
    notes: list[str]


def load_configuration(directory: str | os.PathLike[str]) -> tuple[dict[str, Any], Path | None]:
    """The checked configuration in `directory` and its file; ({}, None) where there is none. Raises UsageError naming the key."""
    file = Path(directory) / configfile.NAME
    try:
        parsed = tomllib.loads(file.read_bytes().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}, None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} can't be read: {error}.", "Mend it or move it away; hooks use the defaults until then.") from None
    try:
        Configuration.model_validate(parsed)
    except ValidationError as error:
        raise UsageError("; ".join(_sentence(file, problem) for problem in error.errors()) + ".", HINT) from None
    return parsed, file


def _sentence(file: Path, problem: Any) -> str:
    place = problem["loc"]
    key = ".".join(str(part) for part in place if isinstance(part, str))
    if problem["type"] == "extra_forbidden":
        table: Any = Configuration
        for part in place[:-1]:
            table = {"feature": FeatureTable, "chapter": ChapterTable, "step": StepTable}.get(part, table)
        return f"{file}: unknown key {key!r}; allowed are {', '.join(table.model_fields)}"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{file}: {key} is {problem['input']!r}; {text[:1].lower()}{text[1:]}"


def observe(
    cwd: str | os.PathLike[str] = "",
    *,
    branch: str | None = None,
    files: Sequence[str] = (),
    prompt: str = "",
    session_id: str = "",
    person: str = "",
    hook: str = "",
) -> Observation:
    """What holds in `cwd` (the process's own when empty), for these touched files; `branch` asks what another branch would say."""
    notes = []
    start = os.path.realpath(cwd or os.getcwd())
    quick = gitfiles.read(start)
    try:
        found = repository.read(start)
    except repository.GitUnavailable as error:
        found = quick
        notes.append(f"read from git's files only: {error}")
    if (quick.state, quick.branch, quick.project, quick.worktree) != (found.state, found.branch, found.project, found.worktree):
        notes.append(f"hooks read it otherwise: {quick.state} {quick.branch!r}, project {quick.project!r}, {quick.note or 'no reason'}")
    top = found.toplevel or start
    configuration, file = load_configuration(top)
    if file and configfile.read(top) != (configuration, ""):
        notes.append(f"hooks can't read {configfile.NAME} and use the defaults: {configfile.read(top)[1]}")
    asked = found if branch is None else found._replace(branch=branch, note="as asked")
    touched: list[Any] = [gitfiles.relative(found, name, start) for name in files]
    named = mentions.chapter(prompt, found, start, configuration, gitfiles=gitfiles, rules=rules)
    decision = rules.decide(
        branch=asked.branch,
        directory=gitfiles.relative(found, start),
        files=[*touched, (named, "prompt")] if named else touched,
        spec_directories=gitfiles.spec_directories(found.toplevel, rules.spec_roots(configuration)),
        prompt=prompt,
        config=configuration,
    )
    project = rules.project_of(configuration, found.project)
    made = record.make(session_id, hook, asked, decision, clean=rules.clean, project=project.value, person=rules.clean(person))
    return Observation(made, _explain(made, asked, decision, project, start), found, file, notes)


def _explain(made: Any, found: gitfiles.Repository, decision: rules.Decision, project: rules.Finding, start: str) -> list[Explained]:
    here = "" if found.state != "none" else found.note or "no git repository here"
    return [
        Explained("project", made.project, project.source, here or project.why),
        Explained("branch", made.branch, "HEAD" if made.branch else "", here or found.note or f"HEAD is at this {found.state}"),
        *(Explained(name, finding.value, finding.source, finding.why) for name, finding in decision._asdict().items()),
        Explained("directory", made.directory, "cwd" if made.directory else "", here or _place(found, start)),
        Explained("worktree", made.worktree, "git" if made.worktree else "", here or ("linked" if made.worktree else "the main one")),
        Explained("confidence", f"{made.confidence:.2f}", "", "the lowest of what matched" if made.confidence else "nothing matched"),
    ]


def _place(found: gitfiles.Repository, start: str) -> str:
    if not found.toplevel:
        return "a repository without a working tree"
    return "at the top" if os.path.samefile(start, found.toplevel) else f"below {os.path.basename(found.toplevel)}"
