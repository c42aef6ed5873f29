"""Runs the real client hermetically: a home and a configuration of its own, a stub for the model, no credentials.

Nothing of the caller's environment reaches the client except PATH and the locale: a developer's own telemetry switches,
keys and settings must neither change a test nor be used by one.
"""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Run:
    """One run of `claude -p`: what it was given, how it ended, and the JSON it printed."""

    args: list[str]
    returncode: int
    stdout: str = field(repr=False)
    stderr: str = field(repr=False)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def session_id(self) -> str:
        return self.result.get("session_id", "")


class ClaudeCode:
    """One installation of the client: its executable and a home. Several may share a repository.

    `settings` are written to the user's settings file (hooks, env, permissions). `prefix` is put before the command,
    for instance to enter a namespace (see neutral.py); then `home` and `inside` differ: the first is where the
    directory is, the second what the client calls it.
    """

    def __init__(self, executable: Path | str, home: Path, api_url: str, *, settings: dict[str, Any] | None = None,
                 prefix: Sequence[str] = (), inside: str | None = None, path: str | None = None) -> None:
        self.executable = str(executable)
        self.home = home
        self.config = home / ".claude"
        self.prefix = list(prefix)
        self._inside = inside or str(home)
        self._api_url = api_url
        self._path = path or os.environ.get("PATH", "/usr/bin:/bin")
        self.config.mkdir(parents=True, exist_ok=True)
        (home / ".cache" / "scratch").mkdir(parents=True, exist_ok=True)
        (self.config / "settings.json").write_text(json.dumps(settings or {}, indent=2))
        state = self.config / ".claude.json"
        if not state.exists():
            state.write_text(json.dumps({"hasCompletedOnboarding": True, "autoUpdates": False}))

    def environment(self, **more: str) -> dict[str, str]:
        """The whole environment of the client; also right for a terminal (tmux) that runs it interactively."""
        scratch = f"{self._inside}/.cache/scratch"
        return {
            "HOME": self._inside,
            "PATH": self._path,
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "SHELL": "/bin/bash",
            "CLAUDE_CONFIG_DIR": f"{self._inside}/.claude",
            "CLAUDE_CODE_TMPDIR": scratch,
            "TMPDIR": scratch,
            "ANTHROPIC_BASE_URL": self._api_url,
            "ANTHROPIC_API_KEY": "dummy",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_DISABLE_TERMINAL_TITLE": "1",
            "DISABLE_AUTOUPDATER": "1",
            "IS_SANDBOX": "1",
            **more,
        }

    def command(self, prompt: str, *, model: str | None = None, session_id: str | None = None,
                resume: str | None = None, more: Sequence[str] = ()) -> list[str]:
        """The arguments of a run without a person, after the executable."""
        args = ["-p", prompt, "--output-format", "json", "--permission-mode", "bypassPermissions"]
        if model:
            args += ["--model", model]
        if resume:
            args += ["--resume", resume]
        elif session_id:
            args += ["--session-id", session_id]
        return args + list(more)

    def run(self, prompt: str, *, cwd: Path | str, env: dict[str, str] | None = None, model: str | None = None,
            session_id: str | None = None, resume: str | None = None, more: Sequence[str] = (),
            timeout: float = 120) -> Run:
        """Runs one prompt to its end. `cwd` is a path as the client sees it."""
        session_id = session_id or (None if resume else str(uuid.uuid4()))
        args = self.command(prompt, model=model, session_id=session_id, resume=resume, more=more)
        environment = self.environment(**(env or {}))
        # env(1) changes the directory inside whatever the prefix entered.
        enter = [*self.prefix, "env", "-C", str(cwd)] if self.prefix else []
        done = subprocess.run([*enter, self.executable, *args], cwd=None if enter else cwd, env=environment,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        return Run(args, done.returncode, done.stdout, done.stderr, _result(done.stdout))


def _result(stdout: str) -> dict[str, Any]:
    """The last JSON object printed; a run that died before its result has none."""
    for line in reversed(stdout.strip().splitlines()):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, list):  # a list of messages where the settings ask for verbose output
            value = value[-1]
        if isinstance(value, dict):
            return value
    return {}
