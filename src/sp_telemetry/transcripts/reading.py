"""Brings what transcripts say into the store: the engine reads the files, the ClickHouse interface takes what it found.

Python decides which files, opens them and feeds the engine what is in them (lines.py); so the engine never sees a path, and what is
read is what was looked at, whatever happens to its name. The statements are in telemetry-server/transcripts/.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sp_telemetry.errors import QueryFailed
from sp_telemetry.store.client import Client
from sp_telemetry.store.engine import Engine, Handle, scratch
from sp_telemetry.store.memory import release
from sp_telemetry.store.schema import shipped
from sp_telemetry.transcripts import lines
from sp_telemetry.transcripts.files import Found, Transcript, machine
from sp_telemetry.transcripts.lines import LONGEST

READER = 4  # raise it when the statements find something else in the same file: then all are read anew
READERS = 2  # batches that are read at once, each by one thread of the engine and one that feeds it
MEMORY_MIB = 300  # at most, for each
BATCH_BYTES, BATCH_FILES = 160 << 20, 5_000  # the engine plans for 50 ms before it reads a batch's first line
IDS_AT_ONCE = 1000  # parameters travel in the address, which has its limit
SENDERS = 2  # inserts at once, each of which the server does with one thread
SEND_BYTES, SEND_FILES = 18 << 20, 10_000  # an insert costs the server 0.1 s before its first row
_UNREADABLE = "SELECT count() FROM lines WHERE kind = 'unreadable'"
_KNOWN = """CREATE TEMPORARY TABLE known (file UInt32, file_id String, machine String, folder_id String, reader UInt16, size UInt64,
    modified_ns UInt64, session_id String, agent_id String, root_id String, long_lines UInt64, problem String) ENGINE = Memory"""


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


def left_out(found: Found, read: Read) -> dict[str, Any]:
    """What could not be read, for machines: why lines were left out -> how many, and files with their reasons."""
    return {"lines_left_out": read.lines, "not_read": [list(each) for each in (*found.refused, *read.problems)]}


def bring(client: Client, found: Found, secret: str, progress: Callable[[int, int], None] = lambda done, of: None) -> Read:
    """Bring the store up to date with `found`: only what is new or changed is read. `client` may write.

    `progress` is told bytes done and bytes to do. Raises ServerUnreachable, QueryFailed where the store takes nothing; a file that
    can't be read is named in the result and in the store.
    """
    known = _known(client, machine(secret))
    stale = [file for file in found.files if _is_stale(file, known.get(file.file_id))]
    there = {file.file_id for file in found.files}
    gone = [file_id for file_id, of in known.items() if file_id not in there and (of.root_id in found.listed or not of.root_id)]
    if gone:
        _mark_gone(client, gone)
    done = Read(len(found.files), len(stale), len(gone), sum(file.size for file in stale))
    if stale:
        _read_all(client, stale, machine(secret), progress)
    done.lines, done.problems = _left_out(client, machine(secret), found)
    return done


def _read_all(client: Client, stale: list[Transcript], machine: str, progress: Callable[[int, int], None]) -> None:
    with scratch() as engine, ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(SENDERS) as senders:
        with engine.handle() as handle:
            release(handle)  # 60 MiB that only its start took
        batches = _batches(stale)
        reading = deque((batch, readers.submit(_read_batch, engine, batch, machine)) for batch in islice(batches, READERS))
        sending: deque[Future[None]] = deque()
        requests: list[bytes] = []
        files: list[bytes] = []
        unsent, so_far, size = 0, 0, sum(file.size for file in stale)
        while reading:
            batch, read = reading.popleft()
            for found in read.result():
                requests += found.requests
                files += found.files
            reading.extend((batch, readers.submit(_read_batch, engine, batch, machine)) for batch in islice(batches, 1))
            so_far += sum(file.size for file in batch)
            unsent += len(batch)
            if sum(map(len, requests)) > SEND_BYTES or (requests and not reading):
                if len(sending) == SENDERS:
                    sending.popleft().result()  # what waits is held in memory
                sending.append(senders.submit(client.insert, "telemetry.read_requests", "Native", *requests))
                requests = []
            if (unsent > SEND_FILES and not requests) or not reading:
                for sent in sending:  # a file that is known has been read: its requests come first
                    sent.result()
                client.insert("telemetry.read_files", "Native", *files)
                sending.clear()
                files, unsent = [], 0
            progress(so_far, size)


def _left_out(client: Client, machine: str, found: Found) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """What of the files that there are could not be read, this time or before: lines by the reason, and files."""
    sql = """SELECT sum(cut_lines), sum(unreadable_lines), sum(long_lines), groupArrayIf((file_id, problem), problem != '')
        FROM telemetry.transcript_files FINAL WHERE machine = {machine:String} AND gone_at = 0 AND has({roots:Array(String)}, root_id)"""
    roots = sorted({file.root_id for file in found.files})
    cut, unreadable, long, problems = client.query(sql, {"machine": machine, "roots": roots}).rows[0]
    lines = {"cut off in the middle": cut, "not of a transcript": unreadable, f"longer than {LONGEST >> 20} MiB": long}
    paths = {file.file_id: file.path for file in found.files}
    return lines, [(paths[file_id], problem) for file_id, problem in problems if file_id in paths]


@dataclass(frozen=True)
class Known:
    """What the store has of a file: by which reader and in which state, its root (empty: of an earlier version), what was wrong."""

    read: tuple[int, int, int]
    root_id: str
    problem: str


def _known(client: Client, machine: str) -> dict[str, Known]:
    sql = """SELECT file_id, reader, size, modified_ns, root_id, problem
        FROM telemetry.transcript_files FINAL WHERE machine = {machine:String} AND gone_at = 0"""
    return {row[0]: Known(tuple(map(int, row[1:4])), row[4], row[5]) for row in client.query(sql, {"machine": machine}).rows}


def _is_stale(file: Transcript, known: Known | None) -> bool:
    """Whether it has to be read. What could not be opened or read may be again, though nothing of the file has changed."""
    if not known or known.read != (READER, *file.state):
        return True
    return known.problem.startswith(lines.UNREAD) and lines.problem(file.path) != known.problem


def _mark_gone(client: Client, gone: list[str]) -> None:
    sql = """INSERT INTO telemetry.transcript_files SELECT * REPLACE (now64(9) AS read_at, now64(9) AS gone_at)
        FROM telemetry.transcript_files FINAL WHERE has({ids:Array(String)}, file_id)"""
    gone.sort()
    for first in range(0, len(gone), IDS_AT_ONCE):
        for _ in client.stream(sql, "Null", {"ids": gone[first : first + IDS_AT_ONCE]}):
            pass


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


@dataclass
class Findings:
    """Rows for telemetry.read_requests and telemetry.read_files, in Native: pieces."""

    requests: list[bytes]
    files: list[bytes]


def _read_batch(engine: Engine, batch: list[Transcript], machine: str) -> list[Findings]:
    """What fails as a batch is read in halves, so that one file costs its companions nothing."""
    with engine.handle() as handle:  # its temporary tables go with it
        handle.run(f"SET max_memory_usage = {MEMORY_MIB << 20}, max_threads = 1")
        handle.run(_KNOWN)
        try:
            return [_read(handle, batch, machine, {})]
        except QueryFailed as error:
            if len(batch) == 1:
                why = "takes too much memory" if error.code == 241 else f"was refused by the engine (code {error.code})"
                return [_read(handle, batch, machine, {1: why})]
    half = len(batch) // 2
    return _read_batch(engine, batch[:half], machine) + _read_batch(engine, batch[half:], machine)


def _read(handle: Handle, batch: list[Transcript], machine: str, failed: dict[int, str]) -> Findings:
    """`failed`: of which, counted from 1, only the names go to the store, and why."""
    text = "line"
    while True:
        handle.run("DROP TABLE IF EXISTS lines")
        mark = f"sp-telemetry {secrets.token_hex(16)} "
        wanted = [(number, file.path) for number, file in enumerate(batch, 1) if number not in failed]
        with lines.stream(wanted, mark) as stream:
            for statement in shipped("transcripts/read.sql"):
                handle.run(statement.replace("{lines}", stream.path).replace("{mark}", mark).replace("{text}", text))
        failed |= stream.closed | stream.broken  # what came of a file before it broke is not kept
        if not stream.broken and (text == "mended" or handle.query(_UNREADABLE, "TabSeparated") == b"0\n"):
            break
        text = text if stream.broken else "mended"
    known = [
        {
            "file": number,
            "file_id": file.file_id,
            "machine": machine,
            "folder_id": file.folder_id,
            "reader": READER,
            "size": file.size,
            "modified_ns": file.modified_ns,
            "session_id": file.session_id,
            "agent_id": file.agent_id,
            "root_id": file.root_id,
            "long_lines": stream.long_lines.get(number, 0),
            "problem": failed.get(number, ""),
        }
        for number, file in enumerate(batch, 1)
    ]
    handle.run("TRUNCATE TABLE known")  # there may be what a try before left
    handle.insert("INSERT INTO known", "JSONEachRow", [json.dumps(known).encode()])
    return Findings(*(list(handle.stream(shipped(f"transcripts/{rows}.sql")[0], "Native")) for rows in ("requests", "files")))
