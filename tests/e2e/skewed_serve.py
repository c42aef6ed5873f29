"""`sp-telemetry serve` on a clock of its own: the machine's plus the seconds in a file, which may change while it runs.

    python tests/e2e/skewed_serve.py FILE [arguments of serve]

Libfaketime does not reach the engine, which asks the kernel's page and not the C library. So the statements are told instead.
"""

import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sp_telemetry.cli.main import main
from sp_telemetry.store import engine

OFFSET = Path(sys.argv[1])
_time, _time_ns, _query = time.time, time.time_ns, engine.Handle.query


def offset() -> int:
    return int(OFFSET.read_text())


def query(self: engine.Handle, sql: str, *arguments: Any, **more: Any) -> bytes:
    return _query(self, sql.replace("now64(9)", f"(now64(9) + toIntervalSecond({offset()}))"), *arguments, **more)


if __name__ == "__main__":
    with (
        patch("time.time", lambda: _time() + offset()),
        patch("time.time_ns", lambda: _time_ns() + offset() * 10**9),
        patch.object(engine.Handle, "query", query),
    ):
        sys.exit(main(["serve", *sys.argv[2:]]))
