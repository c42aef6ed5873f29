"""When something arrived first, for who looks at what arrived since it looked last."""

from __future__ import annotations

import time


class Earliest:
    """The earliest reading of the machine's clock among those noted. Clocks are set back, so it need not be the first."""

    def __init__(self) -> None:
        self._at = self.ever = float("inf")

    def note(self, at: float | None = None) -> None:
        """That something arrived now, or `at`."""
        self._at = min(self._at, time.time() if at is None else at)
        self.ever = min(self._at, self.ever)

    def take(self) -> float:
        """The earliest since this was asked last."""
        at, self._at = self._at, float("inf")
        return at
