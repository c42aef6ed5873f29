"""A clock that is set forward and back, while the server runs and while it does not."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_telemetry.errors import ServerUnreachable
from sp_telemetry.setup import service
from tests.e2e.faults import (
    DAY_S,
    SESSION,
    assert_stored_once_and_again_after_a_restart,
    event,
    request,
)
from tests.server import Server, context, server, wait_for

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits, namespaces and /proc of Linux"),
    pytest.mark.timeout(300),
]


class Skewed(Server):
    """A server whose clock is the machine's plus so many seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "home")
        self._offset = folder / "offset"
        self.set_clock(0)
        self._process: subprocess.Popen | None = None

    def set_clock(self, seconds: int) -> None:
        draft = self._offset.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self._offset)

    def up(self) -> Skewed:
        self.home.make()
        script = Path(__file__).with_name("skewed_serve.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(self._offset), "--log-file", str(self.home.logs / "server.log")],
            env={**self.environ, "SP_TELEMETRY_HOME": str(self.home.path)},
        )
        self.running = wait_for(self._running, 30, 0.02)
        assert self.running
        return self

    def _running(self) -> service.Running | None:
        try:
            return service.running(self.home)
        except ServerUnreachable:
            return None

    def down(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)
        self.home.server_file.unlink()


@pytest.fixture
def skewed(tmp_path: Path) -> Iterator[Skewed]:
    made = Skewed(tmp_path)
    try:
        yield made.up()
    finally:
        made.down()


def told_by_feature(of: Server) -> dict[str, int]:
    return dict(map(tuple, of.query("SELECT feature, count() FROM telemetry.telemetry_events FINAL GROUP BY 1")))


def test_pitfall_34_a_clock_set_forward_and_back_loses_no_event_no_attribution_and_no_summary(skewed):
    begun, number = time.time_ns(), 0
    for ahead in (0, DAY_S, 0, -DAY_S, 0):
        skewed.set_clock(ahead)
        number += 2
        bodies = [request(event(number)), request(event(number + 1))]
        for body in (*bodies, bodies[0]):
            skewed.stored("logs", body)
        [[newest]] = skewed.query(
            "SELECT toFloat64(received_at) FROM telemetry.telemetry_events WHERE event_sequence = {n:UInt8}", n=number + 1
        )
        assert newest == pytest.approx(time.time() + ahead, abs=60), "the clock of the test is not the server's"
        # context that comes late, for what has just come
        skewed.stored("logs", request(context(SESSION, begun + number, feature=f"{number:03}-f")))
        assert wait_for(lambda number=number: set(told_by_feature(skewed)) == {f"{number:03}-f"}), (ahead, told_by_feature(skewed))
    assert skewed.metrics()["sp_telemetry_events_duplicate"] == 5
    assert_stored_once_and_again_after_a_restart(skewed, list(range(2, 12)))


def test_a_clock_set_back_while_the_server_was_down_or_killed_leaves_no_summary_behind(skewed):
    begun = time.time_ns()
    skewed.set_clock(DAY_S)
    skewed.stored("logs", request(context(SESSION, begun, feature="001-f"), event(1)))
    skewed.down()
    skewed.set_clock(0)
    skewed.up()
    skewed.stored("logs", request(event(2)))
    skewed.stored("logs", request(context(SESSION, begun + 1, feature="002-f")))
    assert wait_for(lambda: told_by_feature(skewed) == {"002-f": 2})
    skewed.kill()
    skewed.up()
    assert_stored_once_and_again_after_a_restart(skewed, [1, 2])


@pytest.mark.parametrize("zone", ["CET-1CEST", ":Nowhere/AtAll"])
def test_a_zone_that_the_engine_does_not_know_is_no_reason_not_to_serve(tmp_path, zone):
    """TZ may be a rule, as POSIX has it, and may be wrong. A report says which setting names the zone to cut days in."""
    with server(tmp_path / "home", TZ=zone) as started:
        at = time.time_ns()
        started.stored("logs", request(event(1, time_ns=at)))
        stored = started.query("SELECT toUnixTimestamp64Nano(timestamp) = {at:Int64} FROM telemetry.telemetry_events", at=at)
        assert stored == [[1]]
        assert "SP_TELEMETRY_TIMEZONE" in started.command("report", "cost").stderr
        started.environ["SP_TELEMETRY_TIMEZONE"] = "UTC"
        assert "1 request" in started.command("report", "cost").stdout
