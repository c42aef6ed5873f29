"""Docker Compose as a plugin of the docker command, built once from its Go module into the tests' cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.client.install import cache_directory

VERSION = "v5.0.1"  # of those whose modules can be had, the newest that Go 1.26.8 builds
MODULE = f"module built\n\ngo 1.25\n\nrequire github.com/docker/compose/v5 {VERSION}\n\ntool github.com/docker/compose/v5/cmd\n"
BUILD_S = 900


class ComposeUnavailable(Exception):
    """Compose could not be built here; the text says why."""


def compose_plugin() -> Path:
    """The plugin's executable, built on first use."""
    built = cache_directory() / f"docker-compose-{VERSION}"
    if built.exists():
        return built
    go = shutil.which("go")
    if go is None:
        raise ComposeUnavailable("go is not installed")
    # Into a folder of its own, then renamed: an interrupted build must not look like a finished one.
    folder = built.with_name(f"{built.name}.{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        (folder / "go.mod").write_text(MODULE)
        (folder / "go.work").write_text("")  # none of the folders above is to be heeded
        environ = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=mod"}
        build = [
            go,
            "build",
            "-trimpath",
            f"-ldflags=-s -w -X github.com/docker/compose/v5/internal.Version={VERSION}",
            "-o",
            "docker-compose",
            "github.com/docker/compose/v5/cmd",
        ]
        done = subprocess.run(build, cwd=folder, env=environ, capture_output=True, text=True, timeout=BUILD_S)
        if done.returncode:
            raise ComposeUnavailable(f"Compose {VERSION} could not be built: {done.stderr.strip()[-500:]}")
        with contextlib.suppress(OSError):  # another process finished first; its copy serves as well
            (folder / "docker-compose").rename(built)
    except subprocess.TimeoutExpired:
        raise ComposeUnavailable(f"Compose {VERSION} was not built within {BUILD_S} s") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return built
