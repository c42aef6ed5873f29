"""Installs a pinned Claude Code client from npm, once for each version.

Both ends of the supported range are installed by name, since the newest tag moves and the telemetry differs between
versions. The package's own launcher is by-passed: its post-install step (which npm may refuse to run) only puts the
platform's binary in place of a stub, and that binary lies in the package for the platform.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = "2.1.197"
NEWEST = os.environ.get("SP_TELEMETRY_TEST_CLIENT") or "2.1.330"  # another one by hand: does a release change what we rely on?
VERSIONS = (OLDEST, NEWEST)


class ClientUnavailable(Exception):
    """The client could not be installed here; a test may skip with this as its reason."""


def cache_directory() -> Path:
    """Where installed clients live: SP_TELEMETRY_TEST_CACHE, else the user's cache."""
    named = os.environ.get("SP_TELEMETRY_TEST_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sp-telemetry-tests"


def executable(version: str = NEWEST) -> Path:
    """The client's executable at exactly this version, installed on first use."""
    home = cache_directory() / f"claude-code-{version}"
    found = _binary(home)
    if found is None:
        _install(version, home)
        found = _binary(home)
    if found is None:
        raise ClientUnavailable(f"Claude Code {version} installed, but it holds no binary for this platform")
    return found


def _install(version: str, home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ClientUnavailable("npm is not installed")
    # Into a directory of its own, then renamed: an interrupted install must not look like a finished one.
    home.parent.mkdir(parents=True, exist_ok=True)
    fresh = home.with_name(f"{home.name}.{os.getpid()}")
    fresh.mkdir()
    try:
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--prefix", str(fresh), f"@anthropic-ai/claude-code@{version}"],
            capture_output=True, text=True, timeout=600,
        )
        if done.returncode:
            raise ClientUnavailable(f"npm could not install Claude Code {version}: {done.stderr.strip()[-500:]}")
        with contextlib.suppress(OSError):  # another process finished first; its copy serves as well
            fresh.rename(home)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _binary(home: Path) -> Path | None:
    name = "claude.exe" if sys.platform == "win32" else "claude"
    for package in sorted((home / "node_modules" / "@anthropic-ai").glob("claude-code-*")):
        if (package / name).is_file():
            return package / name
    return None
