"""How far long work has come, for who looks at a terminal."""

from __future__ import annotations

import sys


class Progress:
    """One line on a terminal's standard error, gone when the work is done."""

    def __init__(self, what: str) -> None:
        self._what, self._shown = what, False

    def __enter__(self) -> Progress:
        return self

    def show(self, done: int, of: int) -> None:
        if sys.stderr.isatty():
            self._shown = True
            print(f"\r{self._what}: {done / 1e6:,.0f} of {of / 1e6:,.0f} MB", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
