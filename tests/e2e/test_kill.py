"""`kill -9` at any moment: what was acknowledged is stored once, and the next start is quick and good."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from http.client import HTTPException
from pathlib import Path

import pytest

from sp_telemetry.setup import service
from tests.server import Server, as_protobuf, context, log_request, wait_for

SENDERS = 4
START_S = 3.0
SESSIONS = [f"00000000-0000-0000-0000-00000000000{number}" for number in range(SENDERS)]


class Sender(threading.Thread):
    """A client of one session: sends events one request after the other, each again until it is acknowledged, contexts between."""

    def __init__(self, to: Server, session: str) -> None:
        super().__init__()
        self.to, self.session = to, session
        self.sent: dict[int, float] = {}  # acknowledged: number -> cost
        self.stop = threading.Event()
        self.number = 0

    def run(self) -> None:
        while not self.stop.is_set():
            self.number += 1
            cost = self.number / 1024
            at = time.time_ns()
            told = {"session.id": self.session, "event.sequence": self.number, "cost_usd": cost, "input_tokens": 1}
            events = [{"name": "api_request", "time_ns": at, **told}]
            if self.number % 5 == 0:
                events.append(context(self.session, at - 1, feature=f"{self.number % 3:03}-f"))
            body = as_protobuf(log_request(events))
            while not self._acknowledged(body):
                if self.stop.is_set():
                    return
                time.sleep(0.05)
            self.sent[self.number] = cost

    def _acknowledged(self, body: bytes) -> bool:
        try:
            return self.to.post("logs", body)[0] == 200
        except (OSError, HTTPException):
            return False


def kill_often(folder: Path, times: int) -> None:
    moments = random.Random(20261123)
    server = Server(folder).up()
    senders = [Sender(server, session) for session in SESSIONS]
    try:
        for sender in senders:
            sender.start()
        slowest = 0.0
        for _ in range(times):
            held = sum(len(sender.sent) for sender in senders)
            wait_for(lambda held=held: sum(len(sender.sent) for sender in senders) > held, every=0.01)
            time.sleep(moments.uniform(0, 0.4))
            os.kill(server.running.pid, signal.SIGKILL)
            assert wait_for(lambda: not service.is_held(server.home), every=0.005)
            begun = time.monotonic()
            server.up()
            slowest = max(slowest, time.monotonic() - begun)
        wait_for(lambda: all(len(sender.sent) > times for sender in senders))
    finally:
        for sender in senders:
            sender.stop.set()
        for sender in senders:
            sender.join()
    for sender in senders:
        rows = server.query(
            "SELECT event_sequence, cost_usd, count() FROM telemetry.telemetry_events FINAL"
            f" WHERE session_id = '{sender.session}' GROUP BY 1, 2"
        )
        # one request may have been committed without its sender having been told
        unsure = {sender.number} - set(sender.sent)
        assert {number: cost for number, cost, _ in rows if number not in unsure} == sender.sent
        assert all(times == 1 for _, _, times in rows)
    server.restart()  # an orderly end brings summaries up to date
    try:
        measures = "count(), sum(cost_usd), sum(input_tokens)"
        raw = server.query(f"SELECT session_id, {measures} FROM telemetry.telemetry_events FINAL GROUP BY 1 ORDER BY 1")
        assert server.query("SELECT session_id, requests, cost_usd, input_tokens FROM telemetry.session_summaries FINAL ORDER BY 1") == raw
        assert [row[0] for row in raw] == SESSIONS
        by_feature = server.query(f"SELECT feature, {measures} FROM telemetry.telemetry_events FINAL GROUP BY 1 ORDER BY 1")
        kept = "sum(requests), sum(cost_usd), sum(input_tokens)"
        assert server.query(f"SELECT feature, {kept} FROM telemetry.usage_hourly FINAL GROUP BY 1 ORDER BY 1") == by_feature
        wrong = server.query(
            "SELECT count() FROM (SELECT * FROM telemetry.telemetry_events FINAL) AS e"
            " ASOF LEFT JOIN (SELECT * FROM telemetry.session_context FINAL) AS c ON e.session_id = c.session_id AND e.timestamp >= c.at"
            " WHERE e.feature != c.feature"
        )
        assert wrong == [[0]]
    finally:
        server.down()
    assert slowest < START_S * (1 + os.getloadavg()[0] / (os.cpu_count() or 1)), slowest  # on a machine that does nothing else: 3 s


def test_killed_five_times_under_load(tmp_path):
    kill_often(tmp_path, 5)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_fifty_times_under_load(tmp_path):
    kill_often(tmp_path, 50)
