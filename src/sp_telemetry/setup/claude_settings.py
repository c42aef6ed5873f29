"""Claude Code's user settings file: our variables in its `env` block, and the way back.

Before the file is touched, `<home>/backups/` gets what it was and a note of what is changed:

    claude-settings.json     the bytes before us; none where there was no file
    claude-settings.note     JSON: the file, hashes of before and after, and for each variable its value before and after

Undone with nothing changed since, the bytes before us are back. Changed since, only what is still as we wrote it is taken back.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sp_telemetry.errors import SpTelemetryError, UsageError
from sp_telemetry.home import Home
from sp_telemetry.setup import json_text
from sp_telemetry.setup.environment import RESOURCE, person_of, with_person, without_person

TRIES = 5
EMPTY = "{}\n"
BOM = "\ufeff"


@dataclass(frozen=True)
class Note:
    """What a set-up changed: per variable (value before, value after), None where it was not or is not there."""

    file: str
    existed: bool
    sha256_before: str
    sha256_after: str
    variables: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class SettingsFile:
    """The user settings file, as text; '' where there is none."""

    path: Path
    existed: bool
    text: str

    @property
    def content(self) -> str:
        """The JSON in it: an empty file stands for an empty object."""
        text = self.text.removeprefix(BOM)
        return text if text.strip() else EMPTY

    @property
    def env(self) -> dict[str, str]:
        """The `env` block, with values as the client takes them."""
        block = json_text.get(self.content, ("env",))
        return {name: as_text(value) for name, value in block.items()} if isinstance(block, dict) else {}


def locate(environ: Mapping[str, str]) -> Path:
    """Where Claude Code reads the user's settings."""
    folder = environ.get("CLAUDE_CONFIG_DIR")
    return (Path(folder) if folder else Path(environ.get("HOME") or Path.home()) / ".claude") / "settings.json"


def read(path: Path) -> SettingsFile:
    """The file at `path`. Raises UsageError where it can't be read, or edited without losing something."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return SettingsFile(path, False, "")
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.", "Nothing was changed.") from None
    try:
        text = data.decode("utf-8")
        file = SettingsFile(path, True, text)
        whole = json_text.parse(file.content)
        if not isinstance(whole, dict):
            raise json_text.NotJson("the whole is not an object")
        if not isinstance(whole.get("env", {}), dict):
            raise json_text.NotJson("env is not an object")
    except (UnicodeDecodeError, json_text.NotJson) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        what = f"{path} is not what Claude Code can read: {reason}. Nothing was changed."
        raise UsageError(what, "Mend the file, then run this again.") from None
    return file


def changed(file: SettingsFile, wanted: Mapping[str, str | None]) -> str:
    """The file's text with the variables `wanted`; None takes one away."""
    text, env = file.content, file.env
    for name, value in wanted.items():
        if value is None:
            text = json_text.remove(text, ("env", name))
        elif env.get(name) != value:
            text = json_text.put(text, ("env", name), value)
    if text == file.content:
        return file.text
    return (BOM if file.text.startswith(BOM) else "") + text


def apply(home: Home, path: Path, wanted: Mapping[str, str | None]) -> bool:
    """Write `wanted` into the file at `path`, with backup and note in `home`; False where nothing had to be changed."""
    for _ in range(TRIES):
        file = read(path)
        text = changed(file, wanted)
        if text == file.text:
            return False
        original, existed, before = _before_us(home, file)
        values = {name: (before.get(name), file.env.get(name)) for name in before}
        for name, value in wanted.items():
            if file.env.get(name) != value:
                values[name] = (before[name] if name in before else file.env.get(name), value)
        note = Note(str(path), existed, _sha(original), _sha(text), values)
        folder = home.path / "backups"
        folder.mkdir(mode=0o700, exist_ok=True)
        if existed:
            home.write_atomically(folder / "claude-settings.json", original)
        home.write_atomically(folder / "claude-settings.note", json.dumps(note.__dict__, indent=2))
        if _replace(path, file, text):
            return True
    raise SpTelemetryError(f"{path} is being changed by another program all the time.", "Try again when it has ended.")


def note(home: Home) -> Note | None:
    """What a set-up of this home changed, None where there was none or it was undone."""
    try:
        values = json.loads((home.path / "backups" / "claude-settings.note").read_text("utf-8"))
        return Note(**{**values, "variables": {name: tuple(pair) for name, pair in values["variables"].items()}})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def undo(home: Home, dry_run: bool = False) -> tuple[str, list[str]]:
    """Take our variables out: ('restored' | 'removed' | 'left' | 'nothing', names that somebody changed since and that stay)."""
    made = note(home)
    if made is None:
        return "nothing", []
    path = Path(made.file)
    for _ in range(TRIES):
        file = read(path)
        same = _sha(file.text) == made.sha256_after
        text, stays = (_backup(home), []) if same else _without_us(file, made)
        gone = same and not made.existed
        if dry_run or (text == file.text and not gone) or _replace(path, file, None if gone else text):
            if not dry_run:
                (home.path / "backups" / "claude-settings.note").unlink(missing_ok=True)
                if same:
                    (home.path / "backups" / "claude-settings.json").unlink(missing_ok=True)
            return ("restored" if same else "removed" if text != file.text else "left"), stays
    raise SpTelemetryError(f"{path} is being changed by another program all the time.", "Try again when it has ended.")


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _before_us(home: Home, file: SettingsFile) -> tuple[str, bool, dict[str, str | None]]:
    """(text, whether there was a file, our variables' values) as they were before the first set-up that still stands."""
    made = note(home)
    if made is None or made.file != str(file.path):
        return file.text, file.existed, {}
    before = {name: pair[0] for name, pair in made.variables.items()}
    if _sha(file.text) == made.sha256_after:
        return _backup(home), made.existed, before
    return _without_us(file, made)[0], file.existed, before


def _without_us(file: SettingsFile, made: Note) -> tuple[str, list[str]]:
    """The text with what is still ours taken back, and the variables that were changed since."""
    wanted: dict[str, str | None] = {}
    stays = []
    for name, (before, after) in made.variables.items():
        value = file.env.get(name)
        if value == after:
            wanted[name] = before
        elif name == RESOURCE and value is not None and after and person_of(value) == person_of(after):
            whom = person_of(before or "")
            wanted[name] = (with_person(value, whom) if whom else without_person(value)) or None
        elif value is not None and value != before:
            stays.append(name)
    without = SettingsFile(file.path, file.existed, changed(file, wanted))
    if file.env and not without.env:  # the block was ours too
        return without.text[: -len(without.content)] + json_text.remove(without.content, ("env",)), stays
    return without.text, stays


def _backup(home: Home) -> str:
    try:
        return (home.path / "backups" / "claude-settings.json").read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""


def _replace(path: Path, seen: SettingsFile, text: str | None) -> bool:
    """Put `text` in the file's place as a whole (None: no file), unless it changed since it was seen. A link stays a link."""
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{target.name}.sp-telemetry")  # one name, so that a killed set-up's is taken over by the next
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if seen.existed else 0o600
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
            os.fchmod(out.fileno(), mode)
            out.write((text or "").encode("utf-8"))
            out.flush()
            os.fsync(out.fileno())
        now = read(path)
        if (now.existed, now.text) != (seen.existed, seen.text):
            return False
        if text is None:
            target.unlink(missing_ok=True)
        else:
            draft.replace(target)
        return True
    except OSError as error:
        raise UsageError(f"{path} can't be written: {error.strerror}.", "Nothing was changed.") from None
    finally:
        draft.unlink(missing_ok=True)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
