"""The schema's life: numbered migrations applied once, views made anew when their text changes.

Views and Null tables hold no data, so they are simply dropped and made again; tables are only ever changed by a new numbered file.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from sp_telemetry import resources
from sp_telemetry.errors import UsageError

RESTORED = "restored"  # what restore-data.sh records in place of the views' checksum


class Runner(Protocol):
    """What runs a statement: a handle of the embedded engine, or a server's client in its shape (`client.Statements`)."""

    def query(self, sql: str, format: str = ..., parameters: dict[str, Any] | None = ...) -> bytes: ...


def folder() -> Path:
    return resources.path("telemetry-server/clickhouse")


def statements(text: str) -> Iterator[str]:
    """The statements of a .sql file: split at semicolons outside of strings and comments, comments removed."""
    token = re.compile(r"'(?:\\.|''|[^'\\])*'|`[^`]*`|--[^\n]*|;|[^'`;-]+|-", re.DOTALL)
    statement = ""
    for piece in token.findall(text):
        if piece.startswith("--"):
            continue
        if piece != ";":
            statement += piece
            continue
        if statement.strip():
            yield statement.strip()
        statement = ""
    if statement.strip():
        yield statement.strip()


@cache
def shipped(file: str) -> tuple[str, ...]:
    """The statements of a file in telemetry-server/."""
    return tuple(statements(resources.path(f"telemetry-server/{file}").read_text("utf-8")))


def run_file(runner: Runner, file: str, **parameters: str) -> bytes:
    """Run the statements of a file in telemetry-server/; what the last one answered, as TabSeparated. Raises QueryFailed."""
    answer = b""
    for statement in shipped(file):
        answer = runner.query(statement, "TabSeparated", parameters)
    return answer


def migrate(runner: Runner, up_to: str | None = None, privacy: str = "", salt: str = "") -> list[str]:
    """Bring the store to this version's shape; returns the names of what was applied. `up_to` stops after that migration (for tests).
    `privacy`: the functions of another policy than the default one, in place of 00_privacy.sql. `salt`: of the hashes, for a store that has
    none yet; else a random one.

    A migration is recorded after its last statement, and each of its statements can be run again, so that being killed
    half-way only means that the next start goes on. Raises UsageError when an applied file was changed afterwards.
    What a migration left to the background is asked for again after a restore: a backup holds parts as they were, and no mutation.
    """
    first = sorted((folder() / "schema").glob("*.sql"))
    applied: list[str] = []
    known = recorded(runner)
    for file in first:
        text = file.read_text("utf-8")
        checksum = hashlib.sha256(text.encode()).hexdigest()
        if file.name not in known:
            for statement in statements(text):
                runner.query(statement)
            record(runner, file.name, checksum)
            applied.append(file.name)
        elif known[file.name] != checksum:
            raise UsageError(
                f"{file.name} was changed after it had been applied to this store.", "Restore it, and add a new numbered file."
            )
        elif known.get("views") == RESTORED:
            for statement in _in_the_background(text, [later.read_text("utf-8") for later in first[first.index(file) :]]):
                runner.query(statement)  # where a part has it already the engine does nothing
        if file.name == up_to:
            return applied
    runner.query(
        f"INSERT INTO telemetry.installation (salt) SELECT '{salt or secrets.token_hex(16)}'"
        " WHERE (SELECT count() FROM telemetry.installation) = 0"
    )
    text = _views_text(privacy)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    if known.get("views") != checksum:
        record(runner, "views", "under way")  # being killed from here on, the next start makes them anew, whichever version it is
        _drop_views(runner)
        for statement in statements(text):
            runner.query(statement)
        record(runner, "views", checksum)
        applied.append("views")
    return applied


def _in_the_background(text: str, since: list[str]) -> list[str]:
    """The statements of a migration that make an index of what is there. `since`: this file and later ones, which may have dropped it."""
    dropped = {name for each in since for name in re.findall(r"\bDROP INDEX (?:IF EXISTS )?(\w+)", each)}
    found = ((statement, re.search(r"\bMATERIALIZE INDEX (\w+)", statement)) for statement in statements(text))
    return [statement for statement, index in found if index and index[1] not in dropped]


def record_views(runner: Runner, privacy: str) -> None:
    """The policy's functions were replaced: remember it, so that the next start need not make the views anew."""
    record(runner, "views", hashlib.sha256(_views_text(privacy).encode()).hexdigest())


def _views_text(privacy: str) -> str:
    files = sorted((folder() / "views").glob("*.sql"))
    return "\n".join(privacy if privacy and file.name == "00_privacy.sql" else file.read_text("utf-8") for file in files)


def recorded(runner: Runner) -> dict[str, str]:
    """What was applied to this store: name -> checksum."""
    exists = runner.query("SELECT count() FROM system.tables WHERE database = 'telemetry' AND name = 'schema_migrations'")
    if exists.strip() == b"0":
        return {}
    rows = runner.query("SELECT name, checksum FROM telemetry.schema_migrations FINAL").decode()
    return dict(row.split("\t") for row in rows.splitlines())


def record(runner: Runner, name: str, checksum: str) -> None:
    """Remember that `name` was applied in this form."""
    runner.query(f"INSERT INTO telemetry.schema_migrations (name, checksum) VALUES ('{name}', '{checksum}')")


def _drop_views(runner: Runner) -> None:
    """Views first, then the Null tables that feed them."""
    kinds = "('MaterializedView', 'View', 'Null')"
    rows = runner.query(f"SELECT name FROM system.tables WHERE database = 'telemetry' AND engine IN {kinds} ORDER BY engine")
    for name in rows.decode().split():
        runner.query(f"DROP TABLE telemetry.`{name}`")
