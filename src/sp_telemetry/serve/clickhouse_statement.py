"""What a statement does, told from the engine's canonical text of it: its kind, the functions it calls, the tables it names, the
settings it changes.

That text (`formatQuerySingleLine`) comes from the engine's own parser, which refuses more than one statement; it has no comments, one
way of quoting, and is what is run afterwards. So a scan for tokens is enough: nothing in it means two things.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import chain, repeat

from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import WRITER
from sp_telemetry.serve import clickhouse_access
from sp_telemetry.serve.clickhouse_request import refuse

HIDDEN = frozenset({"installation"})  # holds the salt
# fmt: off
SYSTEM_TABLES = frozenset([
    "one", "numbers", "numbers_mt", "zeros", "tables", "columns", "databases", "settings", "functions", "formats",
    "table_functions", "table_engines", "data_type_families", "processes", "parts", "merges", "mutations", "time_zones",
    "keywords", "contributors",
])
# fmt: on
WRITERS_TABLES = frozenset({"mutations"})  # quotes statements, and so what was deleted by them
INFORMATION_TABLES = frozenset({"tables", "columns", "schemata", "views"})
# Table functions that only compute. Every other one that the engine knows is refused, so a new version adds nothing by itself.
# fmt: off
TABLE_FUNCTIONS = frozenset([
    "numbers", "numbers_mt", "zeros", "zeros_mt", "generate_series", "generateseries", "values", "null", "view", "generaterandom",
    "format",
])
# fmt: on
# Functions that read files, reach other machines, look into other tables by name, tell about the machine, or do something beside
# answering. A test lists what is left of those kinds, so that a new engine's are looked at.
FUNCTIONS = re.compile(
    r"file|filesystem.*|catboostevaluate|dictget.*|dicthas|dictisin|joinget.*|getmacro|getserver(setting|port)|reversednsquery|ai_.*|"
    r"ai(generate|embed|classify|extract|filter|redact|similarity|translate|summarize).*|addressto.*|demangle|showcertificate|"
    r"getclienthttpheader|serveruuid|evalmlmethod|naivebayes.*|sleep.*|hostname|fqdn|fullhostname|getoskernelversion|tid|logtrace|"
    r"mergetreepartinfo|disk|trap|structureto.*schema|region.*|lemmatize|synonyms|stem_file|executable.*|zookeeper.*|keeper.*|"
    r"connection_?id|current(handler|requesturl)|tcpport|hasthreadfuzzer|generateserialid|transaction(id|latestsnapshot|oldestsnapshot)|"
    r"flamegraph|__.*|"
    # of one value as long as its square, which no limit of time interrupts
    r"(damerau)?levenshteindistance.*|editdistance.*|arraylevenshteindistance.*|arraysimilarity|damerau.*|kolmogorovsmirnovtest.*|"
    # makes a text as long as it is told, which is counted when it is made
    r"printf",
    re.IGNORECASE,
)
NAMING = frozenset({"arrayreduce", "arrayreduceinranges", "initializeaggregation"})
# Ways out of a statement into files, other machines and other statements.
PHRASES = frozenset([
    ("INTO", "OUTFILE"), ("FROM", "INFILE"), ("INTO", "FUNCTION"), ("FETCH", "PARTITION"), ("FETCH", "PART"), ("ON", "CLUSTER"),
    ("TO", "DISK"), ("TO", "VOLUME"), ("TO", "SHARD"), ("PARALLEL", "WITH"),
])  # fmt: skip
READS = ("SELECT", "WITH", "SHOW", "DESCRIBE", "EXISTS", "EXPLAIN", "CHECK TABLE")
WRITES = (
    "INSERT INTO", "ALTER TABLE", "DELETE FROM", "UPDATE", "OPTIMIZE TABLE", "TRUNCATE TABLE", "RENAME TABLE", "EXCHANGE TABLES",
    "DROP TABLE", "DROP VIEW", "UNDROP TABLE", "CREATE TABLE", "CREATE OR REPLACE TABLE", "REPLACE TABLE", "CREATE VIEW",
    "CREATE OR REPLACE VIEW", "CREATE MATERIALIZED VIEW", "CREATE DATABASE IF NOT EXISTS", "BACKUP", "RESTORE", "DROP DATABASE",
)  # fmt: skip
# What backup-data.sh and restore-data.sh say, and nothing like it. A backup has a name and no path, so it lies in the folder of the one
# disk that the engine's configuration allows. It is restored beside the store, and then changes places with it table by table, the
# salt's too.
COPIES = re.compile(
    r"BACKUP DATABASE telemetry( EXCEPT TABLES? \w+(, \w+)*)? TO Disk\('backups', '[A-Za-z][\w.-]*'\)|"
    r"RESTORE DATABASE telemetry AS telemetry_restored FROM Disk\('backups', '[A-Za-z][\w.-]*'\)|"
    r"EXCHANGE TABLES telemetry\.(?P<table>\w+) AND telemetry_restored\.(?P=table)|"
    r"DROP DATABASE (IF EXISTS )?telemetry_restored( SYNC)?",
    re.ASCII,
)
SHOWS = ("TABLES", "DATABASES", "CREATE TABLE", "CREATE VIEW", "CREATE DATABASE", "COLUMNS", "INDEXES", "SETTINGS", "FUNCTIONS", "ENGINES",
         "PROCESSLIST", "FULL COLUMNS", "EXTENDED COLUMNS", "FULL TABLES", "SETTING", "MERGES")  # fmt: skip
ENGINES = re.compile(r"(Replacing|Summing|Aggregating|Collapsing|VersionedCollapsing|Coalescing)?MergeTree|Null|Memory|Atomic")
TABLES_SETTINGS = re.compile(r"(table_)?disk|storage_policy|.*path.*")  # of a MergeTree table: where its files are
NOT_HERE = ("async_insert", "wait_for_async_insert")  # every insert is committed before it is answered
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "e": "\x1b"}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LITERAL = re.compile(r"'(?:\\.|[^'\\])*'|-?[A-Za-z0-9_.]+(e[-+][0-9]+)?", re.DOTALL)
# The canonical text has no comments and quotes in two ways, each with backslash escapes.
_CANONICAL = re.compile(r"'(?:\\.|[^'\\])*'|`(?:\\.|[^`\\])*`|\{[^{}']*\}|[A-Za-z_][A-Za-z0-9_]*|[0-9][A-Za-z0-9_.]*|\s+|.", re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """What the canonical text `sql` says. `settings` are those of its SETTINGS clauses, `format` is that of its FORMAT clause.

    Of an INSERT, `target` is the table's name, `into` the text up to its SETTINGS, FORMAT, or where its rows come from, and
    `expressions` says whether its VALUES may be more than literals.
    """

    sql: str
    kind: str
    streams: bool
    format: str
    settings: Mapping[str, str]
    target: str = ""
    into: str = ""
    expressions: bool = False


def examine(canonical: str, user: str, parameters: Mapping[str, str], forbidden: Set[str], known: Set[str]) -> Statement:
    """What a statement does, or QueryFailed (164, 452, 497) where `user` may not.

    `forbidden` are the engine's other table functions, `known` its settings.
    """
    spaced = _CANONICAL.findall(canonical)
    tokens = [token for token in spaced if not token.isspace()]
    words = [token.upper() if token[:1].isalpha() or token[:1] == "_" else token for token in tokens]
    head = " ".join(words[:6]) + " "
    kind = next((kind for kind in (*READS, *WRITES) if head.lstrip("( ").startswith(kind + " ")), "")
    if not kind:
        raise _denied(" ".join(words[:2]))
    if kind in WRITES and user != WRITER:
        raise refuse(164, "READONLY", f"{user}: Cannot execute query in readonly mode.")
    if COPIES.fullmatch(canonical.strip()):
        return Statement(canonical, kind, False, "", {})
    if kind in ("BACKUP", "RESTORE", "DROP DATABASE"):
        raise _denied(" ".join(words[:3]))
    if kind == "SHOW" and not any(head.startswith(f"SHOW {what} ") for what in SHOWS):
        raise _denied(" ".join(words[:2]))
    if kind == "ALTER TABLE" and {"FREEZE", "UNFREEZE", "EXPORT"} & set(words):
        raise _denied("FREEZE")
    for i, word in enumerate(words[:-1]):
        follower = words[i + 1]
        if (word, follower) in PHRASES:
            raise _denied(f"{word} {follower}")
        if follower == "(":
            _check_call(_plain(tokens[i]), forbidden)
            if _plain(tokens[i]).lower() in NAMING:  # the function by name, so that has to stand there
                if not tokens[i + 2 :] or tokens[i + 2][0] != "'":
                    raise _denied(f"{tokens[i]} of a name that is made")
                _check_call(_plain(tokens[i + 2]).partition("(")[0].strip(), forbidden)
        if word == "APPLY":
            _check_call(_plain(tokens[i + 2] if follower == "(" and i + 2 < len(tokens) else tokens[i + 1]), forbidden)
        if word == "ENGINE" and follower == "=" and i + 2 < len(tokens) and not ENGINES.fullmatch(_plain(tokens[i + 2])):
            raise _denied(f"ENGINE = {_plain(tokens[i + 2])}")
    names = list(_names(tokens))
    for name in names:
        _check_name(name, user)
    inserted = [
        re.split(r"[.`\"]+", parameters.get(token[1:].partition(":")[0].strip(), ""))
        for token in tokens
        if token[0] == "{" and token[1:-1].rpartition(":")[2].strip() == "Identifier"
    ]
    if inserted:  # put together from pieces, so no piece may be one of these
        if kind not in READS:
            raise _denied("a name as a parameter")
        for name in [*inserted, *names]:
            if {"system", "information_schema", "default"} & {part.lower() for part in name}:
                raise _denied(".".join(name))
            _check_name(name, user)
    settings = dict(_settings(tokens, known, of_a_table=words[0] in ("CREATE", "REPLACE", "ALTER")))
    target, into = _target(spaced) if kind == "INSERT INTO" else ("", "")
    return Statement(canonical, kind, kind in ("SELECT", "WITH"), _format(words, tokens), settings, target, into)


def _denied(what: str) -> QueryFailed:
    return refuse(497, "ACCESS_DENIED", f"Not enough privileges: {what[:100]} is not offered here")


def _plain(token: str) -> str:
    return _ESCAPED.sub(lambda found: ESCAPES.get(found[1], found[1]), token[1:-1]) if token[:1] in ("`", "'") else token


def _check_call(name: str, forbidden: Set[str]) -> None:
    if name.lower() in forbidden or FUNCTIONS.fullmatch(name):
        raise _denied(f"the function {name}")


def _names(tokens: list[str]) -> Iterator[list[str]]:
    """Every name in the text with its parts: `a`, `a.b`, `a`.`b`.c."""
    name: list[str] = []
    joined = False
    for token in tokens:
        if token == "." and name:
            joined = True
        elif _is_name(token):
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


def _check_name(parts: list[str], user: str) -> None:
    """A table by name. Where a word could be a column or an alias of a hidden name, it is refused too: nothing of ours is called so."""
    lower = [part.lower() for part in parts]
    if HIDDEN & set(lower):
        raise _denied(".".join(parts))
    if lower[0] == "default" and len(parts) > 1:  # the engine's own database: there, a table's name may be a file's path
        raise _denied(".".join(parts))
    for schema, allowed in (("system", SYSTEM_TABLES), ("information_schema", INFORMATION_TABLES)):
        if schema in lower:
            following = lower[lower.index(schema) + 1 :]
            if following and (following[0] not in allowed or (user != WRITER and following[0] in WRITERS_TABLES)):
                raise _denied(".".join(parts))


def _format(words: list[str], tokens: list[str]) -> str:
    """The format that the statement names at its end, or an empty text."""
    for i in range(len(words) - 2, 0, -1):
        if words[i] == "FORMAT" and (i + 2 == len(words) or words[i + 2] == "SETTINGS") and tokens[i + 1][0].isalpha():
            return tokens[i + 1]
    return ""


def _settings(tokens: list[str], known: Set[str], of_a_table: bool) -> Iterator[tuple[str, str]]:
    """The changes in SETTINGS clauses: `name = literal` or `name`, with commas between. Those of a table (CREATE, ALTER) are the
    table's, and only looked at for ones that are not. Raises QueryFailed (115, 452) for a name or value that is not one."""
    for start, token in enumerate(tokens[:-1]):
        # The canonical text has keywords in capitals; a name that is written so has no name in small letters after it.
        if token not in ("SETTINGS", "SETTING") or tokens[start + 1].isupper() or not _is_name(tokens[start + 1]) or tokens[0] == "SHOW":
            continue
        items = chain(tokens[start + 1 :], repeat(""))
        separator = ","
        while separator == ",":
            name, value = _plain(next(items)), "1"
            if (separator := next(items)) == "=":
                value = next(items)
                value += next(items) if value == "-" else ""
                separator = next(items)
                while value[-1:] == "e" and separator in ("-", "+"):  # 1e-7
                    value, separator = value + separator + next(items), next(items)
            if of_a_table and name not in known and not TABLES_SETTINGS.fullmatch(name):
                continue
            if not _LITERAL.fullmatch(value) or (of_a_table and not clickhouse_access.changeable(name)):
                raise refuse(452, "SETTING_CONSTRAINT_VIOLATION", f"Setting {name} should not be changed to {value[:100]}")
            if name not in NOT_HERE and not of_a_table:
                yield name, _plain(value)


def _target(spaced: list[str]) -> tuple[str, str]:
    """The table of an INSERT, and the text up to what follows its columns."""
    depth, name = 0, ""
    for at, token in enumerate(spaced):
        depth += (token == "(") - (token == ")")
        if depth or at < 3 or token == "TABLE":
            continue
        if name and token in ("SETTINGS", "FORMAT", "SELECT", "WITH", "VALUES", "FROM") and spaced[at - 1].isspace():
            return name, "".join(spaced[:at]).rstrip()
        if _is_name(token):
            name = _plain(token)
    return name, "".join(spaced).rstrip()


def _is_name(token: str) -> bool:
    return token[:1] in ("`", "_") or token[:1].isalpha()
