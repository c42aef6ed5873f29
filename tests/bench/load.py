"""The load generator: a process of its own that does little but send and wait.

It is told what to do as one JSON object on stdin, makes all requests beforehand, says `ready`, starts at the next line on stdin and
prints what it saw as JSON. Sockets and epoll by hand: a client library would take more of the machine than the server that it measures.
"""

from __future__ import annotations

import gc
import json
import resource
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import generate

HEAD = "POST /v1/logs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/x-protobuf\r\nContent-Length: {length}\r\n\r\n"
GRPC = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
STALLED_S = 60


class Connection:
    """A kept connection with at most one request under way."""

    __slots__ = ("begun", "read", "rest", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest: memoryview | None = None
        self.read = b""
        self.begun = 0.0

    def send(self, request: bytes, begun: float) -> bool:
        """Begin `request`; returns whether all of it has gone."""
        self.begun, self.read = begun, b""
        self.rest = memoryview(request)
        return self.go_on()

    def go_on(self) -> bool:
        while self.rest:
            try:
                self.rest = self.rest[self.socket.send(self.rest) :]
            except BlockingIOError:
                return False
        return True

    def answer(self) -> int:
        """The answer's status once it is there as a whole, else 0."""
        data = self.socket.recv(65536)
        if not data:
            raise SystemExit("the server closed a connection")
        self.read += data
        head, end, body = self.read.partition(b"\r\n\r\n")
        if not end:
            return 0
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        return int(head[9:12]) if len(body) >= length else 0


def over_http(asked: dict[str, Any], requests: list[bytes]) -> tuple[list[float], dict[int, int]]:
    """Send until the requests or the seconds are used up. Times of acknowledgement, and answers by status.

    With `pace` (requests a second) each has its moment, from which its time is counted, also when no connection was free for it.
    """
    poll = select.epoll()
    connections = [Connection(asked["port"]) for _ in range(asked["connections"])]
    by_fd = {connection.socket.fileno(): connection for connection in connections}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    idle, waiting = deque(connections), 0  # in turn, for the server closes a connection that says nothing for ten seconds
    times: list[float] = []
    statuses: dict[int, int] = {}
    clock = time.perf_counter
    begun = clock()
    end, pace, total = begun + asked["seconds"], asked.get("pace", 0), len(requests)
    number, answered_at = 0, begun
    gc.disable()
    while True:
        now = clock()
        due = min(total, int((now - begun) * pace) + 1) if pace else total
        while idle and number < due and now < end:
            connection = idle.popleft()
            if not connection.send(requests[number], begun + number / pace if pace else clock()):
                poll.modify(connection.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
            number += 1
            waiting += 1
        more = number < total and now < end
        if not waiting and not more:
            break
        if now - answered_at > STALLED_S:
            raise SystemExit(f"no answer for {STALLED_S} s, {waiting} requests wait")
        timeout = max(0.0, begun + number / pace - now) if pace and more and idle else 1.0
        for fd, happened in poll.poll(timeout):
            connection = by_fd[fd]
            if happened & select.EPOLLOUT and connection.go_on():
                poll.modify(fd, select.EPOLLIN)
            if happened & ~select.EPOLLOUT:
                status = connection.answer()
                if status:
                    answered_at = clock()
                    times.append(answered_at - connection.begun)
                    statuses[status] = statuses.get(status, 0) + 1
                    waiting -= 1
                    idle.append(connection)
        if not waiting and pace:
            answered_at = clock()
    return times, statuses


def over_grpc(asked: dict[str, Any], requests: list[bytes]) -> tuple[list[float], dict[int, int]]:
    import asyncio

    import grpc.aio

    async def send_all() -> tuple[list[float], dict[int, int]]:
        left = iter(requests)
        end = time.perf_counter() + asked["seconds"]
        times: list[float] = []

        async def one_after_the_other() -> None:
            options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))
            async with grpc.aio.insecure_channel(f"127.0.0.1:{asked['port']}", options=options) as channel:
                export = channel.unary_unary(GRPC)
                for body in left:
                    begun = time.perf_counter()
                    await export(body)
                    times.append(time.perf_counter() - begun)
                    if time.perf_counter() > end:
                        return

        await asyncio.gather(*(one_after_the_other() for _ in range(asked["connections"])))
        return times, {200: len(times)}

    return asyncio.run(send_all())


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    made = generate.Requests(asked["events"], asked["sessions"], asked["run"])
    bodies = made.make(asked["requests"])
    size = sum(map(len, bodies)) / len(bodies)
    if not asked.get("grpc"):
        bodies = [HEAD.format(port=asked["port"], length=len(body)).encode() + body for body in bodies]
    print("ready", flush=True)
    sys.stdin.readline()
    used = resource.getrusage(resource.RUSAGE_SELF)
    begun = time.perf_counter()
    times, statuses = (over_grpc if asked.get("grpc") else over_http)(asked, bodies)
    wall = time.perf_counter() - begun
    now = resource.getrusage(resource.RUSAGE_SELF)
    times.sort()
    answer = {
        "requests": len(times),
        "events": len(times) * asked["events"],
        "bytes_an_event": size / asked["events"],
        "statuses": statuses,
        "wall_s": wall,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)] * 1000,
        "max_ms": times[-1] * 1000,
        "cpu_s": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime,
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
