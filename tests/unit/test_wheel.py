"""The wheel holds what the package needs and nothing else, and `resources` finds it there as in a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sp_telemetry import resources
from tests.conftest import ROOT, WHEEL

RECORDING = "recordings/book-2.1.330-http-protobuf"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from a copy of the tree, with what a developer's machine would have in it."""
    copy = tmp_path_factory.mktemp("tree") / "checkout"
    copy.mkdir()
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    (copy / "README.md").touch()
    for name in ("src", "telemetry-server", f"tests/{RECORDING}"):
        shutil.copytree(ROOT / name, copy / name)
    (copy / "telemetry-server" / ".env").write_text("PASSWORD=planted\n")
    (copy / "src" / "sp_telemetry" / "__pycache__").mkdir(exist_ok=True)
    (copy / "src" / "sp_telemetry" / "__pycache__" / "x.pyc").write_text("")
    # pytest's own path is not the builder's: -I keeps the sources out of it.
    command = [sys.executable, "-I", "-m", "hatchling", "build", "-t", "wheel", "-d", str(copy / "dist")]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next((copy / "dist").glob("*.whl"))


def files_under(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file() and file.name not in (".env", ".gitkeep")}


@pytest.mark.checkout
def test_wheel_holds_modules_and_data_and_nothing_private(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    prefix = "sp_telemetry/data/telemetry-server/"
    assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} >= files_under(ROOT / "telemetry-server")
    assert f"sp_telemetry/data/{RECORDING}/recording.json" in names
    modules = {name.removeprefix("sp_telemetry/") for name in names if name.endswith(".py")}
    assert modules == {name for name in files_under(ROOT / "src" / "sp_telemetry") if name.endswith(".py")}
    assert not [name for name in names if name.endswith((".pyc", "/.env")) or name.startswith(("tests/", "src/"))]


@pytest.mark.checkout
def test_resources_are_found_in_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from sp_telemetry import resources;"
        "print(resources.path('telemetry-server/clickhouse'), resources.path(sys.argv[2]), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program, str(tmp_path), RECORDING], capture_output=True, text=True, check=True)
    schema, recording = map(Path, done.stdout.splitlines())
    data = tmp_path.resolve() / "sp_telemetry" / "data"
    assert schema == data / "telemetry-server" / "clickhouse"
    assert recording == data / RECORDING


def test_resources_are_found_where_this_package_lies() -> None:
    root = Path(WHEEL).resolve() / "sp_telemetry" / "data" if WHEEL else ROOT
    assert resources.path("telemetry-server/clickhouse") == root / "telemetry-server" / "clickhouse"
    assert (resources.path(RECORDING) / "recording.json").is_file()


def test_an_unknown_resource_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="telemetry-server/no-such"):
        resources.path("telemetry-server/no-such")
