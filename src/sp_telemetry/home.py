"""The one directory of an installation: where each thing lies, and the secrets in it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sp_telemetry.errors import UsageError
from sp_telemetry.settings import Settings, default_home

WRITER, READER = "telemetry_user", "telemetry_reader"


def here() -> Path:
    """The current directory. Raises UsageError where somebody has removed it."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("The current directory no longer exists.", "Change to another one.") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Home:
    """An installation's directory. Made with mode 0700; nothing of ours lies outside it."""

    path: Path

    @classmethod
    def open(cls, path: Path | None = None) -> Home:
        return cls(path or default_home())

    @property
    def store(self) -> Path:
        return self.path / "store"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def backups(self) -> Path:
        """Backups of the store, and of files that set-up changed."""
        return self.path / "backups"

    @property
    def server_file(self) -> Path:
        """Who serves this home, as JSON: pid, started_at, ports. Written when the server is ready."""
        return self.path / "server.json"

    def settings(self) -> Settings:
        return Settings.load(self.path)

    def make(self) -> Home:
        """Make the directory, private to its owner. Raises UsageError where that is impossible."""
        try:
            for folder in (self.path, self.path / "secrets", self.store, self.spool, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.path} can't be made: {error.strerror}.", "Name another directory in SP_TELEMETRY_HOME.") from None
        return self

    def secret(self, name: str) -> str:
        """The secret called `name`, generated at its first use into a file that only the owner can read.

        Two processes may ask at once: the first to link its file in place decides, the other reads that one.
        """
        file = self.path / "secrets" / name
        try:
            return file.read_text("utf-8").strip()
        except FileNotFoundError:
            self.make()
        import secrets  # OpenSSL comes with it: a fifth of what a report's own imports cost

        draft = file.with_name(f".{name}.{os.getpid()}")
        try:
            _write_out(draft, secrets.token_urlsafe(24) + "\n", 0o600)
            os.link(draft, file)
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
        return file.read_text("utf-8").strip()

    def server(self) -> dict[str, Any] | None:
        """What `server_file` says, or None without one that can be read. The process may be gone: see `setup.service`."""
        return read_json(self.server_file) or None

    def write_atomically(self, file: Path, text: str, mode: int = 0o600) -> None:
        """Replace `file` as a whole: a reader sees the old text or the new one."""
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            _write_out(draft, text, mode)
            draft.replace(file)
        except OSError:  # a full disk
            draft.unlink(missing_ok=True)
            raise


def _write_out(file: Path, text: str, mode: int) -> None:
    """Into `file`, and onto the disk."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
