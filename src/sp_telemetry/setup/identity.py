"""Under whose name the cost is reported: who is offered, and what name the store will keep."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

from sp_telemetry.errors import UsageError
from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import PATTERNS, WORD_LIMIT

GIT_S = 3
MOST = 80


def offered(environ: Mapping[str, str], cwd: str = "") -> list[str]:
    """Names to choose from, the likeliest first: git's name, git's e-mail address, the login name."""
    name, email = (_git(key, environ, cwd) for key in ("user.name", "user.email"))
    login = environ.get("USER") or environ.get("LOGNAME") or environ.get("USERNAME") or ""
    found = [keepable(one) for one in (name, email, login)]
    return list(dict.fromkeys(one for one in found if one))


def checked(name: str) -> str:
    """`name` as it will stand in reports. Raises UsageError for what the store would not keep as it is."""
    name = " ".join(name.split())
    if not name:
        raise UsageError("--person is empty; expected a name to report under.")
    if len(name) > MOST:
        raise UsageError(f"--person has {len(name)} characters; allowed are {MOST}.")
    if not name.isprintable():
        raise UsageError("--person holds a character that can't be printed.")
    kept = redacted(name)
    if kept != name:
        what = f"The privacy policy would store {name!r} as {kept!r}, the same for everybody."
        raise UsageError(what, "Choose a name or an e-mail address, and nothing beside it.")
    return name


def keepable(name: str) -> str:
    """`name` where it may be chosen, else ''."""
    try:
        return checked(name)
    except UsageError:
        return ""


def redacted(text: str) -> str:
    """What the store's policy makes of `text` as a person's name: an address that is all of it stays."""
    address = re.search(sql.ADDRESS, text)
    for pattern in PATTERNS:
        if not (address and pattern.name == "email"):
            text = re.sub(pattern.regex, pattern.text, text)
    return text[:WORD_LIMIT]


def _git(key: str, environ: Mapping[str, str], cwd: str) -> str:
    try:
        done = subprocess.run(
            ["git", "config", "--get", key],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_S,
            env=dict(environ),
            cwd=cwd or os.getcwd(),
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
