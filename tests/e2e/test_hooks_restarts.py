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
SESSIONS, EDITS, PAUSE_S = 3, 40, 0.15
# As where a server does not answer (tests/unit/test_hooks_delivery.py). A hook that its own bound cuts off, on a machine that is busy with
# restarts, tells of nothing: here they are given twenty times as long, and wait for a server no longer than ever.
BOUND_S = 3.5


class Working(threading.Thread):
    """A session whose every edit is in another chapter than the one before, so that each is told of once."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session, self.took, self.failed = session, [], None

    def run(self) -> None:
        try:
            for number in range(EDITS):
                begun = time.monotonic()
                self.session.edit(self.session.cwd / f"manuscript/05-part/{chapter(number)}/text.md")
                self.took.append(time.monotonic() - begun)
                time.sleep(PAUSE_S)
        except BaseException as error:
            self.failed = error


def chapter(number: int) -> str:
    return ("33-agents", "34-costs")[number % 2]


def test_nothing_is_lost_or_doubled_while_the_server_restarts(tmp_path: Path) -> None:
    port, cwd = free_port(), book(tmp_path / "book")
    of = Server(tmp_path / "sp home", SP_TELEMETRY_OTLP_HTTP_PORT=str(port)).up()
    working = [Working(Session(tmp_path, cwd, port, str(UUID(int=number + 1)))) for number in range(SESSIONS)]
    try:
        for each in working:
            each.start()
        restarts = 0
        while any(each.is_alive() for each in working) or restarts < 2:
            if restarts % 2:
                of.down()
            else:
                os.kill(of.running.pid, signal.SIGKILL)
            of.up()
            restarts += 1
        for each in working:
            each.join()
            assert each.failed is None
            assert max(each.took) < BOUND_S, each.took
        waiting = [*(of.home.path / "spool").iterdir()]
        assert restarts > 3 and (waiting or working[0].session.counters()["delivered"])

        def nothing_waits() -> bool:
            working[0].session.hook("prompt", prompt="go on")  # which brings fifty of what waits
            return not [*(of.home.path / "spool").iterdir()]

        assert wait_for(nothing_waits, 90, 0.2), working[0].session.log()  # a minute of it for the claim of a hook that died
        asked = "SELECT chapter FROM telemetry.session_context FINAL WHERE session_id = '{}' ORDER BY at"
        for each in working:
            told = [row[0] for row in of.query(asked.format(each.session.id))]
            cut = [line for line in each.session.log().splitlines() if "the record waits" not in line]
            assert told == [chapter(number) for number in range(EDITS)], (len(told), cut)
    finally:
        of.down()
