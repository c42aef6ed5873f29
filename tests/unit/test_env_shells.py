"""`sp-telemetry env` in real shells, called as the help says, with values that a shell would like to make something of."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_telemetry.setup.environment import render
from tests.conftest import require

NASTY = "'\"\\`$(){}[]<>|&;!#~*?%^=+,:@-_/ \t\n\r\u2018\u2019\u201a\u201bäé\u00a0\u2028\U0001f4d6abAB01"
USES = {
    "bash": 'eval "$(cat "$0")"',
    "zsh": 'eval "$(cat "$0")"',
    "fish": 'cat "$TEXT" | source',
}


def values() -> dict[str, str]:
    dice = random.Random(4)
    found = [
        "plain",
        "=b",
        "a:=b",
        "a=~",
        'it\'s $HOME `x` \\ "q" é',
        "a\\'b",
        "\\",
        "'",
        "''",
        "\\\\'",
        "-n",
        "$(touch x)",
        "`touch x`",
        "'; touch x; '",
        "~",
        "!!",
        "*",
    ]
    found += ["".join(dice.choices(NASTY, k=dice.randint(1, 12))) for _ in range(300)]
    return {f"V{number}": value for number, value in enumerate(found)}


def in_shell(shell: str, text: str, folder: Path) -> dict[str, str]:
    """The variables that a program sees which is started after `text` was taken in."""
    require(shutil.which(shell), f"{shell} is not installed")
    (folder / "text").write_text(text)
    show = f"\n'{sys.executable}' -c 'import json, os; print(json.dumps(dict(os.environ)))'\n"
    command = [shell, "--no-config", "-c"] if shell == "fish" else [shell, "-f", "-c"] if shell == "zsh" else [shell, "-c"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "TEXT": str(folder / "text"), "LANG": "C.UTF-8"}
    arguments = [] if shell == "fish" else [str(folder / "text")]
    done = subprocess.run([*command, USES[shell] + show, *arguments], env=environ, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in folder.iterdir() if path.name == "x") == []
    return json.loads(done.stdout)


@pytest.mark.parametrize("shell", USES)
def test_every_value_arrives_as_it_is_and_goes_again(shell: str, tmp_path: Path) -> None:
    expected = values()
    found = in_shell(shell, render(shell, expected), tmp_path)
    assert {name: found.get(name) for name in expected} == expected
    found = in_shell(shell, render(shell, expected) + render(shell, expected, off=True), tmp_path)
    assert set(found).isdisjoint(expected)


def powershell_literal(text: str) -> str:
    """What about_Quoting_Rules says of a single-quoted string: verbatim, two quotes stand for one; typographic quotes are quotes too."""
    quotes = "'\u2018\u2019\u201a\u201b"
    assert text[0] in quotes
    value, at = "", 1
    while at < len(text):
        if text[at] in quotes:
            if at + 1 == len(text):
                return value
            assert text[at + 1] in quotes, "the string ended early"
            at += 1
        value += text[at]
        at += 1
    raise AssertionError("the string does not end")


@given(st.text(alphabet=NASTY) | st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_powershell_by_its_documented_rule(value: str) -> None:
    """There is none here to run it."""
    head, _, literal = render("powershell", {"A": value})[:-1].partition(" = ")
    assert head == "$env:A" and powershell_literal(literal) == value
