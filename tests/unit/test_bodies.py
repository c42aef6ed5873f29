"""Bodies of requests: each has its time, and all together their room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from sp_telemetry.serve import bodies
from sp_telemetry.serve.commit import Busy


def application(room: int, seconds: float) -> web.Application:
    """Answers with how a body was received."""
    all_bodies = bodies.Bodies(room)

    async def receive(request: web.Request) -> web.Response:
        try:
            with all_bodies.share() as share:
                return web.Response(text=f"{len(await share.read(request, 1000, seconds))} bytes")
        except (Busy, TimeoutError, web.HTTPRequestEntityTooLarge) as error:
            return web.Response(text=type(error).__name__)

    async def room_left(_: web.Request) -> web.Response:
        return web.Response(text=str(all_bodies.room))

    app = web.Application()
    app.router.add_post("/", receive)
    app.router.add_get("/", room_left)
    return app


async def pieces(*sizes: int, every: float) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size
        await asyncio.sleep(every)


async def told(client: TestClient, *sizes: int, every: float = 0) -> str:
    answer = await client.post("/", data=pieces(*sizes, every=every))
    return await answer.text()


def ask(room: int, seconds: float, *bodies_of: tuple[tuple[int, ...], float], apart: float = 0) -> list[str]:
    """What each is answered, one begun `apart` after the other; all room is given back in the end."""

    async def run() -> list[str]:
        async with TestClient(TestServer(application(room, seconds))) as client:
            asked = []
            for sizes, every in bodies_of:
                asked.append(asyncio.create_task(told(client, *sizes, every=every)))
                await asyncio.sleep(apart)
            answers = await asyncio.gather(*asked)
            assert await (await client.get("/")).text() == str(room)
            return answers

    return asyncio.run(run())


def test_a_body_has_its_time_however_often_a_piece_of_it_comes() -> None:
    assert ask(100, 0.5, ((1,) * 50, 0.1), ((1,) * 3, 0.1)) == ["TimeoutError", "3 bytes"]


def test_a_body_that_stands_still_is_given_up_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PAUSE_S", 0.3)
    assert ask(100, 60, ((1, 1), 2), ((1,) * 10, 0.1)) == ["TimeoutError", "10 bytes"]


def test_what_comes_slowly_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "SLOW_S", 0.2)
    slow = ((50, 1, 1), 1.0)
    assert ask(100, 60, slow, slow, ((60,), 0), apart=0.4) == ["TimeoutError", "TimeoutError", "60 bytes"]
    assert ask(100, 60, slow, slow, ((40,), 0), apart=0.4) == ["TimeoutError", "52 bytes", "40 bytes"]


def test_what_came_just_now_does_not() -> None:
    """Many at once: who is late comes again, else all would chase each other away."""
    assert ask(110, 60, ((50, 10), 0.3), ((50,), 0.3), ((50,), 0), apart=0.1) == ["60 bytes", "50 bytes", "Busy"]


def test_a_body_is_no_larger_than_it_may_be() -> None:
    assert ask(10_000, 60, ((600, 600), 0), ((1000,), 0)) == ["HTTPRequestEntityTooLarge", "1000 bytes"]
