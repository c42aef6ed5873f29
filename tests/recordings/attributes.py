"""Prints which attributes each event, metric and span carried, with their types on the wire, for README.md.

    python tests/recordings/attributes.py
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.recordings.reading import recordings

TYPES = {str: "", int: "i", float: "d", bool: "b", list: "a"}
OLD, NEW = "2.1.197", "2.1.330"


def main() -> None:
    seen: dict[str, dict] = {kind: defaultdict(lambda: defaultdict(set)) for kind in ("events", "metrics", "spans")}
    types: dict[tuple[str, str], set[str]] = defaultdict(set)
    for recording in recordings():
        column = "switches" if recording.about["switches"] else recording.about["client_version"]
        found = [("events", event.name, event.attributes) for event in recording.events()]
        found += [("metrics", name, attributes) for name, attributes, _ in recording.points()]
        found += [("spans", name, attributes) for name, attributes in recording.spans()]
        for kind, name, attributes in found:
            for key, value in attributes.items():
                seen[kind][name][key].add(column)
                types[name, key].add(TYPES[type(value)])
    for kind, names in seen.items():
        on_all = set.intersection(*(set(keys) for keys in names.values()))
        old = {key for key in on_all if any(OLD in keys[key] for keys in names.values())}
        print(f"### {kind.capitalize()}\n\nOn every one: {_list(old)}; on every one of {NEW} alone: {_list(on_all - old)}\n")
        print("| name | both versions | only 2.1.330 | only 2.1.197 | only with the content switches on |\n|---|---|---|---|---|")
        for name, keys in sorted(names.items()):
            cells: dict[str, list[str]] = defaultdict(list)
            for key, columns in sorted(keys.items()):
                if key in on_all:
                    continue
                kinds = "/".join(sorted(types[name, key])) if types[name, key] != {""} else ""
                cell = "both" if {OLD, NEW} <= columns else NEW if NEW in columns else OLD if OLD in columns else "switches"
                cells[cell].append(key + (f":{kinds.strip('/') or 's'}" if kinds else ""))
            row = " | ".join(", ".join(cells[cell]) or "-" for cell in ("both", NEW, OLD, "switches"))
            print(f"| `{name.removeprefix('claude_code.')}` | {row} |")
        print()


def _list(keys: set[str]) -> str:
    return ", ".join(f"`{key}`" for key in sorted(keys)) or "none"


main()
