"""A request that the server itself could not read may be sent again: it is never answered as one that can't be stored."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from sp_telemetry.serve import otlp_http
from sp_telemetry.serve.commit import Unavailable

HEADERS = {"Content-Type": otlp_http.PROTOBUF}


class Noted:
    """In the intake's place: what `status` and the log are to tell of."""

    def __init__(self) -> None:
        self.refusals: list[str] = []

    def note_refusal(self, why: Unavailable) -> None:
        self.refusals.append(why.trouble.what)


def asked(send: Callable[[TestClient], Awaitable[Any]], noted: Noted | None = None) -> tuple[int, str | None, bytes]:
    """What the endpoint answers to a request that never comes as far as the store."""

    async def run() -> tuple[int, str | None, bytes]:
        async with TestClient(TestServer(otlp_http.application(noted, 1 << 20))) as client:
            answer = await send(client)
            return answer.status, answer.headers.get("Retry-After"), await answer.read()

    return asyncio.run(run())


def fail_once(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The client of this test reads by the same methods, later."""

    def no_memory(*_: object, **__: object) -> None:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(method, no_memory)


def test_a_body_that_does_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stalled server sees that of a client that has sent all of it."""
    monkeypatch.setattr(otlp_http, "BODY_S", 0.2)

    async def slow():
        yield b"x"
        await asyncio.sleep(5)

    said = otlp_http.rpc_status(otlp_http.UNAVAILABLE, "the body didn't arrive within 0.2 s")
    assert asked(lambda client: client.post("/v1/logs", data=slow(), headers=HEADERS)) == (503, "5", said)


@pytest.mark.parametrize(
    ("of", "method"),
    [
        ("the stream", "sp_telemetry.serve.bodies.Share.read"),
        ("the parser", "aiohttp.streams.StreamReader.feed_data"),
        ("gzip", "aiohttp.compression_utils.ZLibDecompressor.decompress_sync"),
    ],
)
def test_memory_ends_while_the_body_is_read(of: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp tells it as a body that is broken."""
    body, headers = b"x" * 1000, HEADERS
    if of == "gzip":
        body, headers = gzip.compress(body), HEADERS | {"Content-Encoding": "gzip"}
    fail_once(monkeypatch, method)
    said = otlp_http.rpc_status(otlp_http.UNAVAILABLE, "The server is out of memory.")
    noted = Noted()
    assert asked(lambda client: client.post("/v1/logs", data=body, headers=headers), noted) == (503, "5", said)
    assert noted.refusals == ["The server is out of memory"]


def test_a_body_that_is_not_what_it_says() -> None:
    status, again, _ = asked(lambda client: client.post("/v1/logs", data=b"no gzip", headers=HEADERS | {"Content-Encoding": "gzip"}))
    assert (status, again) == (400, None)
