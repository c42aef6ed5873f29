"""A place with no name: the client runs as `author` in /home/author on the host `laptop`, whatever machine this is.

A recording is published, so it must not carry the paths, users and hosts of whoever made it. A private mount and host
name namespace (Linux, root) gives the client other ones; nothing outside changes. What cannot be hidden so, the kernel's
version, the recording script rewrites.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

UID = 1000
HOST = "laptop"
_ENTER = """
set -e
hostname "$NEUTRAL_HOST"
mount --bind "$NEUTRAL_CLIENT" "$NEUTRAL_HOMES/.client/claude"
mount --bind "$NEUTRAL_HOMES/.etc/passwd" /etc/passwd
mount --bind "$NEUTRAL_HOMES/.etc/group" /etc/group
mount --bind "$NEUTRAL_HOMES/.etc/hosts" /etc/hosts
mount --rbind "$NEUTRAL_HOMES" /home
mount -t tmpfs -o mode=1777 tmpfs /tmp
unset NEUTRAL_HOST NEUTRAL_CLIENT NEUTRAL_HOMES
cd /
exec setpriv --reuid=1000 --regid=1000 --clear-groups "$@"
"""


class NoNamespaces(Exception):
    """This machine cannot give the client a neutral place; the message says why."""


class NeutralHomes:
    """A directory that the client sees as /home, with one home for each user named."""

    def __init__(self, directory: Path, executable: Path, users: tuple[str, ...] = ("author",)) -> None:
        self.directory = directory
        self.executable = executable
        if sys.platform != "linux" or os.geteuid() != 0:
            raise NoNamespaces("recording needs Linux and root: the client gets a private /home by unshare and mount")
        for tool in ("unshare", "setpriv", "mount", "hostname"):
            if shutil.which(tool) is None:
                raise NoNamespaces(f"recording needs the command {tool}")
        for place in (".client", ".etc"):
            (directory / place).mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        (directory / ".client" / "claude").touch(mode=0o755)
        etc = directory / ".etc"
        etc.joinpath("passwd").write_text(
            f"root:x:0:0:root:/root:/bin/bash\n{users[0]}:x:{UID}:{UID}:Author:/home/{users[0]}:/bin/bash\n")
        etc.joinpath("group").write_text(f"root:x:0:\n{users[0]}:x:{UID}:\n")
        etc.joinpath("hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {HOST}\n")
        for user in users:
            (directory / user).mkdir(exist_ok=True)
            os.chown(directory / user, UID, UID)
        tried = subprocess.run(self.enter("true"), capture_output=True, text=True)
        if tried.returncode:
            raise NoNamespaces(f"a private /home is not possible here: {tried.stderr.strip()}")

    client = "/home/.client/claude"

    def enter(self, *command: str) -> list[str]:
        """The command, to be run inside."""
        return ["unshare", "--mount", "--uts", "env", f"NEUTRAL_HOST={HOST}", f"NEUTRAL_CLIENT={self.executable}",
                f"NEUTRAL_HOMES={self.directory}", "bash", "-c", _ENTER, "enter", *command]

    def run(self, *command: str, user: str, cwd: str | None = None) -> str:
        """A command of the set-up (git), run inside as the author; its output."""
        env = {"HOME": f"/home/{user}", "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC"}
        inside = self.enter("env", "-C", cwd or f"/home/{user}", *command)
        return subprocess.run(inside, env={**env, "PATH": os.environ["PATH"]}, check=True, capture_output=True, text=True).stdout

    def hand_over(self) -> None:
        """Gives everything written from outside to the author, who must be able to change it."""
        for path in self.directory.rglob("*"):
            if ".client" not in path.parts and ".etc" not in path.parts:
                os.chown(path, UID, UID, follow_symlinks=False)
