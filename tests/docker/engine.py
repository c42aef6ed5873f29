"""A Docker Engine of the tests' own: its own socket, directories, mounts and processes, and nothing of it is left behind.

It lives in a mount and a process namespace of its own, whose first process dies with the test run, however that ends; the kernel
then ends whatever runs in there, containers too. No bridge, no rule of iptables and no sysctl of the machine is touched but the
networks that containers ask for, which are removed at the end. What it has built is kept in the tests' cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.client.install import cache_directory
from tests.docker.compose_plugin import ComposeUnavailable, compose_plugin

START_S, STOP_S, LOCK_S = 60, 40, 900
DRIVERS = ("overlay2", "vfs")  # the first that works; vfs copies whole images, but needs nothing of the machine
#: What `sh`, the first process of the namespace, does: pass on the end, and reap what containers leave.
INIT = 'trap "kill -TERM \\$child" TERM; "$@" & child=$!; wait $child; wait $child'


class EngineUnavailable(Exception):
    """No engine can run here; the text says why."""


class Engine:
    """A running engine. `environ` is what the docker command has to have to speak to it."""

    def __init__(self, folder: Path, state: Path, plugin: Path) -> None:
        self.folder, self._state = folder, state
        self.socket = folder / "docker.sock"
        plugins = folder / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(plugin)
        self.environ = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(folder / "config"), "DOCKER_BUILDKIT": "0"}
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        for driver in DRIVERS:
            if self._start(driver):
                self._clear()
                return
        raise EngineUnavailable(f"dockerd did not start: {self.log()[-500:]}")

    def _start(self, driver: str) -> bool:
        """Whether it answers. What is on the disk belongs to its driver, so each has a directory of its own."""
        # fmt: off
        daemon = [
            "dockerd", f"--host=unix://{self.socket}", f"--data-root={self._state / driver}", f"--exec-root={self.folder / 'exec'}",
            f"--pidfile={self.folder / 'pid'}", f"--storage-driver={driver}", "--bridge=none", "--iptables=false", "--ip6tables=false",
            "--ip-forward=false", "--ip-masq=false", "--log-level=warn",
        ]
        # fmt: on
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-c", INIT, "init"]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen([*spaces, *daemon], stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_die_with_us)
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if subprocess.run(["docker", "version"], env={**os.environ, **self.environ}, capture_output=True).returncode == 0:
                return True
            time.sleep(0.2)
        self._end()
        return False

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def docker(self, *arguments: str, check: bool = True, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess:
        done = subprocess.run(
            ["docker", *arguments], env={**os.environ, **self.environ}, capture_output=True, text=True, timeout=timeout, **options
        )
        assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr[-2000:]}"
        return done

    def inspect(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self.docker(kind, "inspect", name).stdout)[0]

    def _clear(self) -> None:
        """Containers, volumes and networks of this run, or of one that was killed. Images stay."""
        if containers := self.docker("ps", "--all", "--quiet").stdout.split():
            self.docker("rm", "--force", "--volumes", *containers)
        if volumes := self.docker("volume", "ls", "--quiet").stdout.split():
            self.docker("volume", "rm", "--force", *volumes)
        self.docker("network", "prune", "--force")
        self.docker("image", "prune", "--force")

    def stop(self) -> None:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self._clear()
        self._end()

    def _end(self) -> None:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with contextlib.suppress(OSError, ValueError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and with it all of its namespace
            self._process.wait()


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    """The engine, for as long as the block runs. Raises EngineUnavailable where there can be none."""
    if os.geteuid() != 0:
        raise EngineUnavailable("a Docker Engine of the tests' own takes root")
    missing = [name for name in ("dockerd", "docker", "containerd", "runc", "unshare") if not shutil.which(name)]
    if missing:
        raise EngineUnavailable(f"{', '.join(missing)} not found (Debian: docker.io)")
    try:
        plugin = compose_plugin()
    except ComposeUnavailable as error:
        raise EngineUnavailable(str(error)) from None
    state = cache_directory() / "docker"
    state.mkdir(parents=True, exist_ok=True)
    # A socket's path has at most 107 characters, and pytest's folders are long.
    with _alone(state / "lock"), tempfile.TemporaryDirectory(prefix="docker-", ignore_cleanup_errors=True) as folder:
        engine = Engine(Path(folder), state, plugin)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One engine at a time over the cached images."""
    deadline = time.monotonic() + LOCK_S
    with open(lock, "w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise EngineUnavailable(f"another test run holds {lock}") from None
                time.sleep(1)
        yield


_libc = ctypes.CDLL(None)


def _die_with_us() -> None:
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
