"""A prompt's hook lets the client go on at once, and does its work whole all the same; the others are waited for."""

from __future__ import annotations

import json
import os
import time

import pytest

from tests.client import OtlpRecorder
from tests.unit.test_hooks import Session, git, otlp, records, session

__all__ = ["otlp", "session"]  # fixtures
pytestmark = [pytest.mark.checkout, pytest.mark.needs("sh", "git")]


@pytest.fixture
def free(session: Session) -> Session:
    session.more["SP_TELEMETRY_HOOKS"] = "1"
    return session


def test_the_client_does_not_wait_for_a_prompt(free: Session, otlp: OtlpRecorder) -> None:
    gate = free.scratch / "go on"
    os.mkfifo(gate)
    python = free.scratch / "slow python"
    python.write_text(f'#!/bin/sh\ncat "{gate}"\nexec python3 "$@"\n')  # until somebody writes into it
    python.chmod(0o755)
    free.more["SP_TELEMETRY_PYTHON"] = str(python)
    free.hook("prompt", prompt="/speckit.plan")  # returns, or times out
    assert records(otlp) == []
    gate.write_text("now\n")
    assert [record["step"] for record in records(otlp, 1)] == ["plan"]


def test_the_others_are_waited_for(free: Session) -> None:
    assert free.start()["hookSpecificOutput"]["additionalContext"]
    free.edit("manuscript/05-part/33-agents/x.md")
    state = free.home / "hooks" / f"{free.id}.json"
    assert json.loads(state.read_text())["record"]["chapter"] == "33-agents"
    git(free.cwd, "switch", "-q", "main")
    free.hook("bash", tool_name="Bash")
    assert json.loads(state.read_text())["record"]["branch"] == "main"
    free.more["SP_TELEMETRY_CLI"] = "/nowhere"
    assert free.hook("report", command_name="sp-telemetry:telemetry-report", command_args="cost")["decision"] == "block"


def test_a_large_prompt_is_read_whole(free: Session, otlp: OtlpRecorder) -> None:
    odd = "\\n %s \\0 \\\\ täglich \U0001f4d6 '\"$(touch x)`touch x`" * 50_000
    free.hook("prompt", prompt="/speckit.tasks " + odd)
    assert [record["step"] for record in records(otlp, 1)] == ["tasks"]
    assert not (free.cwd / "x").exists() and free.log() == ""


def test_what_is_no_text_ends_in_the_log(free: Session) -> None:
    free.raw("prompt", b"\x00\xff\xfe{]" * 1000)
    end = time.monotonic() + 20
    while "prompt gave up" not in free.log() and time.monotonic() < end:
        time.sleep(0.02)
    assert "prompt gave up: ValueError" in free.log()
