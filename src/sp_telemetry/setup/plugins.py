"""Claude Code's plugins, as its files name them (`name@marketplace`): which are enabled, where they lie, which commands they have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sp_telemetry.home import read_json
from sp_telemetry.setup.layers import Layer

NAME = "sp-telemetry"  # ours, from whichever marketplace


def is_ours(plugin: str) -> bool:
    return plugin.partition("@")[0] == NAME


def enabled(seen: list[Layer]) -> list[str]:
    """Those that are switched on; of each the highest layer that names it decides. `seen`: the layers, the highest first."""
    decided: dict[str, bool] = {}
    for layer in seen:
        named = layer.settings.get("enabledPlugins")
        for name, on in named.items() if isinstance(named, dict) else ():
            decided.setdefault(str(name), bool(on))
    return [name for name, on in decided.items() if on]


def installed(config: Path) -> dict[str, Any]:
    """What the client has installed, and where its copies are. `config`: its directory."""
    named = read_json(config / "plugins" / "installed_plugins.json").get("plugins")
    return named if isinstance(named, dict) else {}


def root(config: Path, plugin: str) -> Path | None:
    """The folder of an installed plugin, `name@marketplace`: in its marketplace's directory, where that is one, else in the cache."""
    name, _, market = plugin.partition("@")
    known = read_json(config / "plugins" / "known_marketplaces.json").get(market)
    place = Path(str(known.get("installLocation", ""))) if isinstance(known, dict) else None
    entries = read_json(place / ".claude-plugin" / "marketplace.json").get("plugins") if place else None
    for entry in entries if place and isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get("source"), str):
            return place / str(entry["source"])
    copies = installed(config).get(plugin)
    for copy in copies if isinstance(copies, list) else ():
        if isinstance(copy, dict) and isinstance(copy.get("installPath"), str):
            return Path(copy["installPath"])
    return None


def commands(root: Path | None) -> set[str]:
    """The bare names of a plugin's skills."""
    if root is None:
        return set()
    more = read_json(root / ".claude-plugin" / "plugin.json").get("skills", [])
    folders = ["skills", *(more if isinstance(more, list) else [more])]
    found = set()
    for file in (file for folder in folders if isinstance(folder, str) for file in (root / folder).glob("*/SKILL.md")):
        try:
            named = re.search(r"^name:\s*[\"']?([^\"'\n]+?)[\"']?\s*$", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        except OSError:
            continue
        found |= {file.parent.name, named[1]} if named else {file.parent.name}
    return found
