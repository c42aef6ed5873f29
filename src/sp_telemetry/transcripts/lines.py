"""Transcripts as descriptors that the engine reads, without the lines that are longer than it should hold in memory.

Nobody looks into a line here. A file that is small has no long line; in a large one the places of the newlines are looked at,
a piece at a time, and only where a long line is found the rest goes to the engine through a pipe.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass

LONGEST = 8 << 20  # the longest answer of a model has not a tenth of it
_PIECE = 1 << 20


@dataclass
class Opened:
    """`descriptor`: what the engine opens as /proc/self/fd/N, while the block runs. `long_lines`: left out, known when it was read."""

    descriptor: int
    is_pipe: bool = False
    long_lines: int = 0


@contextlib.contextmanager
def opened(path: str, longest: int = LONGEST) -> Iterator[Opened]:
    """The file at `path`, never a link, a pipe or a device. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a file")
        if status.st_size <= longest or not _has_long_line(file, longest):
            yield Opened(file)
            return
        reader, writer = os.pipe()
        fed = Opened(reader, is_pipe=True)
        feeder = threading.Thread(target=_feed, args=(file, writer, longest, fed), daemon=True)
        feeder.start()
        try:
            yield fed
        finally:
            os.close(reader)
            feeder.join()
    finally:
        os.close(file)


def _pieces(file: int) -> Iterator[bytes]:
    at = 0
    while piece := os.pread(file, _PIECE, at):
        at += len(piece)
        yield piece


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


def _feed(file: int, writer: int, longest: int, fed: Opened) -> None:
    """Everything but the long lines. A line is held until its end is seen, so never more than `longest` and a piece."""
    with contextlib.suppress(BrokenPipeError), open(writer, "wb", buffering=0) as out:
        held: list[bytes] = []
        length, skipping = 0, False
        for piece in _pieces(file):
            first = piece.find(b"\n")
            if first < 0:
                held, length = ([], 0) if skipping else ([*held, piece], length + len(piece))
                if length > longest:
                    held, length, skipping = [], 0, True
                    fed.long_lines += 1
                continue
            if not skipping and length + first > longest:
                skipping = True
                fed.long_lines += 1
            last = piece.rfind(b"\n") + 1
            for part in (*(() if skipping else held), piece[first + 1 : last] if skipping else piece[:last]):
                _write(out, part)
            held, length, skipping = [piece[last:]], len(piece) - last, False
        for part in held:
            _write(out, part)


def _write(out, part: bytes) -> None:
    view = memoryview(part)
    while view:
        view = view[out.write(view) :]
