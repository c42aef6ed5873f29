"""What the hooks read: calls, settings, answers of a server, what waits for one, git's files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from typing import Any
from unittest import mock

from tests.conftest import ROOT
from tests.fuzz.targets import SCRATCH, can_be_shown, either, folder, pieces, same, target, text_of

sys.path.extend([str(ROOT / "hooks" / "lib"), str(ROOT / "src" / "sp_telemetry" / "context")])
import calls
import gitfiles
import names
import opening
import places
import quickjson
import record
import report
import rules
import session
import spool
import wire

__all__ = ["names", "places", "session"]
CALLS = ("session", "prompt", "cwd", "edit", "bash", "report")
BOOK = {
    ".git/HEAD": b"ref: refs/heads/017-usage\n", ".git/objects/.keep": b"", ".git/refs/.keep": b"", "specs/017-usage/spec.md": b"x",
    "manuscript/05-part/33-agents/a.md": b"x",
}  # fmt: skip


@target
def quick_json(data: bytes) -> None:
    """What json reads is read the same; what it writes, json reads. A value may be followed by more, for a line is cut by its reader."""
    text = text_of(data)
    quick = either(lambda: quickjson.loads(text), ValueError, RecursionError)
    full = either(lambda: json.loads(text, strict=False), ValueError, RecursionError)
    if not isinstance(full, Exception):
        assert same(quick, full), (quick, full)
    if not isinstance(quick, Exception) and "NaN" not in repr(text) and "Infinity" not in text:
        with contextlib.suppress(RecursionError):
            finite = not re.search(r"\b(inf|nan)\b", repr(quick))
            assert not finite or json.loads(quickjson.dumps(quick)) == json.loads(json.dumps(quick))


@target
def hooks_settings(data: bytes) -> None:
    """Of any text, strings, whole numbers and booleans; that they are those of tomllib is held by installation_settings."""
    text = text_of(data)
    values = places.top_level(text)
    assert all(type(value) in (str, int, bool) for value in values.values())


@target
def hooks_http(data: bytes) -> None:
    """Any answer of a server: a status and a body, or an OSError."""
    connection = wire.Connection.__new__(wire.Connection)
    connection._until, connection._answer = float("inf"), b""
    connection._bound = lambda: None
    parts = [data[at : at + 7] for at in range(0, len(data), 7)]

    class Socket:
        recv = staticmethod(lambda _: parts.pop(0) if parts else b"")
        close = staticmethod(lambda: None)

    connection._socket = Socket()
    status, body = connection.answer()
    assert isinstance(status, int) and isinstance(body, bytes)


class _Ended(BaseException):
    pass


class _Server:
    """A socket to a server that takes everything, if it is what a server can read."""

    def __init__(self, *_: Any) -> None:
        self._sent = b""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def sendall(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        if head.startswith(b"POST /v1/logs "):
            taken(body)

    def recv(self, _: int) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@target
def hook_call(data: bytes) -> None:
    """Any call on stdin, beside any config.toml, server.json, state of the session and .claude/telemetry.toml: it ends with 0, prints
    nothing or the client's object, and gives up nothing but what is no call."""
    word, call, config, server, state, rules_file = pieces(data, 6)
    what = text_of(word) if text_of(word) in CALLS else "session"
    book = folder("book", {**BOOK, ".claude/telemetry.toml": rules_file})
    call = call.replace(b"{book}", str(book).encode())
    files = {"config.toml": config, "server.json": server, "hooks/one.json": state}
    home = folder("home", {name: text.replace(b"{book}", str(book).encode()) for name, text in files.items()})
    environ = {"SP_TELEMETRY_HOME": str(home), "CLAUDE_PLUGIN_DATA": str(home), "CLAUDE_CODE_SESSION_ID": "one", "HOME": str(home)}
    said: list[str] = []
    gave_up: list[str] = []
    with (
        mock.patch.dict(os.environ, environ, clear=True), mock.patch("os._exit", side_effect=_Ended), mock.patch("os.setsid"),
        mock.patch.object(calls, "open", lambda *_, **__: io.BytesIO(call), create=True), mock.patch.object(calls, "_bound"),
        mock.patch.object(calls, "_say", said.append), mock.patch.object(opening, "_start", return_value=True),
        mock.patch.object(report, "run", " ".join), mock.patch.object(wire.socket, "socket", _Server),
        mock.patch.object(places, "log", lambda home, what, reason: gave_up.append(reason) if reason.startswith("gave up") else None),
    ):  # fmt: skip
        assert isinstance(either(lambda: calls.main([what, "cache", str(book)]), _Ended), _Ended)
    read = either(lambda: quickjson.loads(text_of(call)), ValueError, RecursionError)
    known = read.get("session_id") if isinstance(read, dict) else None
    is_call = isinstance(read, dict) and (what == "report" or (isinstance(known, str) and known != ""))
    assert bool(gave_up) != is_call, gave_up
    for text in said:
        assert json.loads(text).keys() <= {"hookSpecificOutput", "systemMessage", "decision", "reason"} and what in ("session", "report")


