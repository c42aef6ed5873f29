"""What the hooks read: calls, settings, answers of a server, what waits for one."""

from __future__ import annotations

import contextlib
import json
import re
import sys

from tests.conftest import ROOT
from tests.fuzz.targets import either, same, target, text_of

sys.path.append(str(ROOT / "hooks" / "lib"))
import places
import quickjson
import wire


@target
def quick_json(data: bytes) -> None:
    """What json reads is read the same; what it writes, json reads. A value may be followed by more, for a line is cut by its reader."""
    text = text_of(data)
    quick = either(lambda: quickjson.loads(text), ValueError, RecursionError)
    full = either(lambda: json.loads(text, strict=False), ValueError, RecursionError)
    if not isinstance(full, Exception):
        assert same(quick, full), (quick, full)
    if not isinstance(quick, Exception) and "NaN" not in repr(text) and "Infinity" not in text:
        with contextlib.suppress(RecursionError):
            finite = not re.search(r"\b(inf|nan)\b", repr(quick))
            assert not finite or json.loads(quickjson.dumps(quick)) == json.loads(json.dumps(quick))


@target
def hooks_settings(data: bytes) -> None:
    """Of a file that is TOML, the strings, whole numbers and booleans at its top as tomllib has them, or nothing."""
    text = text_of(data)
    values = places.top_level(text)
    assert all(type(value) in (str, int, bool) for value in values.values())


@target
def hooks_http(data: bytes) -> None:
    """Any answer of a server: a status and a body, or an OSError."""
    connection = wire.Connection.__new__(wire.Connection)
    connection._until, connection._answer = float("inf"), b""
    connection._bound = lambda: None
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]

    class Socket:
        recv = staticmethod(lambda _: pieces.pop(0) if pieces else b"")
        close = staticmethod(lambda: None)

    connection._socket = Socket()
    status, body = connection.answer()
    assert isinstance(status, int) and isinstance(body, bytes)
