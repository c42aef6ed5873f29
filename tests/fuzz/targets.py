"""The list of targets: parsers of text and bytes, each with what must hold for any input. A target takes bytes and raises where it does not
hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TARGETS: dict[str, Callable[[bytes], None]] = {}


def target(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    TARGETS[check.__name__] = check
    return check


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def either(call: Callable[[], Any], *expected: type[BaseException]) -> Any:
    """What `call` gives, or the error that was to be expected."""
    try:
        return call()
    except expected as error:
        return error


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # NaN is itself
