"""Names that hooks write down, while nobody listens and after: no token that stands in one is anywhere, in any form."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
import time
from types import ModuleType

import pytest

from sp_telemetry.privacy import names
from sp_telemetry.privacy.keys import KEYS
from sp_telemetry.privacy.patterns import PATTERNS
from tests.client import OtlpRecorder
from tests.conftest import ROOT
from tests.secrets_search import files, search
from tests.store.examples import example
from tests.unit.test_hooks import NOBODY, Session, book, git, otlp, records, session
from tests.unit.test_own_rules import ORDINARY

__all__ = ["otlp", "session"]  # fixtures
pytestmark = [pytest.mark.checkout, pytest.mark.needs("sh", "git")]

SAFE = re.compile(r"[A-Za-z0-9._+=@-]+")  # what a branch and a directory can be named


def load(name: str) -> ModuleType:
    """A module of hooks/lib, with the siblings that it imports taken away again."""
    before, path = set(sys.modules), sys.path[:]
    sys.path[:0] = [str(ROOT / "hooks" / "lib"), str(ROOT / "src" / "sp_telemetry" / "context")]
    try:
        spec = importlib.util.spec_from_file_location(f"hooks_{name}", ROOT / "hooks" / "lib" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path[:] = path
        for added in {"marks", "places", "quickjson", "rules"} - before:
            sys.modules.pop(added, None)


def tokens(number: int) -> list[tuple[str, str]]:
    """(provider, key) of each provider whose keys can stand in a name; other ones for each `number`."""
    chance = random.Random(number)
    made = [(key.provider, example(key.regex, chance, more=12).strip()) for key in KEYS]
    return [(provider, key) for provider, key in made if SAFE.fullmatch(key) and ".." not in key and not key.endswith(".")]


def telling(key: str) -> str:
    """The part of a key that its provider does not promise."""
    return key[-max(10, len(key) // 2) :]


def test_what_the_hooks_carry_is_made_from_the_patterns() -> None:
    assert (ROOT / "hooks" / "lib" / "marks.py").read_text() == names.render()


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_each_text_that_a_pattern_matches_holds_what_it_needs(pattern) -> None:
    groups, least, chance = names.needs(pattern.regex), names.least(pattern.regex), random.Random(pattern.name)
    assert groups and least > 3, "each name would have to be matched against it"
    for text in (*pattern.like, *(example(pattern.regex, chance, more=8) for _ in range(100))):
        found = re.search(pattern.regex, text)
        assert found is None or (len(text) >= least and all(any(one in names.fold(text) for one in group) for group in groups)), text


def test_usual_names_are_not_even_compared() -> None:
    """Which is what keeps a hook fast: none of them imports `re`."""
    module = load("names")
    module._replaced = lambda *_: pytest.fail("compared")
    redaction = module.Redaction("")
    for name in ("017-usage-data-collection", "manuscript/05-part/33-agents", "feature/ABC-123-sign-in", "v2.1.330",
                 "chapter-33", "specs/017-usage-data-collection", "ein Büch lein", "Ada Lövelace"):  # fmt: skip
        assert redaction.clean(name) == name
    assert redaction.person("ada@example.org") == "ada@example.org"


def test_a_name_is_cut_behind_its_redaction() -> None:
    clean = load("names").Redaction("").clean
    key = "AKIA" + "Q7" * 8
    for before in range(170, 201):
        assert "AKIA" not in clean("x" * before + "-" + key + "-y" * 200)
    assert len(clean("x" * 5000)) == 200


def test_patterns_of_the_installations_own_count(session: Session, otlp: OtlpRecorder) -> None:
    session.home.mkdir()
    (session.home / "privacy.toml").write_text(
        "[patterns.ticket]\nregex = 'ACME-[0-9]{4,}'\n[patterns.broken]\nregex = '('\n[patterns.all]\nregex = 'x*'\n"
        f"[patterns.many]\nregex = 'x{{99999999999}}'\n[patterns.deep]\nregex = '{'(' * 900}x{')' * 900}'\n"
    )
    git(session.cwd, "switch", "-qc", "017-ACME-12345-x")
    session.start()
    assert [one["branch"] for one in records(otlp, 1)] == ["017-<ticket>-x"]


def test_patterns_that_are_not_refused_take_no_hook_its_time() -> None:
    """`re` goes back where it fails, and the engine does not: on ordinary names and on the longest that repeat themselves."""
    module, before = load("names"), time.process_time()
    for regex in ORDINARY:
        for name in ("017-usage-data-collection-of-agents", *((one * 255)[:255] for one in ("a", "0", "A1", "a-", "a/b.", "foo "))):
            module._replaced(regex, "<mine>", "", name)
    assert time.process_time() - before < 0.25 * len(ORDINARY)


def plant(session: Session, five: list[tuple[str, str]]) -> dict[str, str]:
    """A repository with a key in each kind of name, and a session that comes across each of them. Returns the keys."""
    kinds = ("branch", "folder", "part", "chapter", "file")
    key = dict(zip(kinds, (key for _, key in five), strict=True))
    session.cwd = book(session.scratch / f"a-{key['folder']}-b" / "book", f"017-{key['branch']}-x")
    chapter = session.cwd / f"05-{key['part']}" / f"33-{key['chapter']}"
    chapter.mkdir(parents=True)
    session.start()
    session.edit(chapter / f"{key['file']}.md")
    session.hook("bash", tool_name="Bash")
    session.hook("prompt", prompt=f"/plan 05-{key['part']}/33-{key['chapter']}/")
    session.hook("cwd", cwd=str(chapter))
    session.edit(chapter / f"{key['file']}.md", cwd=str(session.cwd), agent_id="a1")
    git(session.cwd, "switch", "-qc", f"018-{key['branch']}-y")
    session.hook("bash", tool_name="Bash")
    return {f"{provider} as {kind}": telling(one) for (provider, one), kind in zip(five, kinds, strict=True)}


def test_no_token_in_a_name_is_on_the_disk(session: Session, otlp: OtlpRecorder) -> None:
    """Each provider's, in one kind of name or another, while records wait; then what is sent of it, and what lies there afterwards."""
    there, session.port = session.port, NOBODY
    every = tokens(1)
    assert len(every) > 80
    planted: dict[str, str] = {}
    for number, first in enumerate(range(0, len(every) - 4, 5)):
        of = Session(
            session.scratch / str(number), session.cwd, NOBODY, id=f"session-{number}", more={"SP_TELEMETRY_HOME": str(session.home)}
        )
        of.scratch.mkdir()
        planted |= plant(of, every[first : first + 5])
    waiting = session.spooled()
    assert len(waiting) > 4 * len(every) // 5 and {"<" in one["branch"] + one["chapter"] for one in waiting} == {True}
    places = [session.home, *session.scratch.glob("*/plugin data")]
    assert search(planted, list(files(*places))) == []
    session.port = there
    session.start()
    while session.spooled():
        session.hook("prompt", prompt="go on")
    assert len(records(otlp, len(waiting) + 1)) > len(waiting)
    assert search(planted, [*files(*places), ("what was sent", b"".join(request.body for request in otlp.requests))]) == []


