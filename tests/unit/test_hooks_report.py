"""/telemetry-report, typed: answered by the hook, with arguments that no shell ever sees."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.setup.bare_names import MARK
from tests.unit.test_hooks import Session, otlp, session
from tests.unit.test_hooks_config import load

__all__ = ["otlp", "session"]  # fixtures
pytestmark = [pytest.mark.checkout, pytest.mark.needs("sh", "git")]


def typed(session: Session, arguments: Any, command: str = "sp-telemetry:telemetry-report") -> dict[str, Any]:
    return session.hook("report", command_name=command, command_args=arguments, prompt=f"/telemetry-report {arguments}")


def command_line(session: Session, text: str) -> None:
    cli = session.scratch / "com mand"
    cli.write_text("#!/bin/sh\n" + text)
    cli.chmod(0o755)
    session.more["SP_TELEMETRY_CLI"] = str(cli)


def words(session: Session, arguments: Any) -> list[str]:
    """What the command line is called with for these arguments."""
    command_line(session, 'for word in "$@"; do printf "%s\\n" "[$word]"; done')
    answer = typed(session, arguments)
    assert answer["decision"] == "block"
    return [line[1:-1] for line in answer["reason"].strip().splitlines()]


def test_the_report_stands_in_the_answer(session: Session) -> None:
    command_line(session, "echo 'chapter  cost'; echo '33       $1.23'")
    assert typed(session, "cost") == {"decision": "block", "reason": "\nchapter  cost\n33       $1.23"}


@pytest.mark.parametrize(("said", "width"), [("120", "110"), ("80", "70"), ("", "80"), ("wide", "80")])
def test_the_report_is_as_wide_as_the_session_shows(session: Session, said: str, width: str) -> None:
    command_line(session, 'echo "$COLUMNS"')
    session.more["COLUMNS"] = said
    assert typed(session, "cost")["reason"] == f"\n{width}"


@pytest.mark.parametrize("config", [".claude", "another place"])
def test_a_command_of_the_person_is_answered_only_where_set_up_put_it(session: Session, config: str) -> None:
    command_line(session, "echo ours")
    if config != ".claude":
        session.more["CLAUDE_CONFIG_DIR"] = str(session.scratch / config)
    file = session.scratch / config / "commands" / "telemetry-report.md"
    file.parent.mkdir(parents=True)
    file.write_text("---\nname: mine\n---\nmine\n")
    assert typed(session, "cost", "telemetry-report") == {}
    file.write_text(f"---\n{MARK}\n---\nours\n")
    assert typed(session, "cost", "telemetry-report")["reason"] == "\nours"


@pytest.mark.parametrize("command", ["report", "my-telemetry-report", "telemetry-report", "other:telemetry-report", "", None, 5])
def test_other_commands_are_let_through(session: Session, command: Any) -> None:
    command_line(session, "echo no")
    assert typed(session, "cost", command) == {}


@pytest.mark.parametrize(
    ("typed_words", "expected"),
    [
        ("", ["report", "--format", "text"]),
        (None, ["report", "--format", "text"]),
        ("cost --by 'a b' --chapter \"3 3\"", ["report", "cost", "--by", "a b", "--chapter", "3 3", "--format", "text"]),
        ("cost --format csv", ["report", "cost", "--format", "csv"]),
        ("cost --json", ["report", "cost", "--json"]),
        ("what's up", ["report", "what's", "up", "--format", "text"]),
        ("täglich ✓", ["report", "täglich", "✓", "--format", "text"]),
    ],
)
def test_arguments_arrive_as_they_were_typed(session: Session, typed_words: Any, expected: list[str]) -> None:
    assert words(session, typed_words) == expected


@pytest.mark.parametrize(
    "attack",
    [
        '"; touch x; "', "$(touch x)", "`touch x`", "a; touch x", "a | touch x",
        "a && touch x", "> x", "' ; touch x ; '", "\\\" `touch x`", "a\ntouch x",
    ],
)
def test_no_argument_is_run(session: Session, attack: str) -> None:
    assert words(session, attack)[0] == "report"
    assert not (session.cwd / "x").exists()


def test_explain_hands_the_same_data_to_the_model(session: Session) -> None:
    command_line(session, 'echo "data of $*"')
    assert typed(session, "explain cost --since 7d") == {
        "hookSpecificOutput": {
            "hookEventName": "UserPromptExpansion",
            "additionalContext": "The report that was asked for:\n\ndata of report cost --since 7d --format text",
        }
    }


def test_a_failure_is_shown_as_the_command_line_says_it(session: Session) -> None:
    command_line(session, "echo 'sp-telemetry: nobody answers' >&2; exit 3")
    assert typed(session, "cost")["reason"] == "\nsp-telemetry: nobody answers"


def test_a_command_line_that_is_not_there_or_says_nothing(session: Session) -> None:
    session.more["SP_TELEMETRY_CLI"] = "/nowhere/sp-telemetry"
    assert "nowhere" in typed(session, "cost")["reason"]
    command_line(session, "exit 0")
    assert typed(session, "cost")["reason"].strip()


def test_before_set_up_the_answer_says_what_to_do(session: Session) -> None:
    session.more["SP_TELEMETRY_VENV"] = str(session.scratch / "none")
    assert "/sp.telemetry-setup" in typed(session, "cost")["reason"]


def test_a_long_answer_is_cut_at_a_line(session: Session) -> None:
    command_line(session, "i=0; while [ $i -lt 400 ]; do echo 'a line of a report that has many of them'; i=$((i + 1)); done")
    reason = typed(session, "tools")["reason"]
    assert len(reason) < 9500
    assert reason.splitlines()[-1] == "… the rest: sp-telemetry report tools"
    assert set(reason.strip().splitlines()[:-1]) == {"a line of a report that has many of them"}


def test_an_answer_that_takes_too_long_is_given_up(session: Session) -> None:
    command_line(session, f"echo $$ >'{session.scratch}/pid'; exec sleep 30")
    begun = time.monotonic()
    assert "No answer within 4 s" in typed(session, "cost")["reason"]
    assert time.monotonic() - begun < 25  # not the 30 that it would take
    pid = int((session.scratch / "pid").read_text())
    end = time.monotonic() + 10
    while runs(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not runs(pid)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "on Windows"])
def test_both_ways_to_run_a_command_say_the_same(elsewhere: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    report = load("report")
    if elsewhere:
        monkeypatch.delattr(os, "posix_spawnp")
    assert report._output(["sh", "-c", "echo täglich; echo bad >&2; cat; exit 3"], 20) == "täglich\nbad"
    assert report._output(["sh", "-c", "echo no; exec sleep 30"], 0.2) is None
    with pytest.raises(OSError):
        report._output(["/nowhere/at all"], 20)


def runs(pid: int) -> bool:
    """Whether the process still does something: in a container without an init, one that was killed may stay as a zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except OSError:  # no /proc here, or gone in this moment: then the next look says so
        return True


def test_the_switch_lets_the_skill_answer(session: Session) -> None:
    session.more["SP_TELEMETRY_HOOKS"] = "0"
    assert json.dumps(typed(session, "cost")) == "{}"
