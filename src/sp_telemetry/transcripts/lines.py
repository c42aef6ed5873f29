"""Transcripts as one stream that the engine reads: file after file, each behind a line that says which, without the lines that are
longer than the engine should hold in memory.

One stream and not a file each, because the engine takes a quarter of a millisecond for each file that it opens, and most are small.
Nobody looks into a line here. A file that is small has no long line; in a large one the places of the newlines are looked at, a piece
at a time. Where there is none the kernel moves the bytes (splice), else they go through here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

LONGEST = 8 << 20  # the longest answer of a model has not a tenth of it
UNREAD = "can't be "  # how every problem of this module begins
_PIECE = 1 << 20
_DESCRIPTORS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


@dataclass
class Stream:
    """`path`: what the engine opens, once. What follows is known when it was read: the numbers of files that could not be opened and of
    those that ended in an error, and why; how many lines were left out of which file."""

    path: str
    closed: dict[int, str] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    long_lines: dict[int, int] = field(default_factory=dict)


@contextlib.contextmanager
def stream(files: Sequence[tuple[int, str]], mark: str, longest: int = LONGEST) -> Iterator[Stream]:
    """The lines of `files` (number and path), never of a link, a pipe or a device. Before those of each stand `mark` and its number."""
    reader, writer = os.pipe()
    _widen(writer)
    made = Stream(f"{_DESCRIPTORS}/{reader}")
    feeder = threading.Thread(target=_feed, args=(files, mark.encode(), longest, writer, made), daemon=True)
    feeder.start()
    try:
        yield made
    finally:
        os.close(reader)
        feeder.join()


def _widen(pipe: int) -> None:
    """Room for a piece: with the 64 KiB that a pipe has, who writes and who reads wait for each other 16 times as often. A user who has
    many pipes may be refused."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIECE)


def problem(path: str) -> str:
    """Why the file at `path` can't be opened now; empty: it can."""
    try:
        os.close(_open(path))
    except OSError as error:
        return f"{UNREAD}opened: {error.strerror}"
    return ""


def _open(path: str) -> int:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a file")
    return file


def _feed(files: Sequence[tuple[int, str]], mark: bytes, longest: int, writer: int, made: Stream) -> None:
    with contextlib.suppress(BrokenPipeError), open(writer, "wb", buffering=0) as out:  # who reads may stop early
        for number, path in files:
            try:
                file = _open(path)
            except OSError as error:
                made.closed[number] = f"{UNREAD}opened: {error.strerror}"
                continue
            try:
                _write(out, mark + b"%d\n" % number)
                if os.fstat(file).st_size > longest and _has_long_line(file, longest):
                    ended, made.long_lines[number] = _without_long_lines(file, out, longest)
                else:
                    ended = _whole(file, out)
                if not ended:
                    _write(out, b"\n")
            except BrokenPipeError:
                raise
            except OSError as error:
                made.broken[number] = f"{UNREAD}read: {error.strerror}"
                _write(out, b"\n")
            finally:
                os.close(file)


def _pieces(file: int) -> Iterator[bytes]:
    at = 0
    while piece := os.pread(file, _PIECE, at):
        at += len(piece)
        yield piece


def _whole(file: int, out) -> bool:
    """Everything. Returns whether it ends with a newline (or is empty)."""
    at = _spliced(file, out.fileno()) if hasattr(os, "splice") else 0
    last = os.pread(file, 1, at - 1) if at else b"\n"
    while piece := os.pread(file, _PIECE, at):
        _write(out, piece)
        at += len(piece)
        last = piece[-1:]
    return last == b"\n"


def _spliced(file: int, writer: int) -> int:
    """How many bytes the kernel moved: all, or none where it can't with this kind of file."""
    at = 0
    try:
        while moved := os.splice(file, writer, _PIECE, offset_src=at):
            at += moved
    except OSError as error:
        if at or error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    return at


def _has_long_line(file: int, longest: int) -> bool:
    length = 0
    for piece in _pieces(file):
        first = piece.find(b"\n")
        length += len(piece) if first < 0 else first
        if length > longest:
            return True
        if first >= 0:
            length = len(piece) - piece.rfind(b"\n") - 1
    return False


def _without_long_lines(file: int, out, longest: int) -> tuple[bool, int]:
    """Everything but the long lines. A line is held until its end is seen, so never more than `longest` and a piece. Returns whether
    what was written ends with a newline, and how many were left out."""
    held: list[bytes] = []
    length, skipping, left_out = 0, False, 0
    for piece in _pieces(file):
        first = piece.find(b"\n")
        if first < 0:
            held, length = ([], 0) if skipping else ([*held, piece], length + len(piece))
            if length > longest:
                held, length, skipping = [], 0, True
                left_out += 1
            continue
        if not skipping and length + first > longest:
            skipping = True
            left_out += 1
        last = piece.rfind(b"\n") + 1
        for part in (*(() if skipping else held), piece[first + 1 : last] if skipping else piece[:last]):
            _write(out, part)
        held, length, skipping = [piece[last:]], len(piece) - last, False
    for part in held:
        _write(out, part)
    return not any(held), left_out


def _write(out, part: bytes) -> None:
    view = memoryview(part)
    while view:
        view = view[out.write(view) :]
