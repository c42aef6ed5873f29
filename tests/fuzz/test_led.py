"""Each parser of text for two seconds, led by what of the code an input reaches: a process of its own, for the code is instrumented."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, require

pytestmark = pytest.mark.checkout
SECONDS, TRIES = 2, 2000
BROKEN = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[2])  # of a text, Python may be told to look into no folder (PYTHONSAFEPATH)
from tests.fuzz import run

def broken(data):
    if data[:1] == b"{":  # a step that leads to the next one
        assert data[1:2] != b"[", "it did not hold"

run.FOUND = Path(sys.argv[1])
sys.exit(run.led(["broken"], 120, 1, {"broken": broken}))
"""


@pytest.fixture(autouse=True)
def leading() -> None:
    require(importlib.util.find_spec("atheris"), "atheris has no wheel for this platform or Python")


def test_what_is_reached_by_leading_holds() -> None:
    from tests.fuzz.text_targets import TARGETS

    command = [sys.executable, str(ROOT / "tests" / "fuzz" / "run.py"), "--seconds", str(SECONDS * len(TARGETS))]
    if os.environ.get("CI") == "true":  # the same tries at each run, or as many of them as there is time for: a verdict of the change
        command += ["--seed", "1", "--tries", str(TRIES)]
    done = _run([*command, *(word for name in TARGETS for word in ("--target", name))])
    assert done.stdout.endswith(f"{len(TARGETS)} targets, 0 failed\n") and done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.count("led by what it reaches") == done.stdout.count("stat::number_of_executed_units") == len(TARGETS)


def test_a_target_that_breaks_fails_and_its_input_is_kept(tmp_path: Path) -> None:
    done = _run([sys.executable, "-c", BROKEN, str(tmp_path), str(ROOT)])
    found = {file: file.read_bytes()[:2] for file in tmp_path.iterdir()}
    assert [*found.values()] == [b"{["], done.stdout[-3000:]
    [kept] = found
    assert done.returncode == 1 and "it did not hold" in done.stdout and str(kept) in done.stdout


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    return subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": "0"}, cwd=ROOT, timeout=290, **kept)
