"""Expected failures, as one small tree.

Each carries the exit code of the command that meets it. Only `cli` turns one into a sentence and an exit code; everything
below raises. A message says what was received, what is allowed, and what to do next.
"""

from __future__ import annotations


class SpTelemetryError(Exception):
    """Something that a person can mend. `hint` is the next thing to do, in one sentence."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(SpTelemetryError):
    """A parameter, a setting or a file is not what is allowed."""

    exit_code = 2


class ServerUnreachable(SpTelemetryError):
    """Nobody answers at the store's address."""

    exit_code = 3


class StoreBusy(SpTelemetryError):
    """Another process holds the store, or a port."""

    exit_code = 4


class QueryFailed(SpTelemetryError):
    """The engine refused or gave up a query. `code` is ClickHouse's number."""

    exit_code = 5

    def __init__(self, message: str, hint: str = "", code: int = 0) -> None:
        super().__init__(message, hint)
        self.code = code


class NothingStored(SpTelemetryError):
    """The question was understood, and there is no data to answer it with."""

    exit_code = 6
