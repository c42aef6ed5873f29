"""Where transcripts lie, by their metadata alone. Nothing here opens one, or follows a link out of the tree.

<configuration>/projects/<directory>/<session>.jsonl
<configuration>/projects/<directory>/<session>/subagents/…/agent-<id>.jsonl
"""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

UNLISTED = "can't be listed"
DEPTH = 6  # below projects/; Claude Code needs three, workflows one or two more


@dataclass(frozen=True)
class Transcript:
    """One file. `file_id`, `folder_id` and `root_id` (of the folder `projects`) name it without its path; `session_id` and `agent_id`
    are what its name says."""

    path: str
    file_id: str
    folder_id: str
    root_id: str
    session_id: str
    agent_id: str
    size: int
    modified_ns: int

    @property
    def state(self) -> tuple[int, int]:
        """Changes when the file does."""
        return self.size, self.modified_ns


@dataclass
class Found:
    """The transcripts of a machine, and what was left out: a path and why. `listed`: root_id of the folders that were listed to the last
    file, so that what is not among `files` is gone."""

    folders: list[str] = field(default_factory=list)
    listed: set[str] = field(default_factory=set)
    files: list[Transcript] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def folders(environ: Mapping[str, str]) -> list[Path]:
    """The `projects` folders there are: of CLAUDE_CONFIG_DIR (one directory to Claude Code, several with commas to ccusage), of ~/.claude
    and ~/.config/claude."""
    home = Path(environ.get("HOME") or Path.home())
    told = environ.get("CLAUDE_CONFIG_DIR", "")
    named = [Path(each.strip()).expanduser() for each in (told, *told.split(",")) if each.strip()]
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    there = [Path(os.path.realpath(each / "projects")) for each in (*named, home / ".claude", config / "claude")]
    return [each for each in dict.fromkeys(there) if each.is_dir()]


def find(environ: Mapping[str, str], secret: str) -> Found:
    """Every transcript under `folders`. `secret` keys the ids, so that nobody can tell a path from them."""
    found = Found()
    seen: set[tuple[int, int]] = set()
    for folder in folders(environ):
        found.folders.append(str(folder))
        refused = len(found.refused)
        for path, status in _walk(str(folder), str(folder), DEPTH, found):
            if (status.st_dev, status.st_ino) in seen:  # two configurations may share a folder
                continue
            seen.add((status.st_dev, status.st_ino))
            found.files.append(_transcript(path, str(folder), status, secret))
        if not any(why.startswith(UNLISTED) for _, why in found.refused[refused:]):
            found.listed.add(_keyed(secret, str(folder)))
    found.files.sort(key=lambda file: file.path)
    return found


def machine(secret: str) -> str:
    """What files of this machine have in common in the store."""
    return _keyed(secret, "machine")[:16]


def _transcript(path: str, folder: str, status: os.stat_result, secret: str) -> Transcript:
    parts = _parts(path, folder)
    stem = parts[-1].removesuffix(".jsonl")
    beside = "subagents" in parts[1:-1]
    session = parts[parts.index("subagents", 1) - 1] if beside else stem
    agent = stem.removeprefix("agent-") if beside else ""
    ids = (_keyed(secret, named) for named in (path, os.path.join(folder, parts[0]), folder))
    return Transcript(path, *ids, session, agent, status.st_size, status.st_mtime_ns)


def _parts(path: str, folder: str) -> list[str]:
    """Of a path below `folder`. For thousands of files pathlib takes longer than the file system."""
    return path[len(folder) + 1 :].split(os.sep)


@lru_cache(1024)  # a folder is named for each of its files
def _keyed(secret: str, text: str) -> str:
    return hmac.digest(secret.encode(), text.encode("utf-8", "surrogateescape"), "sha256").hex()[:32]


def _walk(directory: str, folder: str, depth: int, found: Found) -> Iterator[tuple[str, os.stat_result]]:
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        found.refused.append((directory, f"{UNLISTED}: {error.strerror}"))
        return
    for entry in entries:
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not target.startswith(folder + os.sep):  # within the tree it is read under its own name
                found.refused.append((entry.path, "is a link out of the folder of transcripts"))
        elif entry.is_dir(follow_symlinks=False):
            if depth:
                yield from _walk(entry.path, folder, depth - 1, found)
        elif entry.name.endswith(".jsonl") and _is_transcript(entry.path, folder):
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:  # deleted meanwhile
                continue
            if stat.S_ISREG(status.st_mode):
                yield entry.path, status
            else:
                found.refused.append((entry.path, "is not a file"))


def _is_transcript(path: str, folder: str) -> bool:
    parts = _parts(path, folder)
    return len(parts) == 2 or "subagents" in parts[1:-1]
