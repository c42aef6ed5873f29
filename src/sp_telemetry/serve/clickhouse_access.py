"""Who may ask what of the ClickHouse interface.

The engine has one user and no grants, so access is held in four layers, each of which fails closed:

1. the statement is read by the engine's own parser (`formatQuery`), which refuses more than one statement and returns one
   canonical text: no comments, one way of quoting. That text is scanned here for its kind, the functions it calls, the
   tables it names and the settings it changes (`examine`);
2. every query of the reader runs on a handle with readonly=1, on which the engine itself refuses writes, table functions that
   reach out, and any change of a setting;
3. limits are set on that handle before it becomes readonly;
4. row filters in the engine's configuration hide the salt from every handle that does not work for the engine (store/engine.py).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve.clickhouse_request import Credentials, refuse

DATABASE = "telemetry"
HIDDEN = frozenset({"installation"})
# fmt: off
SYSTEM_TABLES = frozenset([
    "one", "numbers", "numbers_mt", "zeros", "tables", "columns", "databases", "settings", "functions", "formats",
    "table_functions", "table_engines", "data_type_families", "processes", "parts", "merges", "mutations", "time_zones",
    "keywords", "contributors",
])
# fmt: on
INFORMATION_TABLES = frozenset({"tables", "columns", "schemata", "views"})
# Table functions that only compute. Every other one that the engine knows is refused, so a new version adds nothing by itself.
# fmt: off
TABLE_FUNCTIONS = frozenset([
    "numbers", "numbers_mt", "zeros", "zeros_mt", "generate_series", "generateseries", "values", "null", "view", "generaterandom",
    "format",
])
# fmt: on
# Functions that read files, reach other machines, look into other tables by name, or tell about the machine.
FUNCTIONS = re.compile(
    r"file|catboostevaluate|dictget.*|dicthas|dictisin|joinget.*|getmacro|getserversetting|getserverport|reversednsquery|ai[A-Z].*|ai_.*|ai(generate|embed|"
    r"classify|extract|filter|redact|similarity|translate|summarize).*|addressto.*|demangle|showcertificate|getclienthttpheader|serveruuid|"
    r"evalmlmethod|naivebayes.*|sleep.*|hostname|fqdn|mergetreepartinfo|initializeaggregation_unsafe|disk|trap|structureto.*schema|"
    r"region.*|lemmatize|synonyms|stem_file|executable.*|zookeeper.*|keeper.*|connectionid|filesystem.*",
    re.IGNORECASE,
)
READS = ("SELECT", "WITH", "SHOW", "DESCRIBE", "EXISTS", "EXPLAIN", "CHECK")
WRITES = (
    "INSERT INTO", "ALTER TABLE", "DELETE FROM", "UPDATE", "OPTIMIZE TABLE", "TRUNCATE TABLE", "RENAME TABLE", "EXCHANGE TABLES",
    "DROP TABLE", "DROP VIEW", "UNDROP TABLE", "CREATE TABLE", "CREATE OR REPLACE TABLE", "REPLACE TABLE", "CREATE VIEW",
    "CREATE OR REPLACE VIEW", "CREATE MATERIALIZED VIEW", "CREATE DATABASE IF NOT EXISTS",
)  # fmt: skip
SHOWS = ("TABLES", "DATABASES", "CREATE TABLE", "CREATE VIEW", "CREATE DATABASE", "COLUMNS", "INDEXES", "SETTINGS", "FUNCTIONS", "ENGINES",
         "PROCESSLIST", "FULL COLUMNS", "EXTENDED COLUMNS", "FULL TABLES", "SETTING", "MERGES")  # fmt: skip
ENGINES = re.compile(r"(Replacing|Summing|Aggregating|Collapsing|VersionedCollapsing|Coalescing)?MergeTree|Null|Memory|Atomic")
# Settings that lift limits, change how text is read, or name files and other machines.
SETTINGS = re.compile(
    r"readonly|log_comment|profile|dialect|.*(path|schema|memory|introspection|overflow_mode|ddl|user_files|_url|s3_|azure|hdfs|"
    r"named_collection|disk|^ai_|distributed|cluster|remote|parallel_replica|replica|query_size|parser_|max_ast|_external|temporary_|"
    r"query_cache|implicit_select|additional_|definer|access|python|backup|keeper|workload|execution_time|estimated|sleep|"
    r"concurrent_queries|function_|rename|storage_policy|sql_security|allow_experimental_.*dialect|max_result|row_policy).*",
)
# Of those, what may be lowered.
LIMITS = ("max_execution_time", "max_memory_usage", "max_result_rows", "max_result_bytes")
MAX_RESULT_ROWS = 100_000_000
# The canonical text has no comments and quotes in two ways, each with backslash escapes.
_CANONICAL = re.compile(r"'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`|\{[^{}']*\}|[A-Za-z_][A-Za-z0-9_]*|[0-9][A-Za-z0-9_.]*|\s+|.", re.DOTALL)


@dataclass(frozen=True)
class Access:
    """The users, their passwords, and what bounds a reader."""

    writer_password: str
    reader_password: str
    anonymous_reads: bool = False
    query_timeout_s: float = 30
    query_memory_mib: int = 1024

    def user(self, given: Credentials) -> str:
        """WRITER or READER. Raises ClickHouse's 516, which does not tell an unknown name from a wrong password."""
        if not given.given and self.anonymous_reads:
            return READER
        known = {WRITER: self.writer_password, READER: self.reader_password}
        expected = known.get(given.user, "")
        # Compared for unknown names too, so that the time taken tells nothing.
        if hmac.compare_digest(given.password.encode(), expected.encode()) and expected:
            return given.user
        name = re.sub(r"[^\w.@-]", "?", given.user)[:64] or "default"
        raise refuse(
            516, "AUTHENTICATION_FAILED", f"{name}: Authentication failed: password is incorrect, or there is no user with such name."
        )

    def settings(self, user: str, asked: Mapping[str, str]) -> dict[str, str]:
        """The settings that a query of `user` runs with. Raises 452 for one that is not theirs to change, or beyond its limit."""
        memory = self.query_memory_mib << 20
        limits = {"max_execution_time": self.query_timeout_s, "max_memory_usage": memory, "max_result_rows": MAX_RESULT_ROWS}
        chosen: dict[str, str] = {"final": "1", "do_not_merge_across_partitions_select_final": "1"}
        if user == READER:
            chosen |= {name: str(limit) for name, limit in limits.items()}
        for name, value in asked.items():
            if name in LIMITS:
                chosen[name] = _lowered(name, value, limits.get(name) if user == READER else None)
            elif SETTINGS.fullmatch(name):
                raise refuse(452, "SETTING_CONSTRAINT_VIOLATION", f"Setting {name} should not be changed")
            else:
                chosen[name] = value
        return chosen


