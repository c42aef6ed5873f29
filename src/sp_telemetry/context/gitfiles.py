"""What a git repository's own files say, without a subprocess: branch, top, project, worktree.

A hook can't afford `git` (three processes a turn, and `git status` walks the tree). A handful of small files say the same, in a time
that does not depend on the size of the repository. Where the files do not say it, the state is 'unknown', never a guess.

Standard library only, Python 3.9, no import of a sibling: the hooks load this file by path. It reads and never writes, runs nothing
that a repository names, and raises nothing. `repository.py` reads the same facts through git; a property test holds the two together.

States: 'branch'; 'unborn' (a branch without a commit); 'detached'; 'rebase' (detached, and `branch` is the one being rebased);
'unknown' (a repository whose HEAD its files do not tell: reftable, unreadable); 'none' (no repository).
"""

import os
from collections import namedtuple
from itertools import islice

Repository = namedtuple("Repository", "state branch toplevel directory project worktree git_dir common_dir note")
NONE = Repository("none", "", "", "", "", "", "", "", "")
_HEADS = "refs/heads/"
_MOST_PACKED = 1 << 20
_MOST_SPECS = 2000


def read(cwd: str = "", environ=None) -> Repository:
    """The repository around `cwd` (the process's own when empty), by the rules that git itself finds one by."""
    try:
        return _read(cwd, os.environ if environ is None else environ)
    except (OSError, ValueError) as error:
        return NONE._replace(state="unknown", note=type(error).__name__)


def relative(repository: Repository, path: str, cwd: str = "") -> str:
    """`path` (relative ones start at `cwd`) as the rules want it: from the top, with `/`; '' at the top and for what lies outside.

    Without a repository it is the whole path, so that a book in a plain directory still has chapters.
    """
    try:
        full = os.path.realpath(os.path.join(cwd, path))
    except (OSError, ValueError, TypeError):
        return ""
    if repository.state == "none":
        return os.path.splitdrive(full)[1].replace(os.sep, "/").strip("/")
    return _below(repository.toplevel, full)


def spec_directories(toplevel: str, roots) -> tuple:
    """The directories right under `roots`, as `specs/017-name`; at most 2,000 entries are looked at."""
    found = []
    for root in roots if toplevel else ():
        try:
            with os.scandir(os.path.join(toplevel, root)) as entries:
                found += [root + "/" + entry.name for entry in islice(entries, _MOST_SPECS) if entry.is_dir()]
        except (OSError, ValueError):
            continue
    return tuple(sorted(found))


def project_name(url: str, common_dir: str, toplevel: str, linked: bool) -> str:
    """A name that clones and worktrees share: origin's, which differs less between machines than a folder; else the folder's."""
    path = url.replace("\\", "/")
    if "://" in path:
        path = path.partition("://")[2].partition("/")[2]  # never the host, nor a user or token before it
    name = path.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    if not _bare_name(name).strip(".") or "@" in name:
        parent, name = os.path.split(common_dir)
        if name.startswith("."):  # .git, or a .bare beside its worktrees
            name = os.path.basename(parent)
        elif toplevel and not linked:  # a submodule, or a separate git directory
            name = os.path.basename(toplevel)
    return _bare_name(name)


def head_of_rebase(git_dir: str) -> str:
    """The branch that a rebase under way will come back to, '' when there is none."""
    for place in ("rebase-merge", "rebase-apply"):
        name = _line(os.path.join(git_dir, place, "head-name"))
        if name.startswith(_HEADS):
            return name[len(_HEADS):]
    return ""


def worktree_name(git_dir: str, common_dir: str) -> str:
    """The name under which the common directory knows a linked worktree; '' for the main one."""
    return os.path.basename(git_dir) if os.path.dirname(git_dir) == os.path.join(common_dir, "worktrees") else ""


def _read(cwd, environ):
    start = os.path.realpath(cwd or os.getcwd())
    if not os.path.isdir(start):
        return NONE._replace(note="the directory is gone")
    if environ.get("GIT_DIR"):
        git_dir, top = _target(os.path.join(start, environ["GIT_DIR"])), start
        found = _is_git_dir(git_dir)
    else:
        found, git_dir, top = _search(start, environ.get("GIT_CEILING_DIRECTORIES", ""))
    if found is None:
        return NONE._replace(state="unknown", toplevel=top, directory=_below(top, start), git_dir=git_dir, note="HEAD can't be read")
    if not found:
        return NONE._replace(note="GIT_DIR or .git leads nowhere" if git_dir else "")
    git_dir = os.path.realpath(git_dir)
    common = os.path.realpath(os.path.join(git_dir, environ["GIT_COMMON_DIR"])) if environ.get("GIT_COMMON_DIR") else _common(git_dir)
    config = _config(common)
    name = worktree_name(git_dir, common)
    if not name:
        config.update(_config(git_dir, "config.worktree"))
        if config.get("worktree"):
            top = os.path.realpath(os.path.join(git_dir, config["worktree"]))
        elif config.get("bare", "").lower() in ("true", "yes", "on", "1"):
            top = ""
    if environ.get("GIT_DIR") and environ.get("GIT_WORK_TREE"):
        top = os.path.realpath(os.path.join(start, environ["GIT_WORK_TREE"]))
    state, branch, note = _head(git_dir, common)
    project = project_name(config.get("url", ""), common, top, bool(name))
    return Repository(state, branch, top, _below(top, start), project, name, git_dir, common, note)


