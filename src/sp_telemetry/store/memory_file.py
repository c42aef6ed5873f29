"""Bytes in memory under a path that the engine can open. They never reach a disk."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def memory_file(pieces: Iterable[bytes]) -> Iterator[str]:
    """A path to read `pieces` from, once, while the block runs."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("sp-telemetry")
        try:
            with open(file, "wb", buffering=1 << 20, closefd=False) as out:
                out.writelines(pieces)
            yield f"/proc/self/fd/{file}"
        finally:
            os.close(file)
        return
    reader, writer = os.pipe()  # macOS: as much memory as a pipe holds, fed by a thread
    feeder = threading.Thread(target=_feed, args=(writer, pieces), daemon=True)
    feeder.start()
    try:
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)
        feeder.join()


def _feed(writer: int, pieces: Iterable[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError), open(writer, "wb") as out:  # the reader may stop early
        out.writelines(pieces)