def test_no_token_of_a_configuration_or_person_is_on_the_disk(session: Session) -> None:
    keys = [key for _, key in tokens(2)][:4]
    session.port = NOBODY
    session.more["SP_TELEMETRY_PERSON"] = f"Ada {keys[0]}"
    (session.cwd / ".claude").mkdir()
    (session.cwd / ".claude" / "telemetry.toml").write_text(
        f'project = "book-{keys[1]}"\n[step]\nnames = ["plan"]\n[step.aliases]\n"draft" = "draft-{keys[2]}"\n'
    )
    git(session.cwd, "worktree", "add", "-qb", "018-x", str(session.scratch / keys[3]))
    session.start()
    session.hook("prompt", prompt="/draft it")
    session.hook("edit", tool_name="EnterWorktree", tool_input={}, cwd=str(session.scratch / keys[3]))
    assert [bool(one["step"]) for one in session.spooled()] == [False, True, True]
    assert search({key: telling(key) for key in keys}, list(files(session.home, session.data))) == []


def test_a_directory_that_may_not_be_written_down_costs_a_subagents_calls_alone(session: Session, otlp: OtlpRecorder) -> None:
    token = tokens(3)[0][1]
    session.cwd = book(session.scratch / token)
    session.start()
    session.edit(session.cwd / "manuscript/05-part/33-agents/text.md", agent_id="a1")
    session.edit(session.cwd / "manuscript/05-part/34-costs/text.md")
    assert [one["chapter"] for one in records(otlp, 2)] == ["", "34-costs"]
    state = json.loads((session.home / "hooks" / f"{session.id}.json").read_text())
    assert state["directory"] == "" and "text.md" not in json.dumps(state)