def _search(start, ceilings):
    ceilings = [os.path.realpath(ceiling) for ceiling in ceilings.split(os.pathsep) if ceiling]
    here = start
    while True:
        entry = os.path.join(here, ".git")
        if os.path.isfile(entry):
            return _is_git_dir(_target(entry)), _target(entry), here
        found = _is_git_dir(entry) if os.path.isdir(entry) else False
        if found or found is None:
            return found, entry, here
        if _is_git_dir(here):
            return True, here, ""  # bare, or inside of a git directory
        parent = os.path.dirname(here)
        if parent == here or parent in ceilings:
            return False, "", ""
        here = parent


def _target(entry):
    """Where a `.git` file points to; the entry itself where it is a directory."""
    text = _line(entry) if os.path.isfile(entry) else ""
    return os.path.normpath(os.path.join(os.path.dirname(entry), text[8:].strip())) if text.startswith("gitdir: ") else entry


def _is_git_dir(path):
    """True, False, or None where the owner of the file system does not let us see."""
    head = os.path.join(path, "HEAD")
    try:
        text = os.readlink(head) if os.path.islink(head) else _first_line(head)
    except PermissionError:
        return None
    except OSError:
        return False
    common = _common(path)
    known = text.startswith(("ref:", "refs/")) or _is_hash(text)
    return known and os.path.isdir(os.path.join(common, "objects")) and os.path.isdir(os.path.join(common, "refs"))


def _is_hash(text):
    return len(text) in (40, 64) and not text.strip("0123456789abcdef")


def _common(git_dir):
    common = _line(os.path.join(git_dir, "commondir"))
    return os.path.realpath(os.path.join(git_dir, common)) if common else git_dir


def _head(git_dir, common):
    head = os.path.join(git_dir, "HEAD")
    text = "ref: " + os.readlink(head) if os.path.islink(head) else _first_line(head)
    if not text.startswith("ref:"):
        branch = head_of_rebase(git_dir)
        return ("rebase", branch, "a rebase of this branch is under way") if branch else ("detached", "", "HEAD is detached")
    ref = text[4:].strip()
    if ref == _HEADS + ".invalid":
        return "unknown", "", "a reftable repository keeps HEAD where only git can read it"
    if not ref.startswith(_HEADS):
        return "unknown", "", "HEAD is not at a branch"
    return ("branch" if _born(common, ref) else "unborn"), ref[len(_HEADS):], ""


def _born(common, ref):
    """Whether a branch has a commit. A huge packed-refs is not searched: a repository that has one has commits."""
    if os.path.isfile(os.path.join(common, *ref.split("/"))):
        return True
    try:
        packed = os.path.join(common, "packed-refs")
        if os.path.getsize(packed) > _MOST_PACKED:
            return True
        with open(packed, "rb") as file:
            return (" " + ref + "\n").encode("utf-8", "surrogateescape") in file.read(_MOST_PACKED)
    except OSError:
        return False


def _config(directory, name="config"):
    """`bare`, `worktree` and origin's `url`, from the first 64 KiB of a configuration; includes are not followed."""
    values, section = {}, ""
    for line in _start(os.path.join(directory, name), 1 << 16).splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line.partition("]")[0][1:].strip()
            line = line.partition("]")[2].strip()
        key, _, value = line.partition("=")
        key = key.strip().lower()
        if (section.lower() == "core" and key in ("bare", "worktree")) or (section.lower() == 'remote "origin"' and key == "url"):
            values[key] = values.get(key, "") if key == "url" and key in values else _value(value) if "=" in line else "true"
    return values


def _value(text):
    text, shown, quoted, at = text.strip(), "", False, 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            at += 1
            shown += text[at]
        elif text[at] == '"':
            quoted = not quoted
        elif text[at] in "#;" and not quoted:
            return shown.rstrip()
        else:
            shown += text[at]
        at += 1
    return shown


def _below(top, path):
    if not top or os.path.normcase(path) == os.path.normcase(top):
        return ""
    stem = top if top.endswith(os.sep) else top + os.sep
    return path[len(stem):].replace(os.sep, "/") if os.path.normcase(path).startswith(os.path.normcase(stem)) else ""


def _bare_name(name):
    return name[:-4] if name.endswith(".git") else name


def _start(path, most):
    try:
        with open(path, "rb") as file:
            return file.read(most).decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _line(path):
    return _start(path, 4096).partition("\n")[0].strip()


def _first_line(path):
    """As `_line`, but a file that can't be read is an error."""
    with open(path, "rb") as file:
        return file.read(4096).decode("utf-8", "surrogateescape").partition("\n")[0].strip()
