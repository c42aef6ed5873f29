"""What the hooks read from git's files: every state a repository can be in, held against git's own word."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from sp_telemetry.context import gitfiles, repository
from tests.unit import strategies_git as made
from tests.unit.strategies_git import git


@pytest.fixture(autouse=True)
def _no_git_of_this_machine(monkeypatch):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def home(tmp_path):
    return Path(os.path.realpath(tmp_path))


def agreed(where: Path) -> gitfiles.Repository:
    quick, thorough = gitfiles.read(str(where)), repository.read(where)
    assert quick._replace(note="") == thorough._replace(note="")
    return quick


def test_a_branch_with_commits(home):
    top = made.repository(home / "my book", "017-usage-data-collection")
    (top / "a" / "ü").mkdir(parents=True)
    seen = agreed(top / "a" / "ü")
    assert (seen.state, seen.branch, seen.toplevel, seen.directory) == ("branch", "017-usage-data-collection", str(top), "a/ü")
    assert (seen.project, seen.worktree) == ("my book", "")


def test_an_unborn_branch(home):
    assert agreed(made.repository(home / "book", "017-x", commit=False))[:2] == ("unborn", "017-x")


def test_a_packed_branch_is_born(home):
    top = made.repository(home / "book", "ada/017-x")
    git(top, "pack-refs", "--all")
    assert agreed(top)[:2] == ("branch", "ada/017-x")


def test_a_huge_packed_refs_is_not_read(home, monkeypatch):
    top = made.repository(home / "book", "017-x")
    git(top, "pack-refs", "--all")
    monkeypatch.setattr(gitfiles, "_MOST_PACKED", 10)
    assert agreed(top).state == "branch"


def test_a_detached_head_has_no_branch(home):
    top = made.repository(home / "book", "017-x")
    git(top, "checkout", "-q", "--detach")
    assert agreed(top)[:2] == ("detached", "")


@pytest.mark.parametrize("how", ["--merge", "--apply"])
def test_a_stopped_rebase_belongs_to_its_branch(home, how):
    top = made.repository(home / "book")
    made.conflict(top, "017-x", how)
    assert agreed(top)[:2] == ("rebase", "017-x")
    git(top, "rebase", "--abort")
    assert agreed(top)[:2] == ("branch", "017-x")


def test_a_rebase_of_no_branch_is_detached(home):
    top = made.repository(home / "book")
    made.conflict(top, "017-x")
    git(top, "rebase", "--abort")
    git(top, "checkout", "-q", "--detach")
    git(top, "rebase", "other-side", check=False)
    assert agreed(top)[:2] == ("detached", "")


def test_a_worktree_belongs_to_its_main_repository(home):
    top = made.repository(home / "book")
    git(top, "worktree", "add", "-q", "-b", "018-y", str(home / "else where"))
    seen = agreed(home / "else where")
    assert (seen.branch, seen.project, seen.worktree, seen.toplevel) == ("018-y", "book", "else-where", str(home / "else where"))
    assert agreed(top).branch == "main"
    made.conflict(home / "else where", "018-y")
    assert agreed(home / "else where")[:2] == ("rebase", "018-y")


@pytest.mark.parametrize("folder", ["book.git", "book/.bare"])
def test_a_worktree_of_a_bare_repository(home, folder):
    seed = made.repository(home / "seed")
    git(home, "clone", "-q", "--bare", str(seed), folder)
    git(home / folder, "remote", "remove", "origin")
    git(home / folder, "worktree", "add", "-q", "-b", "017-x", str(home / "book" / "w"))
    seen = agreed(home / "book" / "w")
    assert (seen.branch, seen.project, seen.worktree) == ("017-x", "book", "w")


def test_a_bare_repository_has_no_top(home):
    git(home, "init", "-q", "--bare", "-b", "trunk", "book.git")
    seen = agreed(home / "book.git")
    assert (seen.state, seen.branch, seen.toplevel, seen.directory, seen.project) == ("unborn", "trunk", "", "", "book")
    assert gitfiles.relative(seen, str(home / "book.git" / "refs")) == ""


def test_inside_the_git_directory_there_is_no_top(home):
    top = made.repository(home / "book", "017-x")
    assert agreed(top / ".git" / "hooks")[:3] == ("branch", "017-x", "")


def test_a_submodule_is_its_own_project(home):
    source = made.repository(home / "figures source", "019-f")
    top = made.repository(home / "book", "017-x")
    git(top, "submodule", "add", "-q", str(source), "the figures")
    seen = agreed(top / "the figures")
    assert (seen.branch, seen.project, seen.toplevel) == ("019-f", "figures source", str(top / "the figures"))
    git(top / "the figures", "remote", "remove", "origin")
    assert agreed(top / "the figures").project == "the figures"


def test_a_separate_git_directory(home):
    (home / "book").mkdir()
    git(home / "book", "init", "-q", "-b", "017-x", f"--separate-git-dir={home / 'store of git'}")
    assert agreed(home / "book").project == "book"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://ada:secret@example.org/team/the-book.git", "the-book"),
        ("https://example.org/the-book/", "the-book"),
        ("git@example.org:team/the-book.git", "the-book"),
        ("example.org:the-book", "the-book"),
        ("/srv/git/das büch.git", "das büch"),
        ("C:\\books\\the-book.git", "the-book"),
        ("https://token@example.org", "folder"),
        ("..", "folder"),
        (".git", "folder"),
        ("", "folder"),
    ],
)
def test_the_project_is_named_by_origin_without_its_secrets(home, url, name):
    top = made.repository(home / "folder")
    if url:
        git(top, "config", "remote.origin.url", url)
    assert agreed(top).project == name


def test_the_environment_names_the_repository(home, monkeypatch):
    top = made.repository(home / "book", "017-x")
    (home / "work" / "a").mkdir(parents=True)
    monkeypatch.setenv("GIT_DIR", str(top / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(home / "work"))
    assert agreed(home / "work" / "a")[:4] == ("branch", "017-x", str(home / "work"), "a")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert agreed(home / "work").toplevel == str(home / "work")
    monkeypatch.setenv("GIT_DIR", str(home / "nowhere"))
    assert agreed(top).state == "none"


def test_a_ceiling_stops_the_search(home, monkeypatch):
    top = made.repository(home / "book")
    (top / "a" / "b").mkdir(parents=True)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(top))
    assert agreed(top / "a" / "b").state == "none"
    assert agreed(top).state == "branch"


def test_no_repository_and_a_deleted_directory(home):
    assert agreed(home).state == "none"
    top = made.repository(home / "book")
    assert agreed(top / "gone") == gitfiles.NONE._replace(note="the directory is gone")
    (top / "sub").mkdir()
    before = Path.cwd()
    os.chdir(top / "sub")
    try:
        shutil.rmtree(top / "sub")
        assert gitfiles.read().state == "unknown"
        assert repository.read().state == "none"
    finally:
        os.chdir(before)


def test_a_symlinked_directory_is_where_it_leads(home):
    top = made.repository(home / "book", "017-x")
    (top / "a").mkdir()
    (home / "link").symlink_to(top / "a")
    assert agreed(home / "link").directory == "a"
    assert gitfiles.relative(agreed(top), str(home / "link" / "b.md")) == "a/b.md"


def test_head_as_a_symbolic_link(home):
    top = made.repository(home / "book", "017-x")
    (top / ".git" / "HEAD").unlink()
    (top / ".git" / "HEAD").symlink_to("refs/heads/017-x")
    assert agreed(top)[:2] == ("branch", "017-x")


def test_head_at_something_that_is_no_branch(home):
    top = made.repository(home / "book")
    (top / ".git" / "HEAD").write_text("ref: refs/remotes/origin/main\n")
    assert agreed(top)[:2] == ("unknown", "")


def test_a_reftable_repository_is_unknown_rather_than_wrong(home):
    """A git that writes reftables leaves this HEAD behind for readers that do not know them."""
    top = made.repository(home / "book")
    (top / ".git" / "HEAD").write_text("ref: refs/heads/.invalid\n")
    shutil.rmtree(top / ".git" / "refs")
    (top / ".git" / "refs").mkdir()
    (top / ".git" / "refs" / "heads").write_text("this repository uses the reftable format\n")
    seen = gitfiles.read(str(top))
    assert (seen.state, seen.branch, seen.project) == ("unknown", "", "book")
    assert "reftable" in seen.note


def test_a_head_that_may_not_be_read_is_unknown(home, monkeypatch):
    top = made.repository(home / "book")

    def refused(path):
        raise PermissionError(path)

    monkeypatch.setattr(gitfiles, "_first_line", refused)
    assert gitfiles.read(str(top))[:3] == ("unknown", "", str(top))


@pytest.mark.parametrize("text", ["gitdir: ../nowhere\n", "nonsense", "", "gitdir: \0\n"])
def test_a_git_file_that_leads_nowhere(home, text):
    made.repository(home)
    (home / "broken").mkdir()
    (home / "broken" / ".git").write_text(text)
    assert gitfiles.read(str(home / "broken")).state in ("none", "unknown")


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe\0\0", b"ref:", b"ref: \n", b"deadbeef", b"ref: refs/heads/\xff\n", b"x" * 100_000])
def test_a_broken_head_never_raises(home, raw):
    top = made.repository(home / "book")
    (top / ".git" / "HEAD").write_bytes(raw)
    (top / ".git" / "config").write_bytes(b'[remote "origin"\nurl\n[core]\nbare = \xff\n\0')
    gitfiles.read(str(top))


@pytest.mark.parametrize("cwd", ["\0", "a\0b", "\ud800", "x" * 10_000])
def test_an_impossible_directory_never_raises(cwd):
    assert gitfiles.read(cwd).state in ("none", "unknown")
    assert isinstance(gitfiles.relative(gitfiles.NONE, cwd), str)


def test_paths_from_the_top(home):
    top = made.repository(home / "book")
    seen = gitfiles.read(str(top))
    assert gitfiles.relative(seen, str(top / "a" / "b.md")) == "a/b.md"
    assert gitfiles.relative(seen, "b.md", str(top / "a")) == "a/b.md"
    assert gitfiles.relative(seen, str(home / "book-2" / "b.md")) == ""
    assert gitfiles.relative(seen, str(top)) == ""
    assert gitfiles.relative(gitfiles.read(str(home)), str(home / "a")) == str(home / "a").strip("/")


def test_spec_directories(home, monkeypatch):
    top = made.repository(home / "book")
    for name in ("018-y", "017-x"):
        (top / "specs" / name).mkdir(parents=True)
    (top / "specs" / "README.md").write_text("")
    assert gitfiles.spec_directories(str(top), ("specs", "nowhere")) == ("specs/017-x", "specs/018-y")
    assert gitfiles.spec_directories("", ("specs",)) == ()
    monkeypatch.setattr(gitfiles, "_MOST_SPECS", 1)
    assert len(gitfiles.spec_directories(str(top), ("specs",))) <= 1


FEW = settings(
    max_examples=int(os.environ.get("CONTEXT_EXAMPLES", "20")), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FEW
@given(operations=made.OPERATIONS)
def test_files_and_git_agree_on_random_repositories(operations):
    with tempfile.TemporaryDirectory() as place:
        home = Path(os.path.realpath(place)) / "home"
        here = made.repository(home / "first", "main", commit=False)
        agreed(here)
        for operation in operations:
            here = made.apply(here, home, *operation)
            agreed(here)
