"""The same facts as `gitfiles`, through GitPython: git itself answers. For the command line, where 30 ms do not matter.

Two readings exist on purpose. The hooks' reading is fast and may be wrong where git's layout changes; this one is git's own word.
`sp-telemetry context` shows this one and says when the hooks would say something else, and a property test holds both together.
"""

from __future__ import annotations

import os
from pathlib import Path

from sp_telemetry.context import gitfiles
from sp_telemetry.context.gitfiles import NONE, Repository


class GitUnavailable(Exception):
    """git is not installed, or refuses to look (a repository of somebody else's: `safe.directory`). The text is git's reason."""


def read(cwd: str | os.PathLike[str] = "") -> Repository:
    """The repository around `cwd`. Raises GitUnavailable where git can't or won't tell."""
    try:
        start = os.path.realpath(cwd or os.getcwd())
    except FileNotFoundError:
        return NONE._replace(note="the directory is gone")
    if not os.path.isdir(start):
        return NONE._replace(note="the directory is gone")
    ask = _Asker(start)
    git_dir = ask("rev-parse", "--absolute-git-dir")
    if not git_dir:
        return NONE
    git_dir = os.path.realpath(git_dir)
    common = os.path.realpath(os.path.join(start, ask("rev-parse", "--git-common-dir")))
    top = ask("rev-parse", "--show-toplevel")
    top = os.path.realpath(top) if top else ""
    state, branch, note = _head(ask, git_dir)
    worktree = gitfiles.worktree_name(git_dir, common)
    url = ask("config", "--local", "--get-all", "remote.origin.url").partition("\n")[0]
    project = gitfiles.project_name(url, common, top, bool(worktree))
    below = Path(start).relative_to(top).as_posix() if top and Path(start).is_relative_to(top) else ""
    return Repository(state, branch, top, "" if below == "." else below, project, worktree, git_dir, common, note)


class _Asker:
    """git, asked in one directory. What git answers with an error is ''; only a git that won't look at all is GitUnavailable."""

    def __init__(self, directory: str) -> None:
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from git import Git  # 100 ms, and not needed by those who read through gitfiles

        self.git = Git(directory)

    def __call__(self, *command: str) -> str:
        from git.exc import CommandError, GitCommandNotFound

        try:
            return self.git.execute(["git", *command], strip_newline_in_stdout=True)
        except (GitCommandNotFound, OSError):
            raise GitUnavailable("git is not on PATH") from None
        except CommandError as error:
            if "dubious ownership" in str(error.stderr):
                raise GitUnavailable("the repository belongs to somebody else (git's safe.directory)") from None
            return ""


def _head(ask: _Asker, git_dir: str) -> tuple[str, str, str]:
    ref = ask("symbolic-ref", "--quiet", "HEAD")
    if not ref:
        branch = gitfiles.head_of_rebase(git_dir)  # git has no command that tells it; `git status` reads this file
        return ("rebase", branch, "a rebase of this branch is under way") if branch else ("detached", "", "HEAD is detached")
    if not ref.startswith("refs/heads/"):
        return "unknown", "", "HEAD is not at a branch"
    if ref == "refs/heads/.invalid":
        return "unknown", "", "this git is too old to read a reftable repository"
    born = bool(ask("rev-parse", "--verify", "--quiet", "HEAD"))
    return ("branch" if born else "unborn"), ref.removeprefix("refs/heads/"), ""
