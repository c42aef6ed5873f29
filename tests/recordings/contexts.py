"""The context records of a recording, made from what its hooks saw: `python -m tests.recordings.contexts` writes them anew.

They stand beside the recording as the OTLP/JSON request that the hooks would have sent (`context.logs.json`), so that a replay
needs no rules of its own. `record.py` calls this at its end.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import PurePosixPath

from sp_telemetry.context import gitfiles, mentions, record, rules
from tests.recordings.book import C33, C34, C41
from tests.recordings.reading import Recording, recordings

#: the chapters that the book has from its first commit on
CHAPTERS = tuple(f"{PurePosixPath(file).parent}/" for file in (C33, C34, C41))
EDITS = {"Edit", "Write", "NotebookEdit", "MultiEdit"}


def records(recording: Recording) -> list[record.ContextRecord]:
    """One record for each moment at which a session's context changed, in order."""
    persons = {session["session_id"]: session["user"] for session in recording.about["sessions"]}
    prompts = _prompts(recording)
    edited: dict[str, list[str | tuple[str, str]]] = {}
    last: dict[str, record.ContextRecord] = {}
    made = []
    for seen in recording.hooks():
        session = seen["session_id"]
        before = last.get(session)
        branch = seen["git_branch"] or ""
        if before is None or before.branch != branch:
            edited[session] = []
        if seen["tool_name"] in EDITS and seen["file_path"]:
            edited[session].append(_relative(seen["file_path"], seen["git_toplevel"]))
        directory = _relative(seen["cwd"], seen["git_toplevel"])
        prompt = "/" + seen["prompt_command"] if seen["prompt_command"] else ""
        if seen["event"] == "UserPromptSubmit":
            named = mentions.named(prompts.get(seen["prompt_id"], ""), _inside, lambda: list(CHAPTERS), _chapter_of)
            held = rules.decide(branch, directory, edited[session]).chapter.value
            if named and rules.decide(files=[(named, "prompt")]).chapter.value != held:
                edited[session].append((named, "prompt"))
        decision = rules.decide(branch, directory, edited[session], (), prompt)
        repository = gitfiles.NONE._replace(branch=branch, toplevel=seen["git_toplevel"] or "", directory=directory)
        now = record.make(
            session, seen["event"], repository, decision, clean=rules.clean, project="book", person=persons[session], at_ns=seen["at_ns"]
        )
        now = now._replace(
            step=now.step or (before.step if before and not prompt and seen["event"] != "SessionStart" else ""),
            record_id=hashlib.sha256(f"{session} {seen['at_ns']}".encode()).hexdigest()[:32],  # the same at each making
        )
        if not now.same_context(before):
            made.append(now)
        last[session] = now
    return made


def write(recording: Recording) -> None:
    (recording.directory / "context.logs.json").write_bytes(record.to_otlp_json(records(recording)) + b"\n")


def _prompts(recording: Recording) -> dict[str, str]:
    """What was typed, by the prompt's id: from the transcripts, for the hooks' notes keep no prompt."""
    found: dict[str, str] = {}
    for file in sorted(recording.directory.glob("transcripts/*/*.jsonl")):
        for line in map(json.loads, file.read_text().splitlines()):
            content = line.get("message", {}).get("content") if line.get("type") == "user" else None
            if isinstance(content, str):
                arguments = re.search(r"<command-args>(.*?)</command-args>", content, re.DOTALL)
                found.setdefault(line.get("promptId", ""), arguments[1] if arguments else content)
    return found


def _inside(path: str) -> str:
    return path if any(path.startswith(chapter) for chapter in CHAPTERS) else ""


def _chapter_of(path: str) -> object:
    found = rules.decide(files=[(path, "prompt")])
    return found.chapter.value and (found.part.value, found.chapter.value)


def _relative(path: str | None, top: str | None) -> str:
    if not path or not top or not PurePosixPath(path).is_relative_to(top):
        return ""
    return os.path.relpath(path, top).replace("\\", "/").removeprefix(".")


if __name__ == "__main__":
    for one in recordings():
        write(one)
        print(one.name, len(records(one)))
