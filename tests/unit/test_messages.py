"""Messages over gRPC on their way in: how many at once, who is next, who makes room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sp_telemetry.serve import messages
from sp_telemetry.serve.commit import Busy
from sp_telemetry.serve.messages import AT_ONCE, Messages


class Senders:
    """`begin` lets one more come; `asked` are those whose message was asked for, in this order; `send` is the message's end."""

    def __init__(self) -> None:
        self.messages = Messages()
        self.asked: list[int] = []
        self._parts: dict[int, asyncio.Future[int]] = {}

    async def begin(self, number: int) -> asyncio.Task[int]:
        self._parts[number] = asyncio.get_running_loop().create_future()

        def receive() -> Awaitable[int]:
            self.asked.append(number)
            return self._parts[number]

        task = asyncio.create_task(self.messages.read(receive))
        await asyncio.sleep(0.01)
        return task

    def send(self, number: int) -> None:
        self._parts[number].set_result(number)


def run(steps: Callable[[Senders], Awaitable[None]]) -> None:
    async def within() -> None:
        async with asyncio.timeout(20):
            await steps(Senders())

    asyncio.run(within())


def test_so_many_at_once_and_who_came_last_is_next() -> None:
    async def steps(senders: Senders) -> None:
        tasks = [await senders.begin(number) for number in range(AT_ONCE + 3)]
        first, last = list(range(AT_ONCE)), AT_ONCE + 2
        assert senders.asked == first
        senders.send(0)
        assert await tasks[0] == 0
        await asyncio.sleep(0.01)
        assert senders.asked == [*first, last]
        for number in (1, 2, last):
            senders.send(number)
            await tasks[number]
        assert senders.asked == [*first, last, last - 1, last - 2]
        for number in (3, last - 1, last - 2):
            senders.send(number)
            await tasks[number]
        again = [await senders.begin(number) for number in range(10, 11 + AT_ONCE)]
        assert senders.asked[-AT_ONCE:] == list(range(10, 10 + AT_ONCE))
        for task in again:
            task.cancel()

    run(steps)


def test_what_comes_slowly_makes_room_where_others_wait_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "SLOW_S", 0.3)

    async def steps(senders: Senders) -> None:
        slow = [await senders.begin(number) for number in range(AT_ONCE)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in slow)
        late = await senders.begin(AT_ONCE)
        await asyncio.sleep(0.05)
        assert senders.asked[-1] == AT_ONCE and [task.done() for task in slow] == [True, *[False] * (AT_ONCE - 1)]
        with pytest.raises(TimeoutError):
            await slow[0]
        senders.send(AT_ONCE)
        assert await late == AT_ONCE
        senders.send(1)
        assert await slow[1] == 1

        young = [await senders.begin(number) for number in range(10, 12)]
        for number in (2, 3):
            senders.send(number)
        young += [await senders.begin(number) for number in range(12, 14)]
        begun = asyncio.get_running_loop().time()
        after = await senders.begin(20)
        assert not any(task.done() for task in young), "all of them came just now"
        while senders.asked[-1] != 20:
            await asyncio.sleep(0.01)
        assert 0.1 < asyncio.get_running_loop().time() - begun < 2
        for task in (*young, after):
            task.cancel()

    run(steps)


def test_of_too_many_that_wait_the_one_that_has_waited_longest_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_WAITING", 3)

    async def steps(senders: Senders) -> None:
        tasks = [await senders.begin(number) for number in range(AT_ONCE + 4)]
        with pytest.raises(Busy):
            await tasks[AT_ONCE]
        assert [task.done() for task in tasks] == [number == AT_ONCE for number in range(AT_ONCE + 4)]
        for task in tasks:
            task.cancel()

    run(steps)


def test_a_message_has_its_time_with_its_wait_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MESSAGE_S", 0.2)

    async def steps(senders: Senders) -> None:
        tasks = [await senders.begin(number) for number in range(AT_ONCE + 1)]
        for task in tasks:
            with pytest.raises(TimeoutError):
                await task
        monkeypatch.setattr(messages, "MESSAGE_S", 30)
        tasks = [await senders.begin(number) for number in range(10, 11 + AT_ONCE)]
        assert [number in senders.asked for number in range(10, 11 + AT_ONCE)] == [*[True] * AT_ONCE, False]
        for task in tasks:
            task.cancel()

    run(steps)


def test_a_sender_that_goes_leaves_its_place_to_others() -> None:
    async def steps(senders: Senders) -> None:
        tasks = [await senders.begin(number) for number in range(AT_ONCE + 3)]
        tasks[AT_ONCE + 2].cancel()  # while it waits
        tasks[0].cancel()  # while its message comes
        await asyncio.sleep(0.01)
        assert senders.asked == [*range(AT_ONCE), AT_ONCE + 1]
        senders.send(1)
        await asyncio.sleep(0)  # it is its turn, and it has not been told yet
        tasks[AT_ONCE].cancel()
        await asyncio.sleep(0.01)
        for number in (2, 3, AT_ONCE + 1):
            senders.send(number)
        await asyncio.sleep(0.01)
        tasks += [await senders.begin(number) for number in range(10, 11 + AT_ONCE)]
        assert [number in senders.asked for number in range(10, 11 + AT_ONCE)] == [*[True] * AT_ONCE, False]
        for task in tasks:
            task.cancel()

    run(steps)
