"""Protobuf messages one after the other, and several put together to one; what a block of rows says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sp_telemetry.errors import QueryFailed

RESOURCE_LOGS = 0x0A  # the tag of ExportLogsServiceRequest's only field
TO_A_RECORD = (1, 2, 2)  # the fields that lead from a request to a record: resource_logs, scope_logs, log_records
MOST_LOOKS = 1000
FIXED = {1: 8, 5: 4}  # how many bytes a value has, by its kind on the wire
LENGTH_BYTES = 10


def behind_lengths(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Each body behind its length, as FORMAT Protobuf reads them."""
    for body in bodies:
        yield varint(len(body))
        yield body


def together(bodies: Iterable[bytes], longest: int) -> Iterator[bytes]:
    """`bodies` as few messages behind their lengths, none longer than `longest`: messages of one kind one after the other are one
    message with the fields of all. Raises QueryFailed where one is too long, or is not whole and so would take from the next one, and
    where no record is found in a message: a standing query answers rows, so of none it would say nothing."""
    waiting: list[bytes] = []
    size = 0
    for body in filter(None, bodies):
        if len(body) > longest - LENGTH_BYTES or not is_whole(body):
            raise QueryFailed("This request can't be put together with others.")
        if waiting and size + len(body) > longest - LENGTH_BYTES:
            yield _one(waiting)
            waiting, size = [], 0
        waiting.append(body)
        size += len(body)
    if waiting:
        yield _one(waiting)


def _one(bodies: list[bytes]) -> bytes:
    if not any(map(holds_a_record, bodies)):
        raise QueryFailed("No record was found in these requests.")
    return b"".join(behind_lengths([b"".join(bodies)]))


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


def holds_a_record(body: bytes) -> bool:
    """Whether a log record is found in `body` soon: one that holds any has it behind a resource and a scope. What begins with a thousand
    other things, or can't be read, is not worth more of a look."""
    looks = iter(range(MOST_LOOKS))

    def found(at: int, end: int, way: tuple[int, ...]) -> bool:
        while at < end and next(looks, None) is not None:
            tag, at = varint_at(body, at)
            field, kind = tag >> 3, tag & 7
            if kind == 0:
                at = varint_at(body, at)[1]
            elif kind in FIXED:
                at += FIXED[kind]
            elif kind == 2:
                length, at = varint_at(body, at)
                if field == way[0] and at + length <= end and (len(way) == 1 or found(at, at + length, way[1:])):
                    return True
                at += length
            else:
                return False
        return False

    try:
        return found(0, len(body), TO_A_RECORD)
    except (IndexError, ValueError):
        return False


def rows_of(block: bytes) -> int:
    """How many rows a block in FORMAT Native has: its second number, behind that of its columns."""
    return varint_at(block, varint_at(block, 0)[1])[0]


def field(number: int, content: bytes) -> bytes:
    """A field of a message that is a text or a message itself."""
    return varint(number << 3 | 2) + varint(len(content)) + content


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
