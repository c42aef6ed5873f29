"""The list of targets: parsers of text and bytes, each with what must hold for any input. A target takes bytes and raises where it does not
hold."""

from __future__ import annotations

import functools
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unicodedata import bidirectional, category

TARGETS: dict[str, Callable[[bytes], None]] = {}
PIECES = b"\x1f"  # stands between the pieces of an input that is several
_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
_SCRATCH = tempfile.TemporaryDirectory(prefix="fuzz-")
SCRATCH = Path(_SCRATCH.name).resolve()


def target(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Python makes no number of more than 4,300 digits, which is more than inputs here have: so that they meet that too, it is 640."""

    @functools.wraps(check)
    def checked(data: bytes) -> None:
        before = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(640)
        try:
            check(data)
        finally:
            sys.set_int_max_str_digits(before)

    TARGETS[check.__name__] = checked
    return checked


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def pieces(data: bytes, number: int) -> list[bytes]:
    return [*data.split(PIECES, number - 1), *[b""] * number][:number]


def folder(name: str, files: Mapping[str, bytes]) -> Path:
    """A folder that holds these files and nothing else; an empty one is not there."""
    made = SCRATCH / name
    shutil.rmtree(made, ignore_errors=True)
    for path, data in files.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        if data:
            (made / path).write_bytes(data)
    return made


def either(call: Callable[[], Any], *expected: type[BaseException]) -> Any:
    """What `call` gives, or the error that was to be expected."""
    try:
        return call()
    except expected as error:
        return error


def can_be_shown(text: str) -> bool:
    """No control, line end, half a surrogate or direction in it; what a version of Unicode has not assigned yet does no harm."""
    return not any(category(c) in ("Cc", "Cs", "Zl", "Zp") or bidirectional(c) in _DIRECTIONS for c in text)


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # NaN is itself
