"""Which chapter a prompt names: one that is there, and the only one; and that no word of the prompt comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_telemetry.context import gitfiles, mentions, rules
from sp_telemetry.context.observe import observe
from tests.unit.strategies_git import git

C33, C34, C3 = "book/05-part/33-agents/", "book/05-part/34-costs/", "book/01-part/03-start/"
CHAPTERS = (C33, C34, C3, "book/02-part/12-one/", "book/03-part/12-two/", "notes/chapters/41-privacy.md", "chapter-7/")


@pytest.fixture(scope="module", autouse=True)
def no_hurry():
    """A prompt may wait a twentieth of a second for us; a busy machine takes longer, and this is about what is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mentions, "MOST_S", 60)
        yield


def test_a_search_that_takes_long_finds_nothing(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mentions, "MOST_S", -1)
    assert named(book, "chapter 33") == ""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("ein Buch")
    git(top, "init", "-qb", "main")
    others = ("specs/017-usage/05-x/35-y/a.md", "node_modules/05-part/36-z/a.md", ".hidden/05-part/37-z/a.md", "README.md")
    for path in (*others, *(chapter if chapter.endswith(".md") else chapter + "text.md" for chapter in CHAPTERS)):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text("x\n")
    return top


def named(book: Path, prompt: object, directory: str = "") -> str:
    repository = gitfiles.read(str(book))
    return mentions.chapter(prompt, repository, str(book / directory), {}, gitfiles=gitfiles, rules=rules)


@pytest.mark.parametrize(
    ("prompt", "path"),
    [
        ("Shorten the introduction of chapter 33.", C33), ("Chapter 34's table", C34), ("see (ch. 34)!", C34), ("fix ch 33", C33),
        ("ch34 please", C34), ("chapter-34: days", C34), ("/speckit.implement chapter 33", C33), ("chapter 3 and nothing else", C3),
        ("chapter 03", C3), ("chapter 7", "chapter-7/"), ("in chapter 41", "notes/chapters/41-privacy.md"), ("34-costs is late", C34),
        ("look into 33-agents/text.md", C33), ("@book/05-part/34-costs/text.md is wrong", "book/05-part/34-costs/text.md"),
        ("@book/05-part/34-costs/", C34), ("chapters/41-privacy.md", "notes/chapters/41-privacy.md"), ("ch. 33, then rest", C33),
        ("chapter 33 in @book/05-part/33-agents/text.md", "book/05-part/33-agents/text.md"), ("»chapter 33«", C33),
    ],
)  # fmt: skip
def test_a_chapter_that_is_there(book: Path, prompt: str, path: str) -> None:
    assert named(book, prompt) == path


@pytest.mark.parametrize(
    "prompt",
    [
        "", None, 5, "go on", "chapter 99", "chapter 12", "chapter 35", "chapter 36", "chapter 37", "chapter thirty-three", "33", "34 days",
        "chapters 33 and 34", "chapter 33 and 34", "chapter 33, 34", "chapter 33-34", "chapters 33 to 34", "ch. 33 or ch. 34",
        "chapter 33 \u2013 34",
        "compare @book/05-part/33-agents/text.md with chapter 34", "chapter", "chapter 3334", "chapter 33rd", "the 017-usage feature",
        "/etc/passwd", "../../33-agents-not", "README.md", "@README.md", "33-agentsx", "x" * 3000 + " chapter 33", "chapter \u0663\u0663",
    ],
)  # fmt: skip
def test_none_several_or_one_that_is_not_there(book: Path, prompt: object) -> None:
    assert named(book, prompt) == ""


def test_from_a_directory_below(book: Path) -> None:
    assert named(book, "@text.md", "book/05-part/33-agents") == ""  # the directory says it already
    assert named(book, "@./text.md", "book/05-part/33-agents") == C33 + "text.md"
    assert named(book, "@../34-costs/text.md", "book/05-part/33-agents") == C34 + "text.md"


@given(st.text(max_size=60) | st.text(alphabet="chapter 0123456789,-/.@and", max_size=60))
def test_nothing_but_a_path_that_exists_comes_out(text: str) -> None:
    known = list(CHAPTERS)

    def chapter_of(path: str) -> object:
        found = rules.decide(files=[(path, "prompt")])
        return found.chapter.value and (found.part.value, found.chapter.value)

    assert mentions.named(text, lambda path: "", lambda: known, chapter_of) in ("", *known)


def test_a_repository_too_large_to_look_through_names_nothing(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mentions, "MOST_ENTRIES", 10)
    assert named(book, "chapter 33") == ""


def test_what_was_named_is_weaker_than_an_edit_after_it_and_stronger_than_the_directory() -> None:
    decided = rules.decide("chapter-41-x", "book/01-part/03-start", [(C34, "prompt")]).chapter
    assert decided[:3] == ("34-costs", "prompt", 0.5)
    assert rules.decide(files=[(C34, "prompt"), C33 + "text.md"]).chapter[:2] == ("33-agents", "file")
    assert rules.decide(files=[C33 + "text.md", [C34, "prompt"]]).chapter[:2] == ("34-costs", "prompt")
    assert rules.decide(files=[("specs/017-usage/x/", "prompt")]).feature.value == ""


def test_the_command_line_says_the_same(book: Path) -> None:
    seen = observe(book, prompt="/speckit.plan chapter 34")
    assert seen.record[5:8] == ("34-costs", "05-part", "plan") and seen.record.chapter_source == "prompt"
