"""FORMAT Native at the revision that a client asks for.

The engine writes revision 0. Clients that read later ones (clickhouse-go, and with it the collector's exporter and Grafana) expect
from 51903 on the block's info before each block, and from 54454 on one byte after each column's type, which says that the column
has no custom serialisation. Nothing else differs. To put that byte in, each column's end must be found, which costs as much as
reading: so clients that ask for less than 54454 get revision 0. clickhouse-connect (54405) finds that out by its probe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve.clickhouse_request import refuse
from sp_telemetry.store.framing import varint_at

BLOCK_INFO, CUSTOM_SERIALISATION = 51903, 54454
_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_SIZES = {
    **dict.fromkeys(("Int8", "UInt8", "Bool", "Enum8", "Nothing"), 1),
    **dict.fromkeys(("Int16", "UInt16", "Enum16", "Date", "BFloat16"), 2),
    **dict.fromkeys(("Int32", "UInt32", "Float32", "Date32", "DateTime", "IPv4", "Time"), 4),
    **dict.fromkeys(("Int64", "UInt64", "Float64", "DateTime64", "Time64"), 8),
    **dict.fromkeys(("Int128", "UInt128", "UUID", "IPv6"), 16),
    **dict.fromkeys(("Int256", "UInt256"), 32),
}
_WRAPPED = re.compile(r"(\w+)(?:\((.*)\))?\Z", re.DOTALL)
_ELEMENT = re.compile(r"(?:`(?:\\.|[^`\\])*`|\w+) (?=[A-Z])", re.DOTALL)


def at_revision(pieces: Iterable[bytes], revision: int) -> Iterator[bytes]:
    """The blocks in `pieces` (revision 0, whole blocks in each piece) as `revision` has them. Raises QueryFailed for what can't be told."""
    for piece in pieces:
        if piece and revision >= BLOCK_INFO:
            yield b"".join(_blocks(piece, revision))
        else:
            yield piece


def _blocks(data: bytes, revision: int) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        start = at
        columns, at = varint_at(data, at)
        rows, at = varint_at(data, at)
        yield _INFO + data[start:at]
        for _ in range(columns):
            start = at
            size, at = varint_at(data, at)
            size, at = varint_at(data, at + size)
            type_name = data[at : at + size].decode()
            at += size
            yield data[start:at]
            if revision >= CUSTOM_SERIALISATION:
                yield b"\0"
            start = at
            if rows:
                at = _data(data, _prefix(at, type_name), type_name, rows)
            yield data[start:at]


def _uint64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _prefix(at: int, type_name: str) -> int:
    """Past what precedes a column's data: one number for each dictionary in its type."""
    return at + 8 * len(re.findall(r"\bLowCardinality\(", re.sub(r"'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`", "", type_name)))


def _data(data: bytes, at: int, type_name: str, rows: int) -> int:
    """Past `rows` values of a type."""
    if rows == 0:
        return at
    name, inner = _parsed(type_name)
    if name in _SIZES:
        return at + rows * _SIZES[name]
    if name.startswith("Interval"):
        return at + rows * 8
    if name == "String":
        for _ in range(rows):
            byte = data[at]
            size, at = (byte, at + 1) if byte < 0x80 else varint_at(data, at)
            at += size
        return at
    if name == "FixedString":
        return at + rows * int(inner[0])
    if name == "Decimal":
        digits = int(inner[0])
        return at + rows * (4 if digits <= 9 else 8 if digits <= 18 else 16 if digits <= 38 else 32)
    if name == "Nullable":
        return _data(data, at + rows, inner[0], rows)
    if name in ("Array", "Map", "Nested"):
        at += 8 * rows
        count = _uint64(data, at - 8)
        for element in inner:
            at = _data(data, at, element, count)
        return at
    if name == "Tuple":
        for element in inner:
            at = _data(data, at, element, rows)
        return at
    if name == "SimpleAggregateFunction":
        return _data(data, at, inner[-1], rows)
    if name == "LowCardinality":
        width = 1 << (data[at] & 0xF)
        words = _uint64(data, at + 8)
        base = _parsed(inner[0])
        at = _data(data, at + 16, base[1][0] if base[0] == "Nullable" else inner[0], words)
        return at + 8 + width * _uint64(data, at)
    raise _unknown(type_name)


def _unknown(type_name: str) -> QueryFailed:
    return refuse(48, "NOT_IMPLEMENTED", f"Native at this client's revision can't be written for {type_name[:100]}; use another format")


@lru_cache(maxsize=1000)
def _parsed(type_name: str) -> tuple[str, tuple[str, ...]]:
    """A type's name, and what stands in its brackets: types, without the names of a tuple's elements."""
    found = _WRAPPED.match(type_name)
    if found is None:
        raise _unknown(type_name)
    parts, depth, start = [], 0, 0
    inner = found[2] or ""
    for token in re.finditer(r"'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`|[(),]", inner, re.DOTALL):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if token[0] == "," and depth == 0:
            parts.append(inner[start : token.start()].strip())
            start = token.end()
    parts.append(inner[start:].strip())
    if found[1] in ("Tuple", "Nested"):
        parts = [_ELEMENT.sub("", part, count=1) if _ELEMENT.match(part) else part for part in parts]
    return found[1], tuple(parts)
