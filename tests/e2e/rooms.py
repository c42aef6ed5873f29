"""A mount namespace for a server of a test, with disks of any size in it: gone with its last process, whatever happens to the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sp_telemetry.setup import service
from tests.conftest import require
from tests.server import Server, wait_for


class Room:
    """A mount namespace. What is mounted there, nobody else sees; `outside` is how we look in."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "110"])
        ours = os.readlink("/proc/self/ns/mnt")
        inside = f"/proc/{self._holder.pid}/ns/mnt"
        ready = wait_for(lambda: self._holder.poll() is not None or os.readlink(inside) != ours, 10, 0.005)
        require(ready and self._holder.poll() is None, "a mount namespace needs root")

    @property
    def enter(self) -> list[str]:
        return ["nsenter", "--target", str(self._holder.pid), "--mount"]

    def run(self, *command: str | Path) -> None:
        subprocess.run([*self.enter, *map(str, command)], check=True)

    def outside(self, inside: Path) -> Path:
        return Path(f"/proc/{self._holder.pid}/root{inside}")

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class InRoom(Server):
    """A server whose home lies in a room."""

    def __init__(self, room: Room, folder: Path, **settings: str) -> None:
        super().__init__(room.outside(folder), **settings)
        self.room, self.folder = room, folder

    def up(self) -> InRoom:
        done = self.command("up")
        assert done.returncode == 0, done.stderr
        self.running = service.running(self.home)
        return self

    def command(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*self.room.enter, sys.executable, "-m", "sp_telemetry.cli.main", *arguments],
            env={**self.environ, "SP_TELEMETRY_HOME": str(self.folder)},
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def small_disk(room: Room, at: Path, mib: int) -> Iterator[InRoom]:
    at.mkdir()
    room.run("mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", at)
    placed = InRoom(room, at / "home")
    try:
        yield placed
    finally:
        placed.down()


def fill(file: Path) -> None:
    with open(file, "wb", buffering=0) as out:
        for size in (1 << 20, 4096, 1):
            try:
                while out.write(b"x" * size) == size:
                    pass
            except OSError:
                pass
