"""Transcripts as Claude Code writes them, made up for tests: lines as dictionaries, and files of lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from sp_telemetry.store.client import Client
from sp_telemetry.transcripts import files, reading
from tests.client.script import Usage

SECRET = "of the test"
START = datetime(2026, 11, 16, 9, 0, tzinfo=UTC).timestamp()
SPACE = UUID(int=7)


def identifier(*names: Any) -> str:
    """The UUID of these names, always the same."""
    return str(uuid5(SPACE, "/".join(map(str, names))))


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def line(kind: str, session: str, at: float, uuid: str = "", **more: Any) -> dict[str, Any]:
    """What every line of a conversation has. `at`: epoch seconds."""
    return {
        "parentUuid": None, "isSidechain": False, "type": kind, "uuid": uuid or identifier(session, kind, at), "timestamp": moment(at),
        "userType": "external", "entrypoint": "cli", "cwd": "/home/ada/book", "sessionId": session, "version": "2.1.330",
        "gitBranch": "017-usage", **more,
    }  # fmt: skip


def prompt(session: str, name: str, at: float, text: str = "go on", **more: Any) -> dict[str, Any]:
    """Its `promptId` is identifier(session, name)."""
    head = {"parentUuid": None, "isSidechain": False, "promptId": identifier(session, name)}  # what a line is stands at its beginning
    return head | line("user", session, at, message={"role": "user", "content": text}, **more)


def answer(
    session: str,
    name: str,
    at: float,
    usage: Usage | Mapping[str, Any] = Usage(input=4, output=30),  # noqa: B008
    *,
    block: int = 0,
    model: str = "claude-sonnet-4-5",
    message_id: str | None = None,
    request_id: str | None = None,
    stop_reason: str | None = "end_turn",
    text: str = "so be it",
    **more: Any,
) -> dict[str, Any]:
    """One line of the response called `name`: msg_… and req_… are made of it, an empty id is left out."""
    message_id = f"msg_{name:0>12}" if message_id is None else message_id
    request_id = f"req_{name:0>12}" if request_id is None else request_id
    message = {
        "id": message_id, "type": "message", "role": "assistant", "model": model, "content": [{"type": "text", "text": text}],
        "stop_reason": stop_reason, "stop_sequence": None, "usage": usage.wire() if isinstance(usage, Usage) else dict(usage),
    }  # fmt: skip
    if not message_id:
        del message["id"]
    made = line("assistant", session, at, identifier(session, name, block), message=message, **more)
    return made | ({"requestId": request_id} if request_id else {})


def write(path: Path, lines: Iterable[Mapping[str, Any] | bytes]) -> Path:
    """The file with these lines; bytes go in as they are, without a newline behind them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        for each in lines:
            out.write(each if isinstance(each, bytes) else json.dumps(each, separators=(",", ":")).encode() + b"\n")
    return path


class Configuration:
    """A configuration directory of Claude Code with nothing but transcripts, and a home in which there is none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"HOME": str(folder / "no home"), "CLAUDE_CONFIG_DIR": str(folder)}

    def session(self, session: str, lines: Iterable[Mapping[str, Any] | bytes], project: str = "-home-ada-book") -> Path:
        return write(self.folder / "projects" / project / f"{session}.jsonl", lines)

    def agent(self, session: str, agent: str, lines: Iterable[Mapping[str, Any]], project: str = "-home-ada-book") -> Path:
        return write(self.folder / "projects" / project / session / "subagents" / f"agent-{agent}.jsonl", lines)

    def found(self) -> files.Found:
        return files.find(self.environ, SECRET)

    def bring(self, client: Client) -> reading.Read:
        return reading.bring(client, self.found(), SECRET)


def touch_later(path: Path) -> None:
    """As if it was changed a moment after it was: clocks of file systems are coarse."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
