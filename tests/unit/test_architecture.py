"""Imports point one way: as the table in docs/architecture.md says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.checkout
PACKAGE = ROOT / "src" / "sp_telemetry"
FOLDERS = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}


def allowed() -> dict[str, str]:
    """folder -> what it may import, in words."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    return dict(re.findall(r"^\| `src/sp_telemetry/(\w+)/` \|[^|]*\|([^|]*)\|$", text, re.MULTILINE))


def imported(file: Path) -> set[str]:
    """Modules of the package that a file names, also those that it imports late or for types only: `store.client`, `home`, …"""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "sp_telemetry":
            within = node.module.partition(".")[2]
            found |= {f"{within}.{name.name}".removeprefix(".") for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name.partition(".")[2] for name in node.names if name.name.startswith("sp_telemetry.")}
    return found


def test_the_table_has_every_folder() -> None:
    assert allowed().keys() == FOLDERS


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_folder_imports_what_it_may(folder: str) -> None:
    words = allowed()[folder]
    may = FOLDERS - {"cli"} if "all" in words.split() else FOLDERS.intersection(re.findall(r"\w+", words))
    for file in (PACKAGE / folder).glob("*.py"):
        others = {name for name in imported(file) if name.partition(".")[0] in FOLDERS - {folder}}
        assert {name.partition(".")[0] for name in others} <= may, file.name
        if folder == "setup":
            assert all(name.startswith("serve.ports") for name in others if name.startswith("serve")), file.name


def test_what_stands_beside_the_folders_imports_none_of_them() -> None:
    for file in PACKAGE.glob("*.py"):
        assert not {name.partition(".")[0] for name in imported(file)} & FOLDERS, file.name
