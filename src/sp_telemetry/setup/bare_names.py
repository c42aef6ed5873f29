"""The commands' bare names, where another plugin has taken them.

Claude Code answers `/telemetry-report` as well as `/sp-telemetry:telemetry-report`, unless a plugin that was enabled earlier has a command
of that name (seen on 2.1.120, 2.1.197 and 2.1.330). A file in the user's `commands` folder wins over every plugin. Set-up offers to put
one there; a file of that name that is there already is the person's own, and stays.

`<home>/backups/bare-names.json` notes what was put where, with its hash, so that uninstall takes away just that.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sp_telemetry.home import Home, read_json
from sp_telemetry.setup import claude_settings, plugins
from sp_telemetry.setup.layers import Layer

NAMES = ("sp.telemetry-setup", "telemetry-report")
#: in the head of a file of ours; hooks/lib/report.py looks for it, so that it answers no command of somebody else's
MARK = "# put here by sp-telemetry setup; sp-telemetry uninstall takes it away"
FREE, TAKEN, THEIRS, OURS = "free", "taken", "theirs", "ours"


@dataclass(frozen=True)
class BareName:
    """A command's bare name: `free` (the plugin answers), `taken` (by the plugin `by`), `theirs` (the person's own file `by`), `ours`."""

    name: str
    state: str
    file: str
    by: str = ""

    @property
    def what(self) -> str:
        if self.state == TAKEN:
            return f"/{self.name} may be answered by the plugin {self.by}, which has a command of that name."
        if self.state == THEIRS:
            return f"/{self.name} is a command of your own ({self.by}); ours is /{plugins.NAME}:{self.name}."
        return f"/{self.name} is ours" + (f", by {self.file}" if self.state == OURS else "")


def look(home: Home, environ: Mapping[str, str], seen: list[Layer]) -> list[BareName]:
    """Who answers to each bare name; [] where our plugin is not enabled. `seen` are the layers of settings, the highest first."""
    config = claude_settings.locate(environ).parent
    enabled = plugins.enabled(seen)
    if not any(map(plugins.is_ours, enabled)):
        return []
    others = [name for name in enabled if not plugins.is_ours(name)]
    taken = {command: name for name in reversed(others) for command in plugins.commands(plugins.root(config, name))}
    noted = _noted(home)
    found = []
    for name in NAMES:
        file = config / "commands" / f"{name}.md"
        if noted.get(str(file)) == _sha(file):
            state, by = OURS, ""
        else:
            own = next((path for path in (file, config / "skills" / name / "SKILL.md") if os.path.lexists(path)), None)
            state, by = (THEIRS, str(own)) if own else (TAKEN, taken[name]) if name in taken else (FREE, "")
        found.append(BareName(name, state, str(file), by))
    return found


def put(home: Home, environ: Mapping[str, str], names: list[BareName]) -> list[str]:
    """Put our commands under `names`, or make anew what is ours there; the files written. A file of the person's is never touched."""
    config = claude_settings.locate(environ).parent
    root = _our_root(config)
    written = []
    for one in names if root else ():
        file = Path(one.file)
        data = _text(root, one.name).encode()
        if one.state == THEIRS or _sha(file) == hashlib.sha256(data).hexdigest():
            continue
        made = not file.parent.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            draft.write_bytes(data)
            # Noted first: killed after this, there is a note without its file, never a file without its note.
            _note(home, {**_noted(home), str(file): hashlib.sha256(data).hexdigest()}, [str(file.parent)] if made else [])
            if one.state == OURS:
                draft.replace(file)
            else:
                os.link(draft, file)  # fails where somebody was faster
            written.append(str(file))
        except FileExistsError:
            _note(home, {path: sha for path, sha in _noted(home).items() if path != str(file)})
        finally:
            draft.unlink(missing_ok=True)
    return written


def take_away(home: Home, dry_run: bool = False) -> tuple[list[str], list[str]]:
    """(files of ours that are removed, files that somebody changed since and that stay)."""
    removed, stay = [], []
    for path, sha in _noted(home).items():
        now = _sha(Path(path))
        if now == sha:
            removed.append(path)
            if not dry_run:
                Path(path).unlink()
        elif now:
            stay.append(path)
    if not dry_run:
        for folder in _folders(home):
            try:
                os.rmdir(folder)  # ours, if nobody put anything else there
            except OSError:
                continue
        (home.path / "backups" / "bare-names.json").unlink(missing_ok=True)
    return removed, stay


def _text(root: Path, name: str) -> str:
    """The plugin's own skill as a command file: there the client fills in no `${CLAUDE_PLUGIN_ROOT}`."""
    skill = (root / "commands" / name / "SKILL.md").read_text(encoding="utf-8")
    return skill.replace("---\n", f"---\n{MARK}\n", 1).replace("${CLAUDE_PLUGIN_ROOT}", str(root))


def _our_root(config: Path) -> Path | None:
    """Where our plugin's files lie: this checkout, else what Claude Code has installed."""
    checkout = Path(__file__).resolve().parents[3]
    installed = filter(plugins.is_ours, plugins.installed(config))
    for root in (checkout, *(plugins.root(config, name) for name in installed)):
        if root and all((root / "commands" / name / "SKILL.md").is_file() for name in NAMES):
            return root
    return None


def _noted(home: Home) -> dict[str, str]:
    files = read_json(home.path / "backups" / "bare-names.json").get("files", {})
    return {str(path): str(sha) for path, sha in files.items()} if isinstance(files, dict) else {}


def _folders(home: Home) -> list[str]:
    folders = read_json(home.path / "backups" / "bare-names.json").get("folders", [])
    return [str(folder) for folder in folders] if isinstance(folders, list) else []


def _note(home: Home, files: Mapping[str, str], made: Iterable[str] = ()) -> None:
    folders = sorted({*_folders(home), *made})
    (home.path / "backups").mkdir(mode=0o700, parents=True, exist_ok=True)
    home.write_atomically(home.path / "backups" / "bare-names.json", json.dumps({"files": files, "folders": folders}, indent=2))


def _sha(file: Path) -> str:
    """The hash of a file's bytes, '' where there is none that can be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