def _lowered(name: str, value: str, limit: float | None) -> str:
    try:
        number = float(value)
    except ValueError:
        raise refuse(72, "CANNOT_PARSE_NUMBER", f"Cannot parse {value[:50]!r} as the value of setting {name}") from None
    if limit is not None and not 0 < number <= limit:  # 0 means none at all
        raise refuse(452, "SETTING_CONSTRAINT_VIOLATION", f"Setting {name} shouldn't be greater than {limit:g}")
    return value


@dataclass(frozen=True)
class Statement:
    """What the canonical text says. `settings` are those of its SETTINGS clauses; `format` of its FORMAT clause."""

    kind: str
    streams: bool
    format: str
    settings: Mapping[str, str]


def examine(canonical: str, user: str, parameters: Mapping[str, str], forbidden: frozenset[str]) -> Statement:
    """What a statement does, or QueryFailed (164, 497) where `user` may not. `forbidden` are the engine's other table functions."""
    tokens = [token for token in _CANONICAL.findall(canonical) if not token.isspace()]
    words = [token.upper() if token[:1].isalpha() or token[:1] == "_" else token for token in tokens]
    head = " ".join(words[:6]) + " "
    kind = next((kind for kind in (*READS, *WRITES) if head.startswith(kind + " ")), "")
    if not kind:
        raise _denied(" ".join(words[:2]))
    if kind in WRITES and user != WRITER:
        raise refuse(164, "READONLY", f"{user}: Cannot execute query in readonly mode.")
    if kind == "SHOW" and not any(head.startswith(f"SHOW {what} ") for what in SHOWS):
        raise _denied(" ".join(words[:2]))
    if head.startswith("INSERT INTO FUNCTION "):
        raise _denied("INSERT INTO FUNCTION")
    for i, word in enumerate(words[:-1]):
        follower = words[i + 1]
        if (word, follower) in (("INTO", "OUTFILE"), ("FROM", "INFILE"), ("FETCH", "PARTITION"), ("FETCH", "PART"), ("ON", "CLUSTER")):
            raise _denied(f"{word} {follower}")
        if follower == "(":
            _check_call(_plain(tokens[i]), forbidden)
        if word == "APPLY":
            _check_call(_plain(tokens[i + 2] if follower == "(" and i + 2 < len(tokens) else tokens[i + 1]), forbidden)
        if word == "ENGINE" and follower == "=" and i + 2 < len(tokens) and not ENGINES.fullmatch(_plain(tokens[i + 2])):
            raise _denied(f"ENGINE = {_plain(tokens[i + 2])}")
    names = list(_names(tokens))
    for name in names:
        _check_name(name)
    inserted = [
        re.split(r"[.`\"]+", parameters.get(token[1:].partition(":")[0].strip(), ""))
        for token in tokens
        if token[0] == "{" and token[1:-1].rpartition(":")[2].strip() == "Identifier"
    ]
    if inserted:  # put together from pieces, so no piece may be one of these
        for name in [*inserted, *names]:
            if {"system", "information_schema", "default"} & {part.lower() for part in name}:
                raise _denied(".".join(name))
            _check_name(name)
    return Statement(kind, kind in ("SELECT", "WITH"), _format(words, tokens), dict(_settings(words, tokens)))


