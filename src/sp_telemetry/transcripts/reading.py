"""Brings what transcripts say into the store: the engine reads the files, the ClickHouse interface takes what it found.

Python decides which files, opens them and hands the engine their descriptors; so the engine never sees a path, and what is read
is what was looked at, whatever happens to its name. The statements are in telemetry-server/transcripts/.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

from sp_telemetry.errors import QueryFailed
from sp_telemetry.store.client import Client
from sp_telemetry.store.engine import Handle, scratch
from sp_telemetry.store.schema import shipped
from sp_telemetry.transcripts import lines
from sp_telemetry.transcripts.files import Found, Transcript, machine
from sp_telemetry.transcripts.lines import LONGEST

READER = 1  # raise it when the statements find something else in the same file: then all are read anew
MEMORY_MIB, THREADS = 300, 2
BATCH_BYTES, BATCH_FILES = 120 << 20, 300
SEND_BYTES = 24 << 20  # an insert costs the server 0.1 s before its first row
_KNOWN = """CREATE TEMPORARY TABLE known (file UInt32, file_id String, machine String, folder_id String, reader UInt16, size UInt64,
    modified_ns UInt64, session_id String, agent_id String, long_lines UInt64, problem String) ENGINE = Memory"""


@dataclass
class Read:
    """What a run did. `problems`: files that could not be read, and why."""

    files: int = 0  # that there are
    new: int = 0  # of them new or changed, and so read
    gone: int = 0  # that there were the last time
    size: int = 0  # bytes that were read
    lines: dict[str, int] = field(default_factory=dict)  # why lines of all files were left out -> how many
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.new or self.gone)


def bring(client: Client, found: Found, secret: str, progress: Callable[[int, int], None] = lambda done, of: None) -> Read:
    """Bring the store up to date with `found`: only what is new or changed is read. `client` may write.

    `progress` is told bytes done and bytes to do. Raises ServerUnreachable, QueryFailed where the store takes nothing; a file that
    can't be read is named in the result and in the store.
    """
    known = _known(client, machine(secret))
    stale = [file for file in found.files if known.get(file.file_id) != (READER, *file.state)]
    gone = known.keys() - {file.file_id for file in found.files}
    if gone:
        _mark_gone(client, gone)
    done = Read(len(found.files), len(stale), len(gone), sum(file.size for file in stale))
    if stale:
        _read_all(client, stale, machine(secret), done, progress)
    done.lines, done.problems = _left_out(client, machine(secret), {file.file_id: file.path for file in found.files})
    return done


def _read_all(client: Client, stale: list[Transcript], machine: str, done: Read, progress: Callable[[int, int], None]) -> None:
    with scratch(MEMORY_MIB, THREADS) as handle, ThreadPoolExecutor(1) as sender:
        handle.run(_KNOWN)
        sent: Future[None] | None = None
        waiting: list[tuple[bytes, bytes]] = []
        so_far = 0
        for batch in _batches(stale):
            waiting += _read(handle, batch, machine, done.problems)
            so_far += sum(file.size for file in batch)
            if sum(len(requests) for requests, _ in waiting) > SEND_BYTES or so_far == done.size:
                if sent:
                    sent.result()  # one on its way while the next is read
                sent = sender.submit(_send, client, b"".join(rows[0] for rows in waiting), b"".join(rows[1] for rows in waiting))
                waiting = []
            progress(so_far, done.size)
        if sent:
            sent.result()


def _left_out(client: Client, machine: str, paths: dict[str, str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """What of the files that there are could not be read, this time or before: lines by the reason, and files."""
    sql = """SELECT sum(cut_lines), sum(unreadable_lines), sum(long_lines), groupArrayIf((file_id, problem), problem != '')
        FROM telemetry.transcript_files FINAL WHERE machine = {machine:String} AND gone_at = 0"""
    cut, unreadable, long, problems = client.query(sql, {"machine": machine}).rows[0]
    lines = {"cut off in the middle": cut, "not of a transcript": unreadable, f"longer than {LONGEST >> 20} MiB": long}
    return lines, [(paths[file_id], problem) for file_id, problem in problems if file_id in paths]


def _known(client: Client, machine: str) -> dict[str, tuple[int, int, int]]:
    sql = "SELECT file_id, reader, size, modified_ns FROM telemetry.transcript_files FINAL WHERE machine = {machine:String} AND gone_at = 0"
    return {row[0]: tuple(map(int, row[1:])) for row in client.query(sql, {"machine": machine}).rows}


def _mark_gone(client: Client, gone: Iterable[str]) -> None:
    ids = "[" + ",".join(f"'{each}'" for each in sorted(gone)) + "]"
    sql = """INSERT INTO telemetry.transcript_files SELECT * REPLACE (now64(9) AS read_at, now64(9) AS gone_at)
        FROM telemetry.transcript_files FINAL WHERE has({ids:Array(String)}, file_id)"""
    for _ in client.stream(sql, "Null", {"ids": ids}):
        pass


def _send(client: Client, requests: bytes, files: bytes) -> None:
    """Requests first: a file that is known has been read."""
    if requests:
        client.insert("telemetry.read_requests", "Native", requests)
    client.insert("telemetry.read_files", "Native", files)


def _batches(files: list[Transcript]) -> Iterator[list[Transcript]]:
    batch: list[Transcript] = []
    size = 0
    for file in files:
        if batch and (size + file.size > BATCH_BYTES or len(batch) == BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    yield batch


def _read(handle: Handle, batch: list[Transcript], machine: str, problems: list[tuple[str, str]]) -> Iterator[tuple[bytes, bytes]]:
    """(requests, files) in Native. What fails as a batch is read in halves, so that one file costs its companions nothing."""
    try:
        yield _read_at_once(handle, batch, machine, problems)
    except QueryFailed as error:
        if len(batch) == 1:
            why = "takes too much memory" if error.code == 241 else f"was refused by the engine (code {error.code})"
            problems.append((batch[0].path, why))
            yield _read_at_once(handle, batch, machine, problems)
        else:
            yield from _read(handle, batch[: len(batch) // 2], machine, problems)
            yield from _read(handle, batch[len(batch) // 2 :], machine, problems)


def _read_at_once(handle: Handle, batch: list[Transcript], machine: str, problems: list[tuple[str, str]]) -> tuple[bytes, bytes]:
    """Of files that `problems` names only the names go to the store."""
    with ExitStack() as stack:
        failed = dict(problems)
        opened: dict[int, lines.Opened] = {}
        for number, file in enumerate(batch):
            if file.path in failed:
                continue
            try:
                opened[number] = stack.enter_context(lines.opened(file.path))
            except OSError as error:
                failed[file.path] = f"can't be opened: {error.strerror}"
                problems.append((file.path, failed[file.path]))
        for statement in shipped("transcripts/read.sql"):
            handle.run(statement.replace("{lines}", _lines(opened.values())))
        known = [
            {
                "file": opened[number].descriptor if number in opened else 0,
                "file_id": file.file_id,
                "machine": machine,
                "folder_id": file.folder_id,
                "reader": READER,
                "size": file.size,
                "modified_ns": file.modified_ns,
                "session_id": file.session_id,
                "agent_id": file.agent_id,
                "long_lines": opened[number].long_lines if number in opened else 0,
                "problem": failed.get(file.path, ""),
            }
            for number, file in enumerate(batch)
        ]
    handle.run("TRUNCATE TABLE known")
    handle.insert("INSERT INTO known", "JSONEachRow", [json.dumps(known).encode()])
    return handle.query(shipped("transcripts/requests.sql")[0], "Native"), handle.query(shipped("transcripts/files.sql")[0], "Native")


def _lines(opened: Iterable[lines.Opened]) -> str:
    """What to select `_file` and `line` from. The engine takes files together, but not pipes: those it wants by name."""
    together = [str(each.descriptor) for each in opened if not each.is_pipe]
    paths = ["/proc/self/fd/{" + ",".join(together) + "}"] if together else []
    paths += [f"/proc/self/fd/{each.descriptor}" for each in opened if each.is_pipe]
    tables = [f"file('{path}', 'LineAsString', 'line String')" for path in paths or [os.devnull]]
    return tables[0] if len(tables) == 1 else "(" + " UNION ALL ".join(f"SELECT _file, line FROM {table}" for table in tables) + ")"
