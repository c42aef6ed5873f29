"""The real client in a terminal (tmux), and how long it takes from a key to a text on the screen.

The pane's output is read as it comes, by a pipe: nothing polls. What is looked for has to be one word that was not shown before.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.client import ClaudeCode

PATIENCE_S = 30


class Terminal:
    def __init__(self, socket: str, stream: int) -> None:
        self._tmux = ["tmux", "-L", socket]
        self._stream = stream

    def press(self, keys: str) -> None:
        subprocess.run([*self._tmux, "send-keys", keys], check=True)

    def until(self, text: str) -> float:
        """Wait for `text`; the moment at which it came. Raises TimeoutError with what stands on the screen."""
        seen, end = b"", time.perf_counter() + PATIENCE_S
        while text.encode() not in seen:
            if not select.select([self._stream], [], [], max(0, end - time.perf_counter()))[0]:
                screen = subprocess.run([*self._tmux, "capture-pane", "-p"], capture_output=True, text=True).stdout
                raise TimeoutError(f"{text!r} did not come within {PATIENCE_S} s:\n{screen}")
            seen += os.read(self._stream, 1 << 16)
        return time.perf_counter()

    def settle(self, seconds: float = 0.5) -> None:
        """Wait until nothing has been written for this long."""
        while select.select([self._stream], [], [], seconds)[0]:
            os.read(self._stream, 1 << 16)

    def answer_ms(self, line: str, text: str) -> float:
        """Type `line`, and time from Enter to `text`."""
        self.press(line)
        self.until(line.rpartition(" ")[2])
        self.settle()
        begun = time.perf_counter()
        self.press("Enter")
        return (self.until(text) - begun) * 1000


@contextlib.contextmanager
def terminal(client: ClaudeCode, cwd: Path, scratch: Path, **env: str) -> Iterator[Terminal]:
    """A session of `client` in a terminal of its own, ready for a prompt."""
    (client.config / ".claude.json").write_text(json.dumps({
        "hasCompletedOnboarding": True, "autoUpdates": False, "theme": "dark",
        "customApiKeyResponses": {"approved": ["dummy"], "rejected": []},
        "projects": {str(cwd): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}},
    }))  # fmt: skip
    socket, fifo = f"bench-{os.getpid()}-{client.home.name}", scratch / f"{client.home.name}.fifo"
    os.mkfifo(fifo)
    stream = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY)  # keeps the pipe open between tmux's own writers
    environment = client.environment(**env, TERM="xterm-256color")
    start = ["tmux", "-L", socket, "-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "50", shlex.quote(client.executable)]
    subprocess.run(start, env=environment, cwd=cwd, check=True)
    try:
        subprocess.run(["tmux", "-L", socket, "pipe-pane", "-O", f"exec cat >'{fifo}'"], check=True)
        made = Terminal(socket, stream)
        made.settle(3)
        yield made
    finally:
        subprocess.run(["tmux", "-L", socket, "kill-server"])
        os.close(writer)
        os.close(stream)
