"""Hooks that run while their server is killed, ended and started, over and over: nothing lost, nothing twice, none beyond its bound."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from uuid import UUID

import pytest

from tests.ports import free_port
from tests.server import Server, wait_for
from tests.unit.test_hooks import Session, book

pytestmark = [pytest.mark.checkout, pytest.mark.needs("sh", "git"), pytest.mark.timeout(300)]
SESSIONS, RESTARTS, PAUSE_S = 3, 6, 0.15  # killed three times and ended as often, however long a busy machine takes for that
# As where a server does not answer (tests/unit/test_hooks_delivery.py). A hook that its own bound cuts off, on a machine that is busy with
# restarts, tells of nothing: here they are given twenty times as long, and wait for a server no longer than ever.
BOUND_S = 3.5


class Working(threading.Thread):
    """A session that goes on until it is told to end. Each of its edits is in another chapter than the one before: each is told of once."""

    def __init__(self, session: Session, end: threading.Event) -> None:
        super().__init__()
        self.session, self.end, self.took, self.failed = session, end, [], None

    def run(self) -> None:
        try:
            while not self.end.wait(PAUSE_S):
                begun = time.monotonic()
                self.session.edit(self.session.cwd / f"manuscript/05-part/{chapter(len(self.took))}/text.md")
                self.took.append(time.monotonic() - begun)
        except BaseException as error:
            self.failed = error


def chapter(number: int) -> str:
    return ("33-agents", "34-costs")[number % 2]


def test_nothing_is_lost_or_doubled_while_the_server_restarts(tmp_path: Path) -> None:
    port, cwd = free_port(), book(tmp_path / "book")
    of = Server(tmp_path / "sp home", SP_TELEMETRY_OTLP_HTTP_PORT=str(port)).up()
    end = threading.Event()
    working = [Working(Session(tmp_path, cwd, port, str(UUID(int=number + 1))), end) for number in range(SESSIONS)]
    try:
        for each in working:
            each.start()
        for restart in range(RESTARTS):
            if restart % 2:
                of.down()
            else:
                os.kill(of.running.pid, signal.SIGKILL)
            of.up()
        end.set()
        for each in working:
            each.join()
            assert each.failed is None
            assert len(each.took) > RESTARTS and max(each.took) < BOUND_S, each.took
        assert [*(of.home.path / "spool").iterdir()] or working[0].session.counters()["delivered"]

        def nothing_waits() -> bool:
            working[0].session.hook("prompt", prompt="go on")  # which brings fifty of what waits
            return not [*(of.home.path / "spool").iterdir()]

        assert wait_for(nothing_waits, 90, 0.2), working[0].session.log()  # a minute of it for the claim of a hook that died
        asked = "SELECT chapter FROM telemetry.session_context FINAL WHERE session_id = '{}' ORDER BY at"
        for each in working:
            told = [row[0] for row in of.query(asked.format(each.session.id))]
            cut = [line for line in each.session.log().splitlines() if "the record waits" not in line]
            assert told == [chapter(number) for number in range(len(each.took))], (len(told), cut)
    finally:
        end.set()
        of.down()
