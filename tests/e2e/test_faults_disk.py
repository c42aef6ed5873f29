"""What a disk does to a server: no room, read-only."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve.trouble import READ_ONLY
from tests.e2e.faults import (
    assert_refused,
    assert_said,
    assert_stored_once_and_again_after_a_restart,
    assert_well,
    event,
    health,
    numbers,
    request,
)
from tests.e2e.rooms import InRoom, fill, room, small_disk
from tests.server import Server, wait_for

__all__ = ["room"]  # a fixture

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits, namespaces and /proc of Linux"),
    pytest.mark.timeout(300),
]


FULL = "The disk of the store is full"


@pytest.mark.needs("unshare", "nsenter", "mount")
def test_a_full_disk_refuses_and_room_is_all_it_takes_to_go_on(room, tmp_path):
    with small_disk(room, tmp_path / "small", 64) as placed:
        placed.up()
        pid, ballast = placed.running.pid, placed.home.path.parent / "ballast"
        first = request(event(1))
        placed.stored("logs", first)
        assert numbers(placed) == [1]
        fill(ballast)
        refused = [request(event(number)) for number in range(2, 6)]
        for body in refused:
            assert_refused(placed, body, FULL)
        assert_said(placed, FULL)
        assert numbers(placed) == [1], "what is stored can still be read"
        ballast.unlink()
        assert health(placed)[0] == 503, "nothing has been accepted yet, for all that is known"
        for body in (*refused, first):
            placed.stored("logs", body)
        assert_well(placed, pid)
        assert_stored_once_and_again_after_a_restart(placed, [1, 2, 3, 4, 5])


@pytest.mark.long
@pytest.mark.needs("unshare", "nsenter", "mount")
def test_a_disk_that_fills_up_under_load_keeps_what_was_acknowledged(room, tmp_path):
    """Not at a moment that we choose: while parts are written and merged, over and over."""
    with small_disk(room, tmp_path / "small", 20) as placed:
        placed.up()
        acknowledged, number = [], 0
        for _ in range(2):
            refused = 0
            ballast = placed.home.path.parent / "ballast"
            with open(ballast, "wb", buffering=0) as out:
                while refused < 5:
                    number += 1
                    status, _, text = placed.post("logs", request(event(number)))
                    assert status in (200, 503), text
                    acknowledged += [number] if status == 200 else []
                    refused += status == 503
                    with suppress(OSError):
                        out.write(b"x" * (1 << 20))
            ballast.unlink()
        assert len(acknowledged) > 10
        placed.stored("logs", request(event(number + 1)))
        found = numbers(placed)
        assert sorted(set(found)) == found and set(acknowledged) <= set(found)
        assert_stored_once_and_again_after_a_restart(placed, found)


@pytest.mark.needs("unshare", "nsenter", "mount")
def test_a_start_without_room_fails_in_a_sentence_and_the_next_one_with_room_works(room, tmp_path):
    with small_disk(room, tmp_path / "small", 32) as placed:
        placed.up()
        placed.stored("logs", request(event(1)))
        placed.down()
        ballast = placed.home.path.parent / "ballast"
        fill(ballast)
        told = placed.command("up")
        assert told.returncode == 1
        lines = told.stderr.splitlines()
        assert (
            len(lines) == 2
            and lines[0].startswith("sp-telemetry: The server did not start: ")
            and "disk" in lines[0]
            and "is full." in lines[0]
        ), told.stderr
        assert str(placed.folder / "logs") in lines[1]
        assert len(told.stderr) < 500 and "Traceback" not in told.stderr and "DB::Exception" not in told.stderr
        ballast.unlink()
        placed.up()
        assert_stored_once_and_again_after_a_restart(placed, [1])


@pytest.mark.needs("unshare", "nsenter", "mount")
def test_a_store_that_turns_read_only_refuses_until_it_can_be_written(room, tmp_path):
    placed = InRoom(room, tmp_path / "home")
    try:
        placed.up()
        pid, store = placed.running.pid, placed.folder / "store"
        placed.stored("logs", request(event(1)))
        assert numbers(placed) == [1]
        room.run("mount", "--bind", store, store)
        room.run("mount", "-o", "remount,ro,bind", store)
        second = request(event(2))
        assert_refused(placed, second, "The store can't be written")
        assert_said(placed, "The store can't be written")
        assert numbers(placed) == [1]
        room.run("umount", "--lazy", store)
        placed.stored("logs", second)
        assert_well(placed, pid)
        assert_stored_once_and_again_after_a_restart(placed, [1, 2])
    finally:
        placed.down()


def choose(of: Server, level: str) -> None:
    of.home.make()
    (of.home.path / "config.toml").write_text(f'privacy_level = "{level}"\n')


def assert_a_prompt_is_kept(of: Server, number: int, kept: bool) -> None:
    told = event(number, prompt="zebra words", prompt_length=11) | {"name": "user_prompt"}
    of.stored("logs", request(told))
    rows = of.query("SELECT attributes['prompt'] FROM telemetry.telemetry_events FINAL WHERE event_sequence = {n:UInt32}", n=number)
    assert ("zebra" in rows[0][0]) == kept, rows


LOOSER = "a changed privacy policy is not in force yet"
STRICTER = "a stricter privacy policy is not in force yet, and events are refused until it is"


def assert_policy_waits(of: Server, why: str, what: str) -> None:
    reason = f"{why}, so {what}."
    assert wait_for(lambda: health(of)[1].get("reason") == reason), health(of)
    status, state = health(of)
    assert status == 503 and state["mend"]
    told = of.command("status")
    assert told.returncode == 5 and f"trouble   {reason} {state['mend']}." in told.stdout
    log = (of.home.logs / "server.log").read_text()
    assert log.count(reason) == 1 and "DB::Exception" not in log


def level(of: Server) -> str:
    return json.loads(of.command("status", "--json").stdout)["privacy"]["level"]


@pytest.mark.needs("unshare", "nsenter", "mount")
def test_a_policy_that_could_not_be_recorded_for_lack_of_room_is_not_in_force(room, tmp_path):
    """Less room than a row takes, and enough for functions: full and back to strict meanwhile."""
    with small_disk(room, tmp_path / "small", 64) as placed:
        choose(placed, "strict")
        placed.up()
        assert_a_prompt_is_kept(placed, 1, False)
        ballast = placed.home.path.parent / "ballast"
        fill(ballast)
        os.truncate(ballast, ballast.stat().st_size - (600 << 10))
        choose(placed, "full")
        assert_policy_waits(placed, FULL, LOOSER)
        assert level(placed) == "strict"
        choose(placed, "strict")
        ballast.unlink()
        assert wait_for(lambda: health(placed)[0] == 200), health(placed)
        assert_a_prompt_is_kept(placed, 2, False)
        placed.restart()
        assert_a_prompt_is_kept(placed, 3, False)


@pytest.mark.needs("unshare", "nsenter", "mount")
@pytest.mark.parametrize(("folder", "answer"), [("store", 503), ("store/user_defined", 200)])
def test_nothing_is_taken_in_while_a_stricter_policy_cant_be_put_in_force(room, tmp_path, folder, answer):
    """Where only the folder of the engine's functions is read-only, events would be stored, by the policy before. `answer`: to those that
    come when the change is taken back."""
    placed = InRoom(room, tmp_path / "home")
    try:
        choose(placed, "full")
        placed.up()
        assert_a_prompt_is_kept(placed, 1, True)
        read_only = placed.folder / folder
        room.run("mount", "--bind", read_only, read_only)
        room.run("mount", "-o", "remount,ro,bind", read_only)
        choose(placed, "strict")
        assert_policy_waits(placed, READ_ONLY, STRICTER)
        reason = f"{READ_ONLY}, so {STRICTER}."
        assert_refused(placed, request(event(2)), reason)
        with pytest.raises(QueryFailed, match=STRICTER):
            placed.run("INSERT INTO telemetry.transcript_copies SELECT * FROM telemetry.transcript_copies")
        assert numbers(placed) == [1], "what is stored can still be read"
        assert placed.metrics()["sp_telemetry_store_available"] == 0
        found = {finding["code"]: finding for finding in json.loads(placed.command("doctor", "--json").stdout)["findings"]}
        assert reason in found["store-unavailable"]["what"]

        third = request(event(3))
        choose(placed, "full")
        assert wait_for(lambda: placed.post("logs", third)[0] == answer)
        choose(placed, "strict")
        assert wait_for(lambda: placed.post("logs", third)[0] == 503)
        room.run("umount", "--lazy", read_only)
        assert wait_for(lambda: health(placed)[0] == 200), health(placed)
        assert_a_prompt_is_kept(placed, 4, False)
        assert level(placed) == "strict" and numbers(placed) == [1, *([3] if answer == 200 else []), 4]
    finally:
        placed.down()
