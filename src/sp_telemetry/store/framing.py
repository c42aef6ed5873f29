"""Protobuf messages one after the other, and several put together to one; what a block of rows says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sp_telemetry.errors import QueryFailed

RESOURCE_LOGS = 0x0A  # the tag of ExportLogsServiceRequest's only field
LENGTH_BYTES = 10


def behind_lengths(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Each body behind its length, as FORMAT Protobuf reads them."""
    for body in bodies:
        yield varint(len(body))
        yield body


def together(bodies: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """`bodies` as few messages behind their lengths, none longer than `longest`: messages of one kind one after the other are one
    message with the fields of all. Raises QueryFailed where one is too long, or is not whole and so would take from the next one."""
    waiting: list[bytes] = []
    size = 0
    for body in filter(None, bodies):
        if len(body) > longest - LENGTH_BYTES or not is_whole(body):
            raise QueryFailed("This request can't be put together with others.")
        if waiting and size + len(body) > longest - LENGTH_BYTES:
            yield varint(size) + b"".join(waiting)
            waiting, size = [], 0
        waiting.append(body)
        size += len(body)
    if waiting:
        yield varint(size) + b"".join(waiting)


def is_whole(body: bytes) -> bool:
    """Whether `body` is `resource_logs` and nothing else to its last byte. There are few of them: one for each resource."""
    at = 0
    try:
        while at < len(body) and body[at] == RESOURCE_LOGS:
            length, at = varint_at(body, at + 1)
            at += length
    except (IndexError, ValueError):
        return False
    return at == len(body)


def rows_of(block: bytes) -> int:
    """How many rows a block in FORMAT Native has: its second number, behind that of its columns."""
    return varint_at(block, varint_at(block, 0)[1])[0]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def varint_at(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins there, and where it ends. Raises IndexError where `data` ends before it, ValueError for one without end."""
    number = 0
    for place in range(LENGTH_BYTES):
        byte = data[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise ValueError(f"A number of more than {LENGTH_BYTES} bytes.")
