"""The configuration file, what a person is told holds here, and the command that tells it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_telemetry.cli import context as cli
from sp_telemetry.context import configfile, gitfiles, observe, repository
from sp_telemetry.errors import UsageError
from tests.unit import strategies_git as made


@pytest.fixture(autouse=True)
def _no_git_of_this_machine(monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


@pytest.fixture
def book(tmp_path):
    top = made.repository(Path(os.path.realpath(tmp_path)) / "my book", "ada/017-usage-data-collection")
    (top / "specs" / "017-usage-data-collection").mkdir(parents=True)
    (top / "book" / "05-part" / "33-agent-telemetry").mkdir(parents=True)
    return top


def configure(top: Path, text: str) -> None:
    (top / ".claude").mkdir(exist_ok=True)
    (top / ".claude" / "telemetry.toml").write_text(text, encoding="utf-8")


def command(*args: str) -> int:
    parser = argparse.ArgumentParser(epilog=cli.EPILOG)
    cli.configure(parser)
    return cli.run(parser.parse_args(args))


def test_what_holds_in_a_chapter(book):
    seen = observe.observe(book / "book" / "05-part" / "33-agent-telemetry", prompt="/plan it")
    held = seen.record
    assert (held.project, held.branch, held.feature) == ("my book", "ada/017-usage-data-collection", "017-usage-data-collection")
    assert (held.chapter, held.part, held.step) == ("33-agent-telemetry", "05-part", "plan")
    assert (held.chapter_source, held.feature_source, held.confidence) == ("cwd", "branch", 0.8)
    assert held.spec_directory == "specs/017-usage-data-collection"
    assert (seen.configuration, seen.notes) == (None, [])
    assert {row.dimension: row.value for row in seen.explanation}["chapter"] == "33-agent-telemetry"
    assert all(row.why for row in seen.explanation)


def test_a_touched_file_and_another_branch(book):
    seen = observe.observe(book, branch="main", files=["chapters/34-b/x.md", str(book / "chapters/35-c/x.md"), "/elsewhere/x.md"])
    assert (seen.record.chapter, seen.record.chapter_source, seen.record.feature) == ("35-c", "file", "")


def test_a_plain_directory_has_chapters_too(tmp_path):
    (tmp_path / "05-part" / "33-a").mkdir(parents=True)
    seen = observe.observe(tmp_path / "05-part" / "33-a")
    assert (seen.record.chapter, seen.record.project, seen.record.branch, seen.record.directory) == ("33-a", "", "", "")
    assert seen.repository.state == "none"


def test_the_configuration_decides(book):
    configure(book, 'project = "Das Buch" # ours\n[chapter]\npaths = [\n  "{chapter:any}/**", # top\n]\n')
    seen = observe.observe(book / "book")
    assert (seen.record.project, seen.record.chapter, seen.notes) == ("Das Buch", "book", [])
    assert seen.configuration == book / ".claude" / "telemetry.toml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[feature]\nbranches = [1]", ["feature.branches", "is 1", "string"]),
        ('[feature]\nbranches = "x"', ["feature.branches", "'x'", "list"]),
        ('[feature]\nbranch = ["x"]', ["unknown key 'feature.branch'", "branches, specs, trunks"]),
        ("colour = 'red'", ["unknown key 'colour'", "project, feature, chapter, step"]),
        ('[chapter]\npaths = ["{chapter}{part}"]', ["chapter.paths", "{chapter}{part}", "more than one hole"]),
        ("project = ", ["can't be read", "Invalid value"]),
        ('project = ""', ["project", "''", "at least 1 character"]),
    ],
)
def test_a_wrong_configuration_is_named(book, text, words):
    configure(book, text)
    with pytest.raises(UsageError) as raised:
        observe.observe(book)
    assert raised.value.hint
    for word in [*words, "telemetry.toml"]:
        assert word in str(raised.value)


def test_a_file_that_hooks_cannot_read_is_told(book):
    configure(book, 'project = """the\nbook"""')
    assert "hooks can't read" in observe.observe(book).notes[0]


def test_a_difference_between_the_two_readings_is_told(book, monkeypatch):
    monkeypatch.setattr(gitfiles, "read", lambda *_: gitfiles.NONE._replace(state="unknown", note="reftable"))
    assert "hooks read it otherwise" in observe.observe(book).notes[0]


def test_without_git_its_files_are_read(book, monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    seen = observe.observe(book)
    assert seen.record.feature == "017-usage-data-collection"
    assert "not on PATH" in seen.notes[0]


def test_somebody_elses_repository(book, monkeypatch):
    monkeypatch.setattr(repository._Asker, "__call__", refuse)
    assert "safe.directory" in observe.observe(book).notes[0]


def refuse(*_):
    raise repository.GitUnavailable("the repository belongs to somebody else (git's safe.directory)")


def test_the_command_shows_a_table(book, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert command("--cwd", str(book)) == 0
    shown = capsys.readouterr().out
    assert "017-usage-data-collection" in shown and "source" in shown and "the defaults hold" in shown
    assert "\x1b" not in shown


def test_the_command_prints_json(book, capsys):
    assert command("--cwd", str(book), "--branch", "chapter/33-a", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["context"]["chapter"] == "33-a"
    assert shown["state"] == "branch"
    assert set(shown["explanation"][0]) == {"dimension", "value", "source", "why"}
    assert "session_id" not in shown["context"]


def test_the_command_names_a_wrong_directory():
    with pytest.raises(UsageError, match="--cwd is '/nowhere/at/all'"):
        command("--cwd", "/nowhere/at/all")


def test_the_help_holds_a_configuration_that_is_right(book):
    start = cli.EPILOG.index('  project = "my-book"')
    text = cli.EPILOG[start:cli.EPILOG.index("In a pattern")].replace("\n  ", "\n").strip()
    configure(book, text)
    assert observe.observe(book).notes == []
    assert configfile.read(str(book)) == (tomllib.loads(text), "")


@pytest.mark.parametrize(
    "text",
    ["a = 1", "a = true", "a = {}", "[[a]]", "a.b = 'x'", "a = '''x'''", "a = [['x']]", "a = 'x' 'y'", "a = ['x'", "a", "[a",
     "a = 'x'\na = 'y'", "[a]\n[a]", "a = \"\\u00e9\"", "= 'x'", "[]", "a = 'x'\n[a]", "a = ['x' 'y']", "a = [,]"],
)  # fmt: skip
def test_what_the_small_reader_does_not_know_it_refuses(text):
    with pytest.raises(ValueError, match="line"):
        configfile.parse(text)


def test_unreadable_configurations(tmp_path):
    assert configfile.read(str(tmp_path)) == ({}, "")
    configure(tmp_path, "#" * 70_000)
    assert configfile.read(str(tmp_path)) == ({}, "larger than 64 KiB")
    (tmp_path / ".claude" / "telemetry.toml").write_bytes(b"\xff")
    assert configfile.read(str(tmp_path))[1]
    assert configfile.read("\0")[1]


PIECES = ["a", "b", '"c d"', "[", "]", "=", ",", ".", "#", "'x'", '"y"', '"\\n"', "'", '"', "\\", " ", "\t", "\n", "\r\n", "ü", "\x00", "1"]


@given(text=st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=20).map("".join)))
def test_the_small_reader_never_reads_it_otherwise_than_tomllib(text):
    try:
        small = configfile.parse(text)
    except ValueError:
        return
    with contextlib.suppress(tomllib.TOMLDecodeError):  # `sp-telemetry context` names what is wrong with it
        assert small == tomllib.loads(text)