def _denied(what: str) -> QueryFailed:
    return refuse(497, "ACCESS_DENIED", f"Not enough privileges: {what[:100]} is not offered here")


def _plain(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1]) if token[0] == "`" else token


def _check_call(name: str, forbidden: frozenset[str]) -> None:
    if name.lower() in forbidden or FUNCTIONS.fullmatch(name):
        raise _denied(f"the function {name}")


def _names(tokens: list[str]) -> Iterator[list[str]]:
    """Every name in the text with its parts: `a`, `a.b`, `a`.`b`.c."""
    name: list[str] = []
    joined = False
    for token in tokens:
        if token == "." and name:
            joined = True
        elif token[0] == "`" or token[0].isalpha() or token[0] == "_":
            if not joined and name:
                yield name
                name = []
            name.append(_plain(token))
            joined = False
        elif name:
            yield name
            name, joined = [], False
    if name:
        yield name


def _check_name(parts: list[str]) -> None:
    """A table by name. Where a word could be a column or an alias of a hidden name, it is refused too: nothing of ours is called so."""
    lower = [part.lower() for part in parts]
    if HIDDEN & set(lower):
        raise _denied(".".join(parts))
    if lower[0] == "default" and len(parts) > 1:  # the engine's own database: there, a table's name may be a file's path
        raise _denied(".".join(parts))
    for schema, allowed in (("system", SYSTEM_TABLES), ("information_schema", INFORMATION_TABLES)):
        if schema in lower:
            following = lower[lower.index(schema) + 1 :]
            if following and following[0] not in allowed:
                raise _denied(".".join(parts))


def _format(words: list[str], tokens: list[str]) -> str:
    """The format that the statement names at its end, or an empty text."""
    for i in range(len(words) - 2, 0, -1):
        if words[i] == "FORMAT" and (i + 2 == len(words) or words[i + 2] == "SETTINGS") and tokens[i + 1][0].isalpha():
            return tokens[i + 1]
    return ""


def _settings(words: list[str], tokens: list[str]) -> Iterator[tuple[str, str]]:
    """The changes in SETTINGS clauses of queries; those of a table (CREATE, ALTER) belong to the table."""
    if words[0] in ("CREATE", "REPLACE", "ALTER"):
        return
    for i, word in enumerate(words):
        if word != "SETTINGS" or words[i - 1] == "SHOW":
            continue
        at = i + 1
        while at + 2 < len(tokens) and tokens[at + 1] == "=":
            sign = "-" if tokens[at + 2] == "-" else ""
            value = tokens[at + 2 + len(sign)]
            yield tokens[at], re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == "'" else sign + value
            at += 3 + len(sign)
            while at < len(tokens) and tokens[at] != ",":  # the rest of a decimal
                if tokens[at].isalpha():
                    break
                at += 1
            if at >= len(tokens) or tokens[at] != ",":
                break
            at += 1
