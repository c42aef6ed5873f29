"""Ports of loopback for what has to know its port before it listens."""

from __future__ import annotations

import contextlib
import random
import socket

FROM, TO = 20_000, 32_000  # below those that the kernel gives to connections, of which tests make many at once


def free_ports(count: int) -> list[int]:
    """Different ones that nobody has."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.SystemRandom().sample(range(FROM, TO), TO - FROM):
            if len(found) == count:
                break
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
        return found


def free_port() -> int:
    return free_ports(1)[0]
