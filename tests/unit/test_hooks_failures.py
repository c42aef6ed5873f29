"""Hooks may do nothing but help: whatever they meet, exit 0, silence, and within their bound."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.client import OtlpRecorder
from tests.conftest import require
from tests.unit.test_hooks import NOBODY, Session, command_of, otlp, records, session

__all__ = ["otlp", "session"]  # fixtures
pytestmark = [pytest.mark.checkout, pytest.mark.needs("sh", "git")]
CALLS = ("session", "prompt", "cwd", "edit", "bash", "report")


@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize(
    "stdin",
    [b"", b" \n", b"{", b"[]", b"null", b'"text"', b"\xff\xfe\x00", b'{"session_id": 7}', b'{"session_id": ""}', b"[" * 100_000, b"{}{}"],
)
def test_input_that_is_not_a_call_is_passed_over(session: Session, what: str, stdin: bytes) -> None:
    assert session.raw(what, stdin).stdout == b""
    assert session.spooled() == []


@pytest.mark.parametrize("what", ["session", "prompt", "cwd", "edit", "bash"])
def test_unknown_fields_and_wrong_types_are_passed_over(session: Session, what: str) -> None:
    session.hook(
        what, hook_event_name=["new"], source=3, prompt={"a": 1}, tool_name=None, tool_input="text", agent_id=[1], new={"deep": [[]]}
    )
    session.hook(what, cwd=str(session.cwd), tool_input={"file_path": 5, "skill": []}, tool_name="Skill")
    session.hook(what, tool_input={"file_path": "a\0b"})
    assert "gave up" not in session.log()


def test_a_call_of_ten_megabytes_is_read(session: Session, otlp: OtlpRecorder) -> None:
    session.start()
    call = {
        "session_id": session.id, "cwd": str(session.cwd), "hook_event_name": "PostToolUse", "tool_name": "Write",
        "tool_input": {"content": "ä" + "text\n" * 1_700_000, "file_path": str(session.cwd / "manuscript/05-part/33-agents/big.md")},
    }  # fmt: skip
    begun = time.monotonic()
    session.raw("edit", json.dumps(call).encode())
    assert time.monotonic() - begun < 4
    assert records(otlp, 2)[-1]["chapter"] == "33-agents"


@pytest.mark.parametrize("home", ["/proc/no-such-place", "/dev/null/home"])
def test_a_home_that_cannot_be_made_still_sends(session: Session, otlp: OtlpRecorder, home: str) -> None:
    session.more["SP_TELEMETRY_HOME"] = home
    session.start()
    session.hook("prompt", prompt="go on")
    session.edit(session.cwd / "manuscript/05-part/33-agents/text.md")  # not sent: it would be at every edit
    assert [one["hook"] for one in records(otlp, 2)] == ["session", "prompt"]


def test_no_home_at_all(session: Session, otlp: OtlpRecorder) -> None:
    call = json.dumps({"session_id": session.id, "cwd": str(session.cwd), "source": "startup"}).encode()
    environment = {name: value for name, value in session.environment.items() if name in ("PATH", "SP_TELEMETRY_OTLP_HTTP_PORT")}
    environment["XDG_DATA_HOME"] = str(session.scratch / "data")
    done = subprocess.run(command_of("session"), input=call, env=environment, capture_output=True, cwd=session.cwd)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(records(otlp, 1)) == 1
    assert (session.scratch / "data" / "sp-telemetry" / "hooks").is_dir()


def test_a_full_disk(session: Session, otlp: OtlpRecorder) -> None:
    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    session.start()
    call = {"session_id": session.id, "cwd": str(session.cwd), "hook_event_name": "full", "prompt": "/plan"}
    session.raw("prompt", json.dumps(call).encode(), preexec_fn=full)
    assert records(otlp, 2)[-1]["hook"] == "full"
    session.port = NOBODY
    session.raw("prompt", json.dumps(call).encode(), preexec_fn=full)
    assert session.spooled() == []
    assert not [path for path in session.home.rglob("*") if path.suffix.strip(".").isdigit()]  # no drafts stay


@pytest.mark.parametrize("spool", ["a file", "a link to nothing"])
def test_a_record_that_can_neither_be_sent_nor_wait_is_told_at_the_next_look(session: Session, otlp: OtlpRecorder, spool: str) -> None:
    """Else what was edited before it would be counted under the chapter before, until something else changes."""
    session.start()
    there, session.port = session.port, NOBODY
    shutil.rmtree(session.home / "spool")
    if spool == "a file":
        (session.home / "spool").write_text("")
    else:
        (session.home / "spool").symlink_to(session.home / "nothing")
    session.edit(session.cwd / "manuscript/05-part/34-costs/text.md")
    session.hook("prompt", prompt="/plan")
    assert "can't wait" in session.log() and "; the record waits" not in session.log()
    session.port = there
    for _ in range(2):
        session.hook("prompt", prompt="go on")
    assert [(one["chapter"], one["step"]) for one in records(otlp, 2)] == [("", ""), ("34-costs", "plan")]


def test_a_disk_that_takes_the_state_and_then_nothing_more(session: Session, otlp: OtlpRecorder) -> None:
    """Neither the record nor, in the state, that it was lost."""
    session.start()
    state = session.home / "hooks" / f"{session.id}.json"
    most = state.stat().st_size
    state.unlink()
    there, session.port = session.port, NOBODY
    shutil.rmtree(session.home / "spool")
    (session.home / "spool").write_text("")
    call = {"session_id": session.id, "cwd": str(session.cwd), "hook_event_name": "session", "source": "startup"}
    session.raw("session", json.dumps(call).encode(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
    session.port = there
    for _ in range(2):
        session.hook("prompt", prompt="go on")
    assert [one["hook"] for one in records(otlp, 2)] == ["session", "prompt"]


def test_a_hook_that_dies_after_it_wrote_the_state_has_lost_nothing(session: Session, otlp: OtlpRecorder) -> None:
    session.start()
    session.more["SP_TELEMETRY_HOOK_PATIENCE"] = "1"
    note = session.data / "heads" / session.id
    note.unlink(missing_ok=True)
    note.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(note)  # looked at between the state and what is sent
    session.edit(session.cwd / "manuscript/05-part/34-costs/text.md")
    assert "gave up: Late" in session.log()
    note.unlink()
    assert [json.loads(file.read_text())["chapter"] for file in (session.home / "spool").iterdir()] == ["34-costs"]


def test_a_disk_that_hangs_ends_at_the_bound(session: Session) -> None:
    session.more["SP_TELEMETRY_HOOK_PATIENCE"] = "1"
    session.start()
    (session.cwd / ".git" / "HEAD").unlink()
    os.mkfifo(session.cwd / ".git" / "HEAD")
    begun = time.monotonic()
    session.hook("prompt", prompt="go on")
    assert time.monotonic() - begun < 4
    assert "gave up: Late" in session.log()


def test_a_client_that_sends_nothing_is_not_waited_for(session: Session) -> None:
    session.more["SP_TELEMETRY_HOOK_PATIENCE"] = "1"
    begun = time.monotonic()
    process = subprocess.Popen(command_of("prompt"), stdin=subprocess.PIPE, env=session.environment, cwd=session.cwd)
    assert process.wait(5) == 0
    assert time.monotonic() - begun < 4
    process.stdin.close()


@pytest.mark.parametrize("python", ["no-such-python", "false", "exit3"])
def test_no_python_is_silence_and_a_note(session: Session, python: str) -> None:
    fake = session.scratch / "exit3"
    fake.write_text("#!/bin/sh\necho 'version manager: no python' >&2\necho text\nexit 3\n".replace("echo text\n", ""))
    fake.chmod(0o755)
    session.more["SP_TELEMETRY_PYTHON"] = str(fake) if python == "exit3" else python
    assert session.start() == {}
    assert "no Python 3.9" in (session.data / "no-python").read_text()


def interpreters() -> dict[tuple[int, int], str]:
    """The Pythons of this machine, by version, those of a version manager included."""
    places = [*os.environ["PATH"].split(os.pathsep), *map(str, (Path.home() / ".pyenv" / "versions").glob("*/bin"))]
    found = {}
    for minor in range(6, 16):
        for place in places:
            python = shutil.which(f"python3.{minor}", path=place)
            if python and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
                found[3, minor] = python
    return found


def test_an_old_python_leaves_at_once(session: Session) -> None:
    old = {version: python for version, python in interpreters().items() if version < (3, 9)}
    require(old, "no Python before 3.9 found")
    for python in old.values():
        shutil.rmtree(session.data, ignore_errors=True)
        session.more["SP_TELEMETRY_PYTHON"] = python
        assert session.start() == {}
        assert (session.data / "no-python").exists()


def test_python_3_9_and_each_newer_one_will_do(session: Session, otlp: OtlpRecorder) -> None:
    new = {version: python for version, python in interpreters().items() if version >= (3, 9)}
    require((3, 9) in new, "Python 3.9 not found")
    for python in new.values():
        before = len(records(otlp))
        session.more["SP_TELEMETRY_PYTHON"] = python
        session.start()
        session.hook("prompt", prompt="/plan")
        assert session.raw("prompt", b'{"half').stdout == b""
        assert [one["step"] for one in records(otlp, before + 2)[before:]] == ["", "plan"]
    assert {line.split("gave up: ")[1].split()[0] for line in session.log().splitlines()} <= {"ValueError", "Late"}


def test_the_interpreter_is_remembered_and_forgotten_when_it_is_gone(session: Session, otlp: OtlpRecorder) -> None:
    session.start()
    remembered = session.data / "python"
    assert os.path.samefile(remembered.read_text().strip(), sys.executable)
    broken = session.scratch / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    for text in (str(broken), "/nowhere/python3", ""):
        remembered.write_text(text + "\n")
        session.hook("prompt", prompt="/plan" if text else "/tasks")
        assert os.path.samefile(remembered.read_text().strip(), sys.executable)
    assert len(records(otlp, 3)) == 3


def test_the_switch_turns_everything_off(session: Session) -> None:
    session.more["SP_TELEMETRY_HOOKS"] = "0"
    assert session.start() == {}
    assert not session.home.exists()


def test_the_log_is_capped_and_tells_nothing_private(session: Session) -> None:
    session.port = NOBODY
    (session.home / "logs").mkdir(parents=True)
    (session.home / "logs" / "hooks.log").write_text("x" * 300_000)
    session.start()
    session.hook("prompt", prompt="/plan the secret thing")
    session.raw("prompt", b'{"prompt": "the secret')
    assert (session.home / "logs" / "hooks.log.1").stat().st_size == 300_000
    log = session.log()
    assert log.count("\n") == 3
    assert "secret" not in log
    assert str(session.scratch) not in log


def test_a_state_of_another_version_or_none_of_ours(session: Session, otlp: OtlpRecorder) -> None:
    session.start()
    state = session.home / "hooks" / f"{session.id}.json"
    for text in ("", "[]", '{"record": 5, "files": 7, "at": {}}', '{"record": {"session_id": "x", "new": 1}, "files": [1, "a"]}'):
        state.write_text(text)
        session.hook("prompt", prompt="go on")
    assert len(records(otlp, 5)) == 5
    assert "gave up" not in session.log()


def test_a_session_id_is_no_path(session: Session, otlp: OtlpRecorder) -> None:
    session.id = "../../esc ape/" + "x" * 300
    session.start()
    assert records(otlp, 1)[0]["session.id"] == session.id
    assert not list(session.scratch.glob("esc*"))
    assert Path(next((session.home / "hooks").glob("*x.json"))).parent == session.home / "hooks"
