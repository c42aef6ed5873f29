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
from collections.abc import Callable
from pathlib import Path

from sp_telemetry import resources
from tests.client.install import cache_directory

CONFIGURATION = resources.path("telemetry-server/otel-collector")
MANIFEST = CONFIGURATION / "builder.yaml"
ASKING = Path(__file__).with_name("asking")
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
    return _once(f"otelcol-{version()}", text.encode(), NAME, lambda home: _build_collector(text, home))


def clickhouse_go() -> Path:
    """asking/main.go: asks a ClickHouse HTTP interface with the exporter's and Grafana's own library. Raises CollectorUnavailable."""
    files = sorted(ASKING.iterdir())
    return _once("clickhouse-go", b"".join(file.read_bytes() for file in files), "asking", _build_asking)


def _once(kind: str, made_of: bytes, name: str, build: Callable[[Path], Path]) -> Path:
    """The program `name` in the cache, made where it is not there: `build` gets a folder to work in and says where it put it."""
    home = cache_directory() / f"{kind}-{hashlib.sha256(made_of).hexdigest()[:12]}"
    executable = home / name
    if executable.is_file():
        return executable
    if shutil.which("go") is None:
        raise CollectorUnavailable(f"Go is not installed, and {name} is built from Go modules")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the kernel however this ends
        if not executable.is_file():
            sources = home / "sources"
            shutil.rmtree(sources, ignore_errors=True)  # left by one that was killed
            sources.mkdir()
            try:
                os.replace(build(sources), executable)  # whole or not at all
            finally:
                shutil.rmtree(sources, ignore_errors=True)
    return executable


def _build_collector(manifest: str, folder: Path) -> Path:
    began = time.monotonic()
    copy = folder / "builder.yaml"
    copy.write_text(manifest.replace("dist:\n", f"dist:\n  output_path: {folder / 'out'}\n", 1))
    _say(f"building the OpenTelemetry Collector {version()} from Go modules, once; about 2 minutes")
    _run(["go", "install", f"go.opentelemetry.io/collector/cmd/builder@v{version()}"], folder, GOBIN=str(folder))
    _say("the builder is there; fetching modules and compiling")
    _run([str(folder / "builder"), "--config", str(copy)], folder)
    _say(f"built in {time.monotonic() - began:.0f} s")
    return folder / "out" / NAME


def _build_asking(folder: Path) -> Path:
    for file in ASKING.iterdir():
        shutil.copy(file, folder)
    _run(["go", "build", "-o", "asking", "."], folder)
    return folder / "asking"


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
