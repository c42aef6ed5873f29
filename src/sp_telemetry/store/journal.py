"""Rows that are acknowledged and wait for their insert: on disk, fsynced, until a table has them.

An insert costs 30 ms of CPU however few rows it brings; to append them to a file and fsync it costs less than one. So rows that are
typed and sanitised wait here for an insert that takes many. A server that is killed finds them again at its next start; what it had
inserted already is then inserted twice, and copies collapse.

A segment is a file of records, `length, CRC-32, a block of rows in FORMAT Native` each. A record that is cut off was never
acknowledged, and nothing follows it: that is what a kill leaves, and no news. Any other record that can't be read was acknowledged and is
damaged; what stands behind it is found all the same, and its file is kept, under another name, where it would be removed.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import struct
import threading
import zlib
from itertools import chain
from pathlib import Path

from sp_telemetry.store import room

log = logging.getLogger("sp_telemetry")

HEAD = struct.Struct("<QI")
NAME = "{:0>8}.rows"
DAMAGED = ".damaged"
SEARCH_BYTES = 1 << 28  # a quarter of a second of checksums
_LENGTH = re.compile(rb"(?=(?!\0{4})[\0-\xff]{4}\0{4})")  # what may be one: neither 0 nor 4 GB
_sync = getattr(os, "fdatasync", os.fsync)


class Segment:
    """One file. Its blocks are in memory too, until it is dropped. `lost`: how many of its bytes are damaged."""

    def __init__(self, path: Path, blocks: list[bytes], lost: int = 0) -> None:
        self.path, self.blocks, self.lost = path, blocks, lost

    @property
    def bytes(self) -> int:
        """The length of its file."""
        return sum(HEAD.size + len(block) for block in self.blocks)


class Journal:
    """The segments in `folder`, which is made if need be. Appending and taking may happen in different threads.

    Whatever writes raises OSError where the disk is full, say. All but `bytes` waits for a write that is under way.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._make_folder()
        self._lock = threading.Lock()
        self._closed = [_read(path) for path in sorted(folder.glob(NAME.format("[0-9]" * 8)))]
        self._number = max((int(path.name[:8]) for path in [*(segment.path for segment in self._closed), *set_aside(folder)]), default=0)
        self._open: Segment | None = None
        self._file = -1
        #: The length of its files. Read without the lock, by the event loop too: a disk may take seconds to sync.
        self.bytes = sum(segment.bytes for segment in self._closed)
        for segment in list(self._closed):
            if segment.lost and not segment.blocks:  # nothing of it waits for an insert
                self.drop(segment)

    @property
    def blocks(self) -> list[bytes]:
        """All that waits, also what was taken and is not dropped yet."""
        with self._lock:
            return [block for segment in [*self._closed, self._open] if segment for block in segment.blocks]

    def append(self, blocks: list[bytes]) -> None:
        """Returns when `blocks` are on the disk. Raises OSError; then nothing of them is kept."""
        heads = [HEAD.pack(len(block), zlib.crc32(block)) for block in blocks]
        with self._lock:
            self._require_folder()
            size = sum(map(len, heads + blocks))
            self._require_room(size)
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
            self.bytes += size

    def take(self) -> list[Segment]:
        """What waits, the oldest first. It stays here until it is dropped; what comes from now on waits apart."""
        with self._lock:
            self._end()
            return list(self._closed)

    def drop(self, segment: Segment) -> None:
        """A table has its rows. What is damaged stays, under a name that is not read again."""
        if segment.lost and segment.path.exists():
            segment.path.rename(segment.path.with_name(segment.path.name + DAMAGED))
        segment.path.unlink(missing_ok=True)
        with self._lock:
            self._closed.remove(segment)
            self.bytes -= segment.bytes

    def _require_folder(self) -> None:
        """Where somebody has removed it, or the open file, it is begun anew: what is written to a file without a name is lost."""
        if self._open and not os.fstat(self._file).st_nlink:
            self._end()
        self._make_folder()

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(mode=0o700)  # not its parents: a store that is missing is not begun here
            _sync_folder(self._folder.parent)

    def _require_room(self, size: int) -> None:
        """For the table too: what could only wait here is not taken."""
        number = errno.EROFS if room.is_read_only(self._folder) else errno.ENOSPC if room.is_full(self._folder, size) else 0
        if number:
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


def set_aside(folder: Path) -> list[Path]:
    """The damaged files in `folder` that wait for somebody to look at them, or to remove them."""
    return sorted(folder.glob(NAME.format("[0-9]" * 8) + DAMAGED))


def damage(path: Path) -> int:
    """How many bytes of a file that was set aside can't be read; the rest was inserted."""
    return _records(path.read_bytes())[1]


def _read(path: Path) -> Segment:
    segment = Segment(path, *_records(path.read_bytes()))
    if segment.lost:
        log.warning(
            "The journal is damaged: %d bytes of %s can't be read, %d blocks of events in it can. It is kept, as %s.",
            *(segment.lost, path, len(segment.blocks), path.name + DAMAGED),
        )
    return segment


def _records(data: bytes) -> tuple[list[bytes], int]:
    """The blocks of all records that are whole, and how many bytes are damaged."""
    blocks, lost, at = [], 0, 0
    while at < len(data):
        if block := _block(data, at):
            blocks.append(block)
            at += HEAD.size + len(block)
            continue
        onward = _next(data, at)
        if not onward and _is_torn(data[at:]):
            break
        lost += (onward or len(data)) - at
        at = onward or len(data)
    return blocks, lost


def _size(data: bytes, at: int) -> int:
    """What the record that begins there says of its size; 0 where that can't be."""
    length = HEAD.unpack_from(data, at)[0] if at + HEAD.size <= len(data) else 0
    return HEAD.size + length if 0 < length <= len(data) - at - HEAD.size else 0


def _block(data: bytes, at: int) -> bytes:
    """That of the record which begins there; empty where no whole one does."""
    size = _size(data, at)
    block = data[at + HEAD.size : at + size]
    return block if size and zlib.crc32(block) == HEAD.unpack_from(data, at)[1] else b""


def _next(data: bytes, at: int) -> int:
    """Where, behind the record that begins there and can't be read, a whole one begins; 0 for nowhere.

    Lengths are believed first, for what is within a block is a sender's text. A length may be what is damaged: then all is searched.
    Numbers in a block look like lengths too; only of so many of those from which no lengths lead to the end is the checksum made.
    """
    onward = at
    while size := _size(data, onward):
        onward += size
        if _block(data, onward):
            return onward
    left = SEARCH_BYTES
    for found in _LENGTH.finditer(data, at + 1):
        here = found.start()
        size = _size(data, here)
        if size and (left > 0 or _leads_to_end(data, here)):
            if _block(data, here):
                return here
            left -= size
    return 0


def _leads_to_end(data: bytes, at: int) -> bool:
    while size := _size(data, at):
        at += size
    return at == len(data)


def _is_torn(rest: bytes) -> bool:
    """Whether `rest`, behind which nothing is whole, is what a kill leaves of a record that was being written: a part of it. After a
    power cut it may be zeros. What has its whole length, or all of its block, was written to its end and may have been acknowledged."""
    if len(rest) < HEAD.size or not rest.strip(b"\0"):
        return True
    length, checksum = HEAD.unpack_from(rest)
    return length > len(rest) - HEAD.size and zlib.crc32(rest[HEAD.size :]) != checksum
