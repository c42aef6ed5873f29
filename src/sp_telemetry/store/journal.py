"""Rows that are acknowledged and wait for their insert: on disk, fsynced, until a table has them.

An insert costs 30 ms of CPU however few rows it brings; to append them to a file and fsync it costs less than one. So rows that are
typed and sanitised wait here for an insert that takes many. A server that is killed finds them again at its next start; what it had
inserted already is then inserted twice, and copies collapse.

A segment is a file of records, `length, CRC-32, a block of rows in FORMAT Native` each. A record that is cut off was never
acknowledged, and nothing follows it.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

HEAD = struct.Struct("<QI")
LEAST_ROOM = 1 << 20  # the engine reserves that much for the smallest insert
NAME = "{:0>8}.rows"
_sync = getattr(os, "fdatasync", os.fsync)


class Segment:
    """One file. Its blocks are in memory too, until it is dropped."""

    def __init__(self, path: Path, blocks: list[bytes]) -> None:
        self.path, self.blocks = path, blocks

    @property
    def bytes(self) -> int:
        """The length of its file."""
        return sum(HEAD.size + len(block) for block in self.blocks)


class Journal:
    """The segments in `folder`, which is made if need be. Appending and taking may happen in different threads.

    Whatever writes raises OSError where the disk is full, say.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._lock = threading.Lock()
        self._closed = [Segment(path, list(_blocks(path.read_bytes()))) for path in sorted(folder.glob(NAME.format("[0-9]" * 8)))]
        self._number = max((int(segment.path.stem) for segment in self._closed), default=0)
        self._open: Segment | None = None
        self._file = -1

    @property
    def blocks(self) -> list[bytes]:
        """All that waits, also what was taken and is not dropped yet."""
        with self._lock:
            return [block for segment in [*self._closed, self._open] if segment for block in segment.blocks]

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(segment.bytes for segment in [*self._closed, self._open] if segment)

    def append(self, blocks: list[bytes]) -> None:
        """Returns when `blocks` are on the disk. Raises OSError; then nothing of them is kept."""
        heads = [HEAD.pack(len(block), zlib.crc32(block)) for block in blocks]
        with self._lock:
            self._require_room(sum(map(len, heads + blocks)))
            segment = self._open or self._begin()
            try:
                for piece in chain.from_iterable(zip(heads, blocks, strict=True)):
                    _write(self._file, piece)
                _sync(self._file)
            except OSError:
                try:
                    os.ftruncate(self._file, segment.bytes)
                except OSError:  # what came behind a record that is cut off would not be found
                    self._end()
                raise
            segment.blocks += blocks

    def take(self) -> list[Segment]:
        """What waits, the oldest first. It stays here until it is dropped; what comes from now on waits apart."""
        with self._lock:
            self._end()
            return list(self._closed)

    def drop(self, segment: Segment) -> None:
        """A table has its rows."""
        segment.path.unlink(missing_ok=True)
        with self._lock:
            self._closed.remove(segment)

    def _require_room(self, size: int) -> None:
        """For the table too: what could only wait here is not taken."""
        disk = os.statvfs(self._folder)
        full, read_only = disk.f_bavail * disk.f_frsize < LEAST_ROOM + size, disk.f_flag & os.ST_RDONLY
        if full or read_only:
            number = errno.EROFS if read_only else errno.ENOSPC
            raise OSError(number, os.strerror(number), str(self._folder))

    def _begin(self) -> Segment:
        path = self._folder / NAME.format(self._number + 1)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        self._number += 1
        try:
            _sync_folder(self._folder)
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._file, self._open = file, Segment(path, [])
        return self._open

    def _end(self) -> None:
        if self._open:
            os.close(self._file)
            self._closed.append(self._open)
            self._open = None


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _blocks(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + HEAD.size <= len(data):
        length, checksum = HEAD.unpack_from(data, at)
        block = data[at + HEAD.size : at + HEAD.size + length]
        if not length or len(block) < length or zlib.crc32(block) != checksum:  # after a power cut a file may end in zeros
            return
        yield block
        at += HEAD.size + length
