"""The random histories of histories.py on the real server process: every listener, every encoding, the hooks' spool, restarts
and kills, with the attribution and summaries that the server brings up to date by itself."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from sp_telemetry.setup import service
from sp_telemetry.setup.replay import GRPC_METHODS
from tests.server import JSON, PROTOBUF, Server, as_json, as_protobuf, log_request, server, wait_for
from tests.store.histories import KINDS, MS, WORK, History
from tests.unit.test_hooks import Session

pytestmark = [pytest.mark.checkout, pytest.mark.needs("sh", "git")]
Events = list[dict[str, Any]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("histories")
    with server(folder / "sp home") as started:  # the home of test_hooks' Session
        yield started, folder


class Remote(History):
    def __init__(self, place: tuple[Server, Path]) -> None:
        super().__init__()
        self.server, self.folder = place
        self.arrived_before = self.arrived.copy()  # this server's start
        self.unsure = 0  # events that may have been stored before it, which nobody was told
        self.ways = (self.protobuf, self.json, self.grpc, self.zipped, self.chunked, self.spooled)
        self.server.restart()  # its counters begin anew

    # -- the ways in

    def send(self, path: int, events: Events) -> None:
        self.ways[path % len(self.ways)](events)

    def protobuf(self, events: Events) -> None:
        self.server.stored("logs", as_protobuf(log_request(events)))

    def json(self, events: Events) -> None:
        self.server.stored("logs", as_json(log_request(events)), JSON)

    def grpc(self, events: Events) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{self.server.ports['otlp_grpc']}") as channel:
            assert channel.unary_unary(GRPC_METHODS["logs"])(as_protobuf(log_request(events)), timeout=30) == b""

    def zipped(self, events: Events) -> None:
        body = gzip.compress(as_json(log_request(events)))
        assert self.server.post("logs", body, JSON, Content_Encoding="gzip")[0] == 200

    def chunked(self, events: Events) -> None:
        body = as_protobuf(log_request(events))
        assert self.server.post("logs", iter([body[:7], body[7:]]), PROTOBUF)[0] == 200

    def spooled(self, events: Events) -> None:
        """Context records as a hook left them that found no server, sent by the hook that comes next; the rest as ever."""
        told = [event for event in events if event["name"] == "sp_telemetry.context"]
        if others := [event for event in events if event not in told]:
            self.protobuf(others)
        if not told:
            return
        spool = self.server.home.spool
        for event in told:
            identity = f"{event['time_ns']:016x}{event['session.id'].replace('-', '')[-16:]}"
            named = {name: event[f"context.{name}"] for name in ("feature", "chapter")}
            record = {"session_id": event["session.id"], "at_ns": event["time_ns"], "record_id": identity, **named}
            (spool / f"{event['time_ns']:020d}-{identity}.json").write_text(json.dumps(record))
        hook = Session(self.folder, self.folder, self.server.ports["otlp_http"])
        assert wait_for(lambda: hook.hook("prompt", prompt="go on") is not None and not list(spool.iterdir()), 15)

    # -- what happens to the server

    def merge(self) -> None:
        self.server.run("OPTIMIZE TABLE telemetry.telemetry_events FINAL")

    def restart(self) -> None:
        self.check_copies([])
        self.server.restart()
        self.begin_life()

    def kill(self) -> None:
        self.check_copies([])
        self.kill_now()
        self.begin_life()

    def kill_under_way(self, part: list[int], after_s: float) -> None:
        """So long after a request with these was sent: it may be stored or not, and comes again."""
        self.check_copies([])
        events = [self.told[place] for place in part]
        connection = self.server.http()
        connection.request("POST", "/v1/logs", as_protobuf(log_request(events)), {"Content-Type": PROTOBUF})
        time.sleep(after_s)
        self.kill_now()
        connection.close()
        self.begin_life()
        self.unsure = len({place for place in part if place not in self.arrived and self.told[place]["name"] != "sp_telemetry.context"})
        self.protobuf(events)
        self.arrived.update(part)

    def kill_now(self) -> None:
        os.kill(self.server.running.pid, signal.SIGKILL)
        assert wait_for(lambda: not service.is_held(self.server.home), every=0.005)
        self.server.up()

    def begin_life(self) -> None:
        self.arrived_before, self.unsure = self.arrived.copy(), 0

    # -- what is asked at the end

    def bring_up_to_date(self) -> None:
        self.check_copies([])
        self.server.restart()

    def check_copies(self, events: Events) -> None:
        """`duplicate`, of this server's life: all that came, minus what came for the first time."""
        if events:  # asked before the end of each life
            return
        lived = self.arrived - self.arrived_before
        copies = sum(
            times - (place not in self.arrived_before)
            for place, times in lived.items()
            if self.told[place]["name"] != "sp_telemetry.context"
        )
        assert 0 <= self.server.metrics()["sp_telemetry_events_duplicate"] - copies <= self.unsure

    def query(self, sql: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        return self.server.client.query(sql, parameters).records()

    def ask(self, sql: str) -> list[list[Any]]:
        return self.server.query(sql)


def live(place: tuple[Server, Path], seed: int, lives: int, steps: int) -> None:
    """A history over so many lives of the server, ended by each of the ways in turn. Sessions go on in other processes meanwhile."""
    chance = random.Random(seed)
    history = Remote(place)
    history.begin(sessions=chance.randint(1, 3))

    def some() -> list[int]:
        return [chance.randrange(len(history.told)) for _ in range(chance.randint(1, 60))]

    endings = [history.restart, history.kill, lambda: history.kill_under_way(some(), chance.uniform(0, 0.03))]
    chance.shuffle(endings)
    for life in range(lives):
        history.resume(session=chance.randrange(3))
        for _ in range(steps):
            for _ in range(chance.randint(1, 3)):
                events = [(chance.randrange(6), chance.choice(KINDS), chance.randrange(4000), chance.random() < 0.5) for _ in range(6)]
                history.work(events=events, pause=chance.choice([0, MS, 1800 * 1000 * MS]), together=chance.random() < 0.3)
                history.switch(session=chance.randrange(3), back=chance.randrange(40), what=chance.choice(WORK))
            places, requests = some(), chance.randint(1, 3)
            for request in range(requests):
                if part := places[request::requests]:
                    history.send(chance.randrange(len(history.ways)), [history.told[number] for number in part])
                    history.arrived.update(part)
        history.merge()
        if life + 1 < lives:
            endings[life % len(endings)]()
    processes = Counter(process.session for process in history.processes)
    assert max(processes.values()) > 1, "no session went on in another process"
    history.teardown()


@pytest.mark.timeout(240)
def test_any_history_over_the_sockets_ends_in_what_a_simple_model_says(place):
    live(place, seed=20261123, lives=4, steps=3)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(40))
def test_many_long_histories_over_the_sockets_end_in_what_a_simple_model_says(place, seed):
    live(place, seed, lives=4, steps=40)
