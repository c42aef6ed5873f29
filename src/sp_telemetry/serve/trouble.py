"""What keeps the store from taking events, as one sentence. Never the engine's own text, which quotes what it was working on."""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from sp_telemetry.errors import QueryFailed
from sp_telemetry.store import room
from sp_telemetry.store.journal import set_aside

# Only these are about what a request says, so that it can never be stored (all that fuzzing ever met, and their kin). Any other
# error may be the machine's, and then the sender must keep the request: memory that runs out in the middle of decoding, say.
UNREADABLE = frozenset((0, 6, 26, 27, 32, 33, 38, 41, 43, 48, 50, 53, 62, 69, 70, 72, 117, 128, 130, 131, 190, 306, 349, 436, 444, 467))
_MEMORY_LIMIT = 241
_UNITS = {unit: 1 << 10 * power for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))}
_CHUNK = re.compile(r"attempt to allocate chunk of ([\d.]+) (\w+)\).*?maximum: ([\d.]+) (\w+)", re.DOTALL)

_OWN_LIMIT = re.compile(r"\bQuery memory limit exceeded")

FULL, READ_ONLY = "The disk of the store is full", "The store can't be written"
MEMORY, FILES, GONE = "The server is out of memory", "The server has too many files open", "Files of the store are missing"
_ERRNO = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: READ_ONLY,
    errno.EACCES: READ_ONLY,
    errno.EPERM: READ_ONLY,
    errno.EIO: "The disk of the store fails",
    errno.ENOMEM: MEMORY,
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.ENOENT: GONE,
}
_CODES = {243: FULL, _MEMORY_LIMIT: MEMORY, 173: MEMORY, 107: GONE, 252: "Too many parts of the store wait to be merged"}
OF_THE_PLACE = (FULL, READ_ONLY, FILES, GONE)
_MENDS = {
    FULL: "Make room, or shorten retention_events_days; it goes on by itself",
    READ_ONLY: "Make it writable again; it goes on by itself",
    MEMORY: "End what takes the memory; it goes on by itself",
    FILES: "Raise the limit of open files (ulimit -n), or: sp-telemetry restart",
    GONE: "Put the directory back, or begin a new store: sp-telemetry restart",
}


@dataclass(frozen=True)
class Trouble:
    """Why the store takes nothing now (`what`, a sentence without its full stop), and what mends it."""

    what: str
    mend: str = "sp-telemetry logs"
    at: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"{self.what}."


def can_never_be_stored(error: QueryFailed) -> bool:
    """Whether the request is to blame that could not be decoded, not the machine."""
    if error.code == _MEMORY_LIMIT and (found := _CHUNK.search(str(error))):  # a length in it that is no length
        return float(found[1]) * _UNITS.get(found[2], 0) > float(found[3]) * _UNITS.get(found[4], 1)
    return error.code in UNREADABLE


def is_too_much(error: QueryFailed) -> bool:
    """Whether the statement met its own limit: that is the request's own, where "(total)" would be the machine's."""
    return error.code == _MEMORY_LIMIT and bool(_OWN_LIMIT.search(str(error)))


def of_memory(error: BaseException | None) -> MemoryError | None:
    """That memory ran out, if it did: what a body is read by tells it as a body that is broken."""
    while error and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error


def of_error(error: Exception) -> Trouble:
    """What `error`, of the engine or the system, means."""
    text, code = str(error), getattr(error, "code", 0)
    found = re.search(r"errno: (\d+)", text)
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else 0
    if not number:  # the C++ library's errors have the words alone
        number = next((each for each in _ERRNO if os.strerror(each) in text), 0)
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    what = _ERRNO.get(number or 0) or _CODES.get(code) or f"The store can't take events ({_named(error, code)})"
    return Trouble(what, _MENDS.get(what, Trouble.mend))


def of_place(store: Path, inode: int) -> Trouble | None:
    """What the system says about the store's directory, which had `inode` when the engine opened it."""
    try:
        if store.stat().st_ino != inode:
            return Trouble("The store's directory is another one than the server opened", "sp-telemetry restart")
        if room.is_read_only(store) or not os.access(store, os.W_OK):
            return Trouble(READ_ONLY, _MENDS[READ_ONLY])
        return Trouble(FULL, _MENDS[FULL]) if room.is_full(store) else None
    except OSError as error:
        return of_error(error)


def of_journal(store: Path) -> str:
    """What is to be said of damaged files of the journal; '' where there are none. Nothing is refused for them."""
    try:
        names = ", ".join(path.name for path in set_aside(store / "journal"))
    except OSError:  # a trouble of its own, which others tell
        return ""
    what = "Acknowledged events may be missing: damaged files of the journal are kept in store/journal"
    return f"{what} ({names}). See: sp-telemetry doctor" if names else ""


def _named(error: Exception, code: int) -> str:
    return f"ClickHouse error {code}" if code else type(error).__name__
