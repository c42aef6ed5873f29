"""Where the files lie that travel with the package: SQL, policy, compose files, the recordings that the demo replays.

In a checkout they lie at the repository's root, in an installed wheel inside the package (`data/`; see pyproject.toml). Callers
name them the same way in both:

    resources.path("telemetry-server/queries")
    resources.path("recordings/book-2.1.330-http-protobuf")
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def path(name: str) -> Path:
    """The file or folder called `name`. FileNotFoundError where this installation lacks it: it is damaged, or `name` is wrong."""
    data = _PACKAGE / "data"
    found = data / name if data.is_dir() else _in_checkout(_PACKAGE.parents[1], name)
    if not found.exists():
        raise FileNotFoundError(f"{name} does not belong to this installation: there is no {found}.")
    return found


def only(statement: str, **parts: bool) -> str:
    """`statement` without its parts between `/* if part */` and `/* end */` that are false: the engine would plan them, to find nothing."""
    for part, is_there in parts.items():
        if not is_there:
            statement = re.sub(rf"/\* if {part} \*/.*?/\* end \*/", "", statement, flags=re.DOTALL)
    return statement


@cache
def build() -> str:
    """A checksum of the program and its statements: tells one version from another also where both have the same number."""
    files = [*_PACKAGE.rglob("*.py"), *path("telemetry-server").rglob("*.sql"), *path("telemetry-server").rglob("*.proto")]
    return hashlib.sha256(b"\0".join(file.name.encode() + file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def _in_checkout(root: Path, name: str) -> Path:
    return root / "tests" / name if Path(name).parts[0] == "recordings" else root / name
