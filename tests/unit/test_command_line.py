"""What holds for every command: where its output goes, what it says of what it does not know, errors for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: commands that need no server, with little to say and with more than a buffer holds
TALKING = [["--help"], ["report"], ["context"], ["env", "--shell", "bash"], ["privacy", "show"], ["privacy", "render"]]


def run(home: Path, *words: str, environ: dict[str, str] | None = None, **streams: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sp_telemetry.cli.main", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "", "SP_TELEMETRY_HOME": str(home), **(environ or {})}  # buffered, as for people
    given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run(command, env=environment, cwd=home.parent, text=True, timeout=60, **given)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and descriptors of POSIX")
@pytest.mark.parametrize("words", TALKING, ids=" ".join)
def test_output_may_be_closed_before_or_meanwhile(tmp_path: Path, words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(tmp_path / "home", *words, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    closed = run(tmp_path / "home", *words, stdin=None, stdout=None, preexec_fn=lambda: (os.close(0), os.close(1)))
    assert (closed.returncode, closed.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", TALKING, ids=" ".join)
def test_a_full_disk_is_one_sentence(tmp_path: Path, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = run(tmp_path / "home", *words, stdout=full)
    told = "sp-telemetry: Nothing more can be written: No space left on device.\nMake room, then run it again.\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_a_character_that_the_terminal_lacks_is_a_question_mark(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "Büchlein").mkdir()
    done = run(tmp_path / "home", "context", "--cwd", "Büchlein", "--branch", "ü", environ={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and "branch          ?" in done.stdout and done.stderr == ""


def test_files_are_utf_8_whatever_the_locale_says(tmp_path: Path) -> None:
    """Else no query with a letter of its own in its comments could be read, and names in config.toml became others."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('timezone = "Zürich"\n', "utf-8")
    environ = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "utf-8"}
    assert "The setting timezone is 'Zürich'" in run(tmp_path / "home", "report", "cost", environ=environ).stderr
    done = run(tmp_path / "home", "report", "cost", "--tz", "UTC", environ={**environ, "SP_TELEMETRY_CLICKHOUSE_PORT": "1"})
    assert done.returncode == 3 and "Nobody answers" in done.stderr


def test_what_a_command_does_not_know_is_said_with_what_it_knows(tmp_path: Path) -> None:
    done = run(tmp_path / "home", "report", "cost", "--bye", "day")
    assert done.returncode == 2 and "--by NAME" in done.stderr
    assert "sp-telemetry report: error: unrecognized arguments: --bye day" in done.stderr
    done = run(tmp_path / "home", "privacy", "apply", "--foo")
    assert done.returncode == 2 and "--to-stored" in done.stderr and "sp-telemetry privacy apply: error: unrec" in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["report", "cost", "--json"], 3),
        (["report", "tokens", "--format", "json", "--by", "nonsense"], 2),
        (["audit", "--json"], 3),
        (["backfill", "--json"], 3),
        (["sql", "SELECT 1", "--json"], 3),
        (["sql", "--json"], 2),
        (["report", "cost", "--json", "--cost", "guessed"], 2),
        (["status", "--json", "now"], 2),
        (["reprot", "--json"], 2),
        (["setup", "--json"], 2),
        (["doctor", "--json", "--bundle", "no such folder/x"], 2),
    ],
)
def test_programs_that_ask_for_json_get_errors_so(tmp_path: Path, words: list[str], code: int) -> None:
    nobody = {"SP_TELEMETRY_CLICKHOUSE_PORT": "1"}
    (tmp_path / "home").mkdir()
    done = run(tmp_path / "home", *words, environ=nobody)
    told = json.loads(done.stdout)
    assert done.returncode == code and done.stderr == ""
    assert told["ok"] is False and told["error"] and set(told) == {"ok", "error", "hint"}


@pytest.mark.parametrize("words", [["report", "cost"], ["sql", "SELECT 1"], ["backfill"]], ids=" ".join)
def test_nobody_answers_where_the_port_is_any_and_no_server_runs(tmp_path: Path, words: list[str]) -> None:
    done = run(tmp_path / "home", *words, environ={"SP_TELEMETRY_CLICKHOUSE_PORT": "0"})
    told = "sp-telemetry: Nobody answers at http://127.0.0.1:0 (Connection refused).\n`sp-telemetry up` starts the server.\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", told)


@pytest.mark.parametrize("port", ["metrics=\u00b2", "metrics=", "metrics=" + "9" * 5000, "metrics"], ids=["power", "none", "long", "name"])
def test_a_port_that_is_no_number(tmp_path: Path, port: str) -> None:
    done = run(tmp_path / "home", "setup", "--dry-run", "--port", port)
    assert done.returncode == 2 and "expected a name and a number, as in metrics=18888" in done.stderr


@pytest.mark.parametrize("lines", [0, 1, 2**31, 10**20])
def test_any_number_of_lines_of_the_log(tmp_path: Path, lines: int) -> None:
    (tmp_path / "home" / "logs").mkdir(parents=True)
    (tmp_path / "home" / "logs" / "server.log").write_text("one\ntwo\n")
    done = run(tmp_path / "home", "logs", "--lines", str(lines))
    assert (done.returncode, done.stdout, done.stderr) == (0, {0: "", 1: "two\n"}.get(lines, "one\ntwo\n"), "")


@pytest.mark.skipif(sys.platform == "win32", reason="a directory in use can't be removed")
@pytest.mark.parametrize("words", [["doctor"], ["setup", "--dry-run"], ["context"]], ids=" ".join)
def test_a_directory_that_is_gone(tmp_path: Path, words: list[str]) -> None:
    done = run(tmp_path / "home", *words, preexec_fn=lambda: (os.mkdir("gone"), os.chdir("gone"), os.rmdir("../gone")))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("sp-telemetry: The current directory no longer exists.\nChange to another one")


def test_nobody_is_named_where_no_name_is_known(tmp_path: Path) -> None:
    nobody = dict.fromkeys(("USER", "LOGNAME", "USERNAME"), "") | dict.fromkeys(("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"), os.devnull)
    done = run(tmp_path / "home", "setup", "--dry-run", environ=nobody)
    assert "No name to report under" in done.stdout and "Reports name you" not in done.stdout and "\nThe data lie in" in done.stdout


def test_a_port_for_two_listeners(tmp_path: Path) -> None:
    done = run(tmp_path / "home", "setup", "--dry-run", "--json", "--person", "Ada", "--port", "metrics=41999", "--port", "health=41999")
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"]) == (1, False)
    assert "Port 41999 is to be health's and metrics's." in [check["what"] for check in told["checks"]]
