"""How much room the disk of a store has. Everybody who refuses, warns or explains asks here, so that they agree on when it is full."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LEAST_BYTES = 1 << 20  # the engine reserves that much for the smallest insert


def free_bytes(folder: Path) -> int:
    """What a process without special rights can still write there. Raises OSError where `folder` is not."""
    return shutil.disk_usage(folder).free


def is_full(folder: Path, more: int = 0) -> bool:
    """Whether `more` bytes would leave too little for an insert."""
    return free_bytes(folder) < LEAST_BYTES + more


def is_read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
