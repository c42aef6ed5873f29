"""Builds the OpenTelemetry Collector that tests run, from `telemetry-server/otel-collector/builder.yaml`, once for each content of it.

It is the collector that compose pins, from the same Go modules at the same version, with the components that the shipped configuration
uses and no others. Building takes about two minutes on two cores the first time, seconds when Go has compiled its modules before.

    python -m tests.collector.build     prints the path of the executable
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from sp_telemetry import resources
from tests.client.install import cache_directory

CONFIGURATION = resources.path("telemetry-server/otel-collector")
MANIFEST = CONFIGURATION / "builder.yaml"
NAME = "otelcol-contrib"
PATIENCE_S = 1200


class CollectorUnavailable(Exception):
    """The collector could not be built here; a test may skip with this as its reason."""


def version() -> str:
    """The pinned version, without a `v`."""
    return re.search(r"^  version: ([0-9.]+)$", MANIFEST.read_text(), re.MULTILINE)[1]


def collector() -> Path:
    """The executable, built on first use; whoever asks meanwhile waits for that. Raises CollectorUnavailable."""
    text = MANIFEST.read_text()
    home = cache_directory() / f"otelcol-{version()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    executable = home / NAME
    if executable.is_file():
        return executable
    if shutil.which("go") is None:
        raise CollectorUnavailable("Go is not installed, and the collector is built from Go modules")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the kernel however this ends
        if not executable.is_file():
            _build(text, home, executable)
    return executable


def _build(manifest: str, home: Path, executable: Path) -> None:
    began = time.monotonic()
    sources = home / "sources"
    shutil.rmtree(sources, ignore_errors=True)  # left by one that was killed
    sources.mkdir()
    copy = sources / "builder.yaml"
    copy.write_text(manifest.replace("dist:\n", f"dist:\n  output_path: {sources / 'out'}\n", 1))
    _say(f"building the OpenTelemetry Collector {version()} from Go modules, once; about 2 minutes")
    try:
        _run(["go", "install", f"go.opentelemetry.io/collector/cmd/builder@v{version()}"], sources, GOBIN=str(sources))
        _say("the builder is there; fetching modules and compiling")
        _run([str(sources / "builder"), "--config", str(copy)], sources)
        os.replace(sources / "out" / NAME, executable)  # whole or not at all
    finally:
        shutil.rmtree(sources, ignore_errors=True)
    _say(f"built in {time.monotonic() - began:.0f} s: {executable}")


def _run(command: list[str], folder: Path, **environment: str) -> None:
    try:
        done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=PATIENCE_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CollectorUnavailable(f"the collector could not be built: {error}") from None
    if done.returncode:
        raise CollectorUnavailable(f"the collector could not be built: {(done.stderr or done.stdout).strip()[-500:]}")


def _say(what: str) -> None:
    print(f"tests.collector: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(collector())
