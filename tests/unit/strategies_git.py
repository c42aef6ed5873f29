"""Real repositories for the context tests: git in a directory of its own, and random sequences of what people do with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hypothesis import strategies as st

FOLDERS = ("book", "my book", "bücher", "本", "a'b \"c\"", "x#y;z")
BRANCHES = ("main", "017-usage-data-collection", "feature/017-x", "ada/018-größe", "本-書", "a'b", "x#y", "chapter/33-agents")


def environment() -> Mapping[str, str]:
    """The process's environment without the machine's own git configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = {f"GIT_{role}_NAME": "Ada" for role in ("AUTHOR", "COMMITTER")}
    who |= {f"GIT_{role}_EMAIL": "ada@example.org" for role in ("AUTHOR", "COMMITTER")}
    return {**kept, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_EDITOR": "true", "LC_ALL": "C"}


def git(where: Path, *args: str, check: bool = True) -> str:
    command = ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", *args]
    done = subprocess.run(command, cwd=where, env=environment(), capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(args)}: {done.stderr}")
    return done.stdout.strip()


def repository(where: Path, branch: str = "main", commit: bool = True) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    git(where, "init", "-q", "-b", branch)
    if commit:
        git(where, "commit", "-q", "--allow-empty", "-m", "one")
    return where


def conflict(top: Path, branch: str, *rebase: str) -> None:
    """Leaves a rebase of `branch` stopped at a conflict."""
    git(top, "checkout", "-q", "-B", "base-of-rebase")
    (top / "c.txt").write_text("base")
    git(top, "add", "c.txt")
    git(top, "commit", "-q", "-m", "base")
    for name, text in ((branch, "mine"), ("other-side", "theirs")):
        git(top, "checkout", "-q", "-B", name, "base-of-rebase")
        (top / "c.txt").write_text(text)
        git(top, "commit", "-q", "-am", name)
    git(top, "checkout", "-q", branch)
    git(top, "rebase", *rebase, "other-side", check=False)


KINDS = ["commit", "branch", "orphan", "detach", "worktree", "rebase", "am-rebase", "submodule", "pack", "origin", "bare", "into", "up"]
# What somebody does in one step: (operation, a branch, a folder).
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(BRANCHES),
        st.sampled_from(FOLDERS),
    ),
    min_size=1,
    max_size=6,
)


def apply(here: Path, home: Path, operation: str, branch: str, folder: str) -> Path:
    """Does one operation in `here`; the directory to look from afterwards. What git refuses is left undone."""
    inside = git(here, "rev-parse", "--is-inside-work-tree", check=False) == "true"
    top = Path(git(here, "rev-parse", "--show-toplevel")) if inside else here
    spare = home / f"{len(list(home.iterdir()))} {folder}"
    if operation == "up":
        return here.parent if here != home else here
    if operation == "into":
        (here / folder).mkdir(exist_ok=True)
        return here / folder
    if operation == "pack":
        git(here, "pack-refs", "--all", check=False)
    elif operation == "origin":
        git(here, "remote", "add", "origin", f"https://ada:secret@example.org/team/{folder}.git", check=False)
    elif operation == "bare":
        spare.mkdir()
        git(spare, "init", "-q", "--bare", "-b", branch)
        return spare
    elif not inside:
        return here
    elif operation == "commit":
        git(here, "commit", "-q", "--allow-empty", "-m", "more", check=False)
    elif operation in ("branch", "orphan", "detach"):
        how = {"branch": ("-B", branch), "orphan": ("--orphan", branch), "detach": ("--detach",)}[operation]
        git(here, "checkout", "-q", *how, check=False)
    elif operation == "worktree":
        git(here, "worktree", "add", "-q", "-B", branch, str(spare), check=False)
        return spare if spare.exists() else here
    elif operation in ("rebase", "am-rebase"):
        busy = git(here, "rev-parse", "--verify", "--quiet", "REBASE_HEAD", check=False) or not git(here, "branch", "--show-current")
        if not busy:
            try:
                conflict(top, branch, *(("--apply",) if operation == "am-rebase" else ()))
            except AssertionError:
                return top  # the branch is checked out in another worktree
        return top
    elif operation == "submodule":
        source = repository(spare, branch)
        git(top, "submodule", "add", "-q", str(source), f"sub {folder}", check=False)
        return top / f"sub {folder}" if (top / f"sub {folder}" / ".git").exists() else top
    return here
