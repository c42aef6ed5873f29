"""The context records of a recording, made from what its hooks saw: `python -m tests.recordings.contexts` writes them anew.

They stand beside the recording as the OTLP/JSON request that the hooks would have sent (`context.logs.json`), so that a replay
needs no rules of its own. `record.py` calls this at its end.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import PurePosixPath

from sp_telemetry.context import gitfiles, record, rules
from tests.recordings.reading import Recording, recordings

EDITS = {"Edit", "Write", "NotebookEdit", "MultiEdit"}


def records(recording: Recording) -> list[record.ContextRecord]:
    """One record for each moment at which a session's context changed, in order."""
    persons = {session["session_id"]: session["user"] for session in recording.about["sessions"]}
    edited: dict[str, list[str]] = {}
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


def _relative(path: str | None, top: str | None) -> str:
    if not path or not top or not PurePosixPath(path).is_relative_to(top):
        return ""
    return os.path.relpath(path, top).replace("\\", "/").removeprefix(".")



if __name__ == "__main__":
    for one in recordings():
        write(one)
        print(one.name, len(records(one)))
