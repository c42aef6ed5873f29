"""Installs pinned versions of ccusage from npm, which our numbers are held against, as install.py does with the client."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.client.install import ClientUnavailable, cache_directory

#: version -> what npm is asked for; the newer one is a program for each platform
PACKAGES = {
    "18.0.5": ("ccusage@18.0.5",),
    "20.0.24": ("ccusage@20.0.24", "@ccusage/ccusage-linux-x64@20.0.24"),
}


def ccusage(version: str) -> list[str]:
    """The command that reports days as JSON, installed on first use. Raises ClientUnavailable."""
    home = cache_directory() / f"ccusage-{version}"
    if not home.is_dir():
        _install(version, home)
    if version == "18.0.5":
        node = shutil.which("node")
        if node is None:
            raise ClientUnavailable("node is not installed")
        return [node, str(home / "node_modules/ccusage/dist/index.js"), "daily", "--json", "--offline"]
    program = home / "node_modules/@ccusage/ccusage-linux-x64/bin/ccusage"
    if not program.is_file():
        raise ClientUnavailable(f"ccusage {version} has no program for this platform")
    program.chmod(0o755)  # npm leaves it without
    return [str(program), "claude", "daily", "--offline", "--json"]


def _install(version: str, home: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ClientUnavailable("npm is not installed")
    home.parent.mkdir(parents=True, exist_ok=True)
    fresh = home.with_name(f"{home.name}.{os.getpid()}")
    fresh.mkdir()
    try:
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--force", "--prefix", str(fresh), *PACKAGES[version]],
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise ClientUnavailable(f"npm could not install ccusage {version}: {done.stderr.strip()[-500:]}")
        with contextlib.suppress(OSError):  # another process finished first; its copy serves as well
            fresh.rename(home)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