def taken(body: bytes) -> list[str]:
    """The sessions of a request that hooks send. Raises where a server would refuse it, and all that is in it."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    [logs] = [scope["logRecords"] for one in json.loads(body, parse_constant=refuse)["resourceLogs"] for scope in one["scopeLogs"]]
    for log in logs:
        assert log["timeUnixNano"].isdigit() and 0 < int(log["timeUnixNano"]) < 1 << 63, log
        for value in (each["value"] for each in log["attributes"]):
            assert [*map(type, value.values())] == [float if "doubleValue" in value else str], value
    return [log["attributes"][1]["value"]["stringValue"] for log in logs]


@target
def spool_records(data: bytes) -> None:
    """A file in the spool with any end of its name and anything in it: what waits beside it is sent, and it too where a server can take
    it; else it is dropped."""
    suffix, content = pieces(data, 2)
    good = record.ContextRecord(session_id="good", at_ns=1, record_id="r", confidence=1.0)
    name = re.sub(r"[\0/]", "", text_of(suffix))[:60]
    waits = {"0.json": quickjson.dumps(good.as_dict()).encode(), f"1.json{name}": content, "2.json": b"{"}
    home = str(folder("spool", {f"spool/{file}": text for file, text in waits.items()}))
    claimed = spool.Spool(home).claim()
    sessions = taken(record.to_otlp_json([one for _, one in claimed]))
    assert sessions[0] == "good" and all(sessions) and len(sessions) < 3
    spool.Spool(home).give_back([path for path, _ in claimed])
    spool.Spool(home).delivered([os.path.join(home, "spool", file) for file in waits])
    assert places.read_json(os.path.join(home, "hooks", "counters.json")).get("dropped", 0) >= 1


@target
def git_files(data: bytes) -> None:
    """HEAD, packed-refs, config, commondir, head-name and a `.git` that is a file: a repository that says no more than they do."""
    head, packed, config, common, name, pointer = pieces(data, 6)
    inside = {"HEAD": head, "packed-refs": packed, "config": config, "commondir": common, "rebase-merge/head-name": name,
              "objects/.keep": b"", "refs/.keep": b""}  # fmt: skip
    files = {f"one/.git/{path}": text for path, text in inside.items()} | {"two/.git": pointer.replace(b"{git}", b"../one/.git")}
    top = folder("git", files)
    line = head[:4096].split(b"\n")[0].decode("utf-8", "surrogateescape").strip()
    rebased = name[:4096].split(b"\n")[0].decode("utf-8", "surrogateescape").strip()
    for place in ("one", "two"):
        found = gitfiles.read(str(top / place), {"GIT_CEILING_DIRECTORIES": str(SCRATCH)})
        assert all(isinstance(value, str) for value in found)
        assert found.state in ("branch", "unborn", "detached", "rebase", "unknown", "none"), found
        if found.state in ("branch", "unborn"):
            assert line[:4] == "ref:" and line[4:].strip() == "refs/heads/" + found.branch, found
        elif found.state == "rebase":
            assert rebased == "refs/heads/" + found.branch, found
        else:
            assert found.branch == ""
        for value in (found.branch, found.project, found.directory, found.worktree):
            assert can_be_shown(rules.clean(value))
            quickjson.dumps(value)
