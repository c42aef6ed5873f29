"""Where an INSERT ends and its data begins, in texts that are made to be slow: they are read in the event loop."""

from __future__ import annotations

import time

import pytest

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve.clickhouse_request import split_insert


@pytest.mark.parametrize("piece", [b"'\\", b"`\\", b'"\\', b"/* ", b"''", b"-- \n", b" \n"])
def test_what_is_not_closed_is_gone_through_once(piece: bytes) -> None:
    """Each of 60,000 quotes looked for its end behind all others: 45 s, and a minute of 50 blanks behind FORMAT."""
    begun = time.process_time()
    whole = b"INSERT INTO t " + piece * 60_000 + b"x"
    assert split_insert(whole) == (whole, None, "")
    with pytest.raises(QueryFailed, match="expected the name of a format"):
        split_insert(b"INSERT INTO t FORMAT" + (piece if piece[:1] in b"/- " else b" ") * 60_000 + b"?")
    assert time.process_time() - begun < 10
