"""The statements that change stored rows of one table to what a privacy policy keeps of them, by what kind of table it is.

Mostly rows are written again, in a version that replaces them. Mutations would do, but each of their columns is an expression of its own
that repeats the whole policy: minutes of analysis.
"""

# ruff: noqa: E501 - expressions of SQL
from __future__ import annotations

from dataclasses import dataclass

SALT = "assumeNotNull((SELECT any(salt) FROM telemetry.installation))"
NO_PARTITIONS = "SELECT '' WHERE 0"  # a mutation leaves no row to be merged away


@dataclass(frozen=True)
class Change:
    """What tightening does to one table: which rows differ from what the policy keeps, and the statements that make them so."""

    table: str
    count: str
    statements: tuple[str, ...]
    partitions: str


def rewritten(
    table: str, words: dict[str, str], columns: dict[str, str], later: dict[str, str], key: str = "", identity: str = ""
) -> Change:
    """Rows that differ are written again as they may be, in a version that replaces them; a merge takes the old ones away. Where a
    name of the sorting key changes, the old row is another one, and deleted. With `identity`, what tells rows apart, a table has rows that
    were taken back too: FINAL hides them, and a merge keeps them with all that they said."""
    pairs = ", ".join(f"'{name}', toString({column})" for name, column in words.items())
    w = f"telemetry_words({SALT}, map({pairs}))" if words else "map()"
    new = ", ".join(f"{value} AS new_{name}" for name, value in columns.items())
    differs = " OR ".join(
        f"mapSort(CAST({name}, 'Map(String, String)')) != mapSort(new_{name})" if name == "attributes"
        else "isNotNull(success)" if name == "success" else f"{name} != new_{name}"
        for name in columns
    )
    replaced = ", ".join([*(f"new_{name} AS {name}" for name in columns), *(f"{value} AS {name}" for name, value in later.items())])

    def rows(final: str) -> str:
        return f"(SELECT *, {new} FROM (SELECT *, {w} AS w FROM telemetry.{table}{final}))"

    helpers = ", ".join(["w", *(f"new_{name}" for name in columns)])
    written = f"INSERT INTO telemetry.{table} SELECT * EXCEPT ({helpers}) REPLACE ({replaced}) FROM"
    statements = [f"{written} (SELECT * FROM {rows(' FINAL')} WHERE {differs})"]
    if identity:
        taken_back = f"SELECT {identity} FROM telemetry.{table} WHERE is_deleted"
        there = f"SELECT {identity} FROM telemetry.{table} FINAL WHERE ({identity}) IN ({taken_back})"
        statements.append(
            f"{written.replace(later['version'], 'version + 1')} (SELECT * FROM {rows('')} WHERE is_deleted AND ({differs})"
            f" AND ({identity}) NOT IN ({there})) SETTINGS final = 0"
        )
    if key:
        statements.append(
            f"ALTER TABLE telemetry.{table} DELETE WHERE telemetry_name(toString({key})) != {key} SETTINGS mutations_sync = 1"
        )
    return Change(
        table,
        f"SELECT count() FROM {rows('')} WHERE {differs} SETTINGS final = 0",
        tuple(statements),
        f"SELECT DISTINCT _partition_id FROM (SELECT *, _partition_id, {new} FROM (SELECT *, _partition_id, {w} AS w FROM telemetry.{table}))"
        f" WHERE {differs} SETTINGS final = 0",
    )


def usage(new: dict[str, str], taken: dict[str, str]) -> Change:
    """usage_hourly, whose names are its key: hours in which one changes, or a sum is `taken`, are made anew from themselves, in one insert."""
    differs = "(" + " OR ".join(f"{name} != {value}" for name, value in (new | taken).items()) + ")"
    sums = ["requests", "unpriced_requests", "unpriced_tokens", "api_errors", "prompts", "tool_calls", "tool_failures", "cost_usd", "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "cache_creation_5m_tokens", "cache_creation_1h_tokens", "api_duration_ms"]  # fmt: skip
    inner = ", ".join(f"{value} AS new_{name}" for name, value in new.items())
    rows = f"SELECT *, {inner} FROM telemetry.usage_hourly FINAL WHERE hour IN (SELECT hour FROM telemetry.usage_hourly WHERE {differs})"
    names = ", ".join(f"new_{name}" for name in new)
    return Change(
        "usage_hourly",
        f"SELECT count() FROM telemetry.usage_hourly WHERE {differs} SETTINGS final = 0",
        (
            f"INSERT INTO telemetry.usage_hourly (hour, {', '.join(new)}, {', '.join(sums)}, sessions, version, is_deleted)"
            f" SELECT hour, {names}, {', '.join(taken.get(name, f'sum({name})') for name in sums)}, arraySort(groupUniqArrayArray(sessions)), max(version) + 1, 0 FROM ({rows}) GROUP BY hour, {names}",
            f"ALTER TABLE telemetry.usage_hourly DELETE WHERE {differs} SETTINGS mutations_sync = 1",
        ),
        NO_PARTITIONS,
    )


def forgotten(table: str, new: dict[str, str]) -> Change:
    """Rows that differ are deleted: they are made anew when they are needed."""
    return _mutated(table, "DELETE", new)


def updated(table: str, new: dict[str, str]) -> Change:
    """Rows of a table in which none replaces another: changed where they lie. For few columns; each repeats a part of the policy."""
    return _mutated(table, f"UPDATE {', '.join(f'{name} = {value}' for name, value in new.items())}", new)


def _mutated(table: str, how: str, new: dict[str, str]) -> Change:
    differs = " OR ".join(f"{name} != {value}" for name, value in new.items())
    return Change(
        table,
        f"SELECT count() FROM telemetry.{table} WHERE {differs} SETTINGS final = 0",
        (f"ALTER TABLE telemetry.{table} {how} WHERE {differs} SETTINGS mutations_sync = 1",),
        NO_PARTITIONS,
    )
