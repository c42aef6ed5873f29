"""Takes a set-up back: the user settings as they were, the server stopped, and with `purge` the data too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sp_telemetry.errors import ServerUnreachable, SpTelemetryError
from sp_telemetry.home import Home
from sp_telemetry.setup import bare_names, claude_settings, compose, configuration, service

#: what lies in a home that is ours; anything else there is left, and named
OURS = (
    *("store", "engine", "spool", "hooks", "logs", "secrets", "backups", "compose", "venv"),
    *("config.toml", "config.toml.uninstalled", "server.json", "server.lock", "setup.lock"),
)
SETTINGS = {
    "restored": "Back to what it was before the set-up, byte for byte: {file}",
    "removed": "Changed since the set-up, so only our variables are taken out: {file}",
    "left": "Nothing of ours is left in {file}",
    "nothing": "Claude Code's settings were not changed by a set-up of this home.",
}


@dataclass(frozen=True)
class Plan:
    """What an uninstall would do, and what it would leave."""

    home: str
    server_runs: bool
    settings_file: str
    settings: str
    variables_left: list[str]
    data_bytes: int
    purged: list[str]
    left: list[str]
    commands: list[str]
    commands_left: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def settings_text(self) -> str:
        text = SETTINGS[self.settings].format(file=self.settings_file)
        if self.variables_left:
            text += f"\n  changed by somebody since, so left: {', '.join(self.variables_left)}"
        text += "".join(f"\nThe command is taken away: {file}" for file in self.commands)
        return text + "".join(f"\nChanged by somebody since, so left: {file}" for file in self.commands_left)


def plan(home: Home, purge: bool) -> Plan:
    """Raises UsageError where the settings file can't be read: then nothing is done at all."""
    made = claude_settings.note(home)
    state, stays = claude_settings.undo(home, dry_run=True)
    there = sorted(entry.name for entry in home.path.iterdir()) if home.path.is_dir() else []
    mine = [name for name in there if name in OURS] if _is_ours(home, there) else []
    return Plan(
        str(home.path),
        service.is_up(home),
        made.file if made else "",
        state,
        stays,
        sum(size(home.path / name) for name in ("store", "engine", "spool")),
        mine if purge else [],
        [name for name in there if not purge or name not in mine],
        *bare_names.take_away(home, dry_run=True),
    )


def uninstall(home: Home, made: Plan, say: Callable[[str], None] = lambda text: None) -> None:
    """Carry `made` out. It can be interrupted anywhere and run again."""
    claude_settings.undo(home)
    bare_names.take_away(home)
    say(made.settings_text)
    composed = service.backend(home) == service.COMPOSE
    if home.path.is_dir():
        configuration.put_aside(home)  # before the server stops: a session that starts now must not start it again
    try:
        stopped = compose.down(home, volumes=bool(made.purged)) if composed else service.down(home)
    except (ServerUnreachable, OSError, ValueError) as error:
        raise SpTelemetryError(f"The server could not be stopped: {error}.", "`sp-telemetry logs` shows what it does.") from None
    say("The server is stopped." if stopped else "No server was running.")
    if not made.purged:
        return
    # The environment that runs this comes last.
    for name in sorted(made.purged, key=lambda name: name == "venv"):
        _remove(home.path / name)
    _remove(home.path / configuration.ASIDE)
    try:
        home.path.rmdir()
        say(f"{home.path} is removed.")
    except OSError:
        say(f"The data are removed; {home.path} holds something else and stays.")


def size(path: Path) -> int:
    """Bytes of a file or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total


def _is_ours(home: Home, there: list[str]) -> bool:
    """SP_TELEMETRY_HOME may name anything, a person's home directory too: only what looks like an installation is removed."""
    return ("store" in there and "secrets" in there) or "server.lock" in there or configuration.ASIDE in there


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
