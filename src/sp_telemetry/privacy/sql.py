"""The policy as SQL functions: what `telemetry-server/clickhouse/views/00_privacy.sql` holds, for the default level.

`python -m sp_telemetry.privacy.sql [level]` prints the file; a test holds the two against each other. A store at another level, or with
rules of its own, gets its own text (`store/schema.py`): the names and the arguments are the same at every level. The views only ever
call these:

- ``telemetry_words(salt, m)``       of a map of attributes those kept as text, each as is its due;
- ``telemetry_numbers(m)``           the numbers, as Float64; what is none, or not finite, is 0;
- ``telemetry_kept(m)``              of the words the ones that have no column of their own, and say something;
- ``telemetry_identifiers(salt, m)`` the identifiers that have one, each kept or hashed;
- ``telemetry_hashes(salt, m)``      the salted SHA-256 of texts, where a column wants it;
- ``telemetry_unknown(m)``           checked names of the attributes that the policy does not know, here or in a collector before;
- ``telemetry_path(m)``              the file that a tool worked on, where the level keeps anything of it;
- ``telemetry_file(path, project)``  what is kept of its name: extension, and path in the repository `project`;
- ``telemetry_text(k, v)``           a text that is kept at every level, redacted; `k` is the attribute;
- ``telemetry_ruled(salt, k, s)``     what a transcript says in place of the attribute `k`, redacted before, as is that attribute's due;
- ``telemetry_taken(k)``             whether a rule of this installation leaves nothing of `k` itself;
- ``telemetry_word(salt, s)``, ``telemetry_error(s)``, ``telemetry_name(s)``, ``telemetry_identifier(salt, s)``, ``telemetry_redact(s)``
                                     one text: a word that should be the client's own, an error's, a name of an event or attribute, …;
- ``telemetry_count(x)``             a Float64 as UInt64, 0 where it can't be one.

All of them leave what they made themselves as it is: a collector may have applied the policy before (`collector.py`). It writes the hash
of a content as `sha256:` and 64 digits, at `full` with the redacted text behind it.

A statement is analysed anew at every insert, with functions expanded in it, and that costs more than the rows of a small insert. So
each function is called once a row, on a whole map. Of many rows most of the time goes into looking keys up in maps, which is linear:
so columns are picked from small ones. Patterns run on those texts alone that are somebody's own (`redaction.py`).
"""

from __future__ import annotations

import re
import sys

from sp_telemetry.privacy.policy import (
    ATTRIBUTES,
    COLUMNS,
    CONTENT_LIMIT,
    EVENTS,
    HASH_COLUMNS,
    ID_COLUMNS,
    UNKNOWN_NAMES,
    WORD_LIMIT,
    Policy,
)  # fmt: skip
from sp_telemetry.privacy.redaction import array, one_line, quote, redacted
from sp_telemetry.privacy.vocabulary import NAME_WORDS, PHRASES, WORDS

IDENTIFIER = (
    r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,17}|[0-9a-f]{40}|[0-9a-f]{64}"
    r"|(req|msg|toolu|srvtoolu|gen|wf)_[0-9A-Za-z]{6,80})?$"
)
#: an e-mail address and nothing else: as a person's name it stays
ADDRESS = r"^[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+[.])+[A-Za-z0-9-]+$"
NAME = r"^[a-z][a-z_]*([.][a-z_]+)*[a-z0-9]*$"
VERSION = (
    r"^(other-[0-9a-f]{8}|v?[0-9]{1,4}([.][0-9]{1,6}){0,2}([.+-]?(alpha|beta|rc|dev|preview|canary|nightly|next|build)[.-]?[0-9]{0,6})?)?$"
)
OTHER = "other-[0-9a-f]{8}"
ANY_WORD = "|".join(re.escape(word).replace("\\-", "-") for word in sorted(WORDS))
#: a word of the vocabulary, several with colons, dots, slashes or commas between, a number, or what this was done to before
KNOWN = f"^(?:(?:(?:{ANY_WORD})[:./,])*(?:{ANY_WORD})|-?[0-9]{{1,10}}(?:[.][0-9]{{1,6}})?|{OTHER})?$"
_NAME_WORDS = "|".join(sorted(NAME_WORDS | {word for name in (*ATTRIBUTES, *EVENTS) for word in re.split("[._0-9]+", name) if word}))
#: a name made of words that telemetry uses
NAME_OF_WORDS = f"^(?:(?:{_NAME_WORDS})[._0-9]{{1,3}})*(?:{_NAME_WORDS})[0-9]{{0,3}}$"
NAME_LIMIT = 64
#: what an own rule `hash` leaves of a value, and how a content's hash travels
HASHED = r"hash-[0-9a-f]{16}"
CONTENT_HASH = r"^(?:sha256:[0-9a-f]{64}(?:[\x00-\x20\x7f]|$))+"
DIGEST = "lower(hex(SHA256(concat(salt, {}))))"
#: what a transcript, or a row that is filled in from one, says too; of what is none of these a rule may be all the same
IN_TRANSCRIPTS = frozenset(
    ("model", "speed", "stop_reason", "service.version", "app.entrypoint", "vcs.repository.name", "vcs.ref.head.name")
)


def _in(what: str, names: frozenset[str] | list[str]) -> str:
    """SQL: `what` is one of `names`; false where there are none."""
    return f"{what} IN ({', '.join(map(quote, sorted(names)))})" if names else "false"


def _known(text: str) -> str:
    """True for what KNOWN matches. One pattern for Vectorscan, which prepares it once a process; a set of the words is made anew at each
    insert (3 ms)."""
    return f"multiMatchAny(toLowCardinality({text}), [{quote(KNOWN)}])"  # once a distinct text of a block


def _else_other(condition: str, text: str) -> str:
    return f"if({condition}, {text}, concat('other-', substring({DIGEST.format(text)}, 1, 8)))"


def _hashed(text: str) -> str:
    return f"if(match({text}, '^({HASHED})?$'), {text}, concat('hash-', substring({DIGEST.format(text)}, 1, 16)))"


def _first(*cases: tuple[str, str]) -> str:
    """`s` as the first case says that holds, else as it is."""
    some = [f"{condition}, {what}" for condition, what in cases if condition != "false"]
    return f"multiIf({', '.join(some)}, s)" if some else "s"


def _phrases(text: str) -> str:
    texts, looks = array([text for text, _ in PHRASES]), array([look for _, look in PHRASES])
    found = f"arrayMap(i -> {texts}[i], arraySort(multiMatchAllIndices({one_line(text, WORD_LIMIT)}, {looks})))"
    return f"if(empty({text}), '', coalesce(nullIf(arrayStringConcat({found}, '; '), ''), 'other'))"


def _own_words(text: str, policy: Policy, persons: frozenset[str], contents: frozenset[str]) -> str:
    """What is somebody's own words and kept, by attribute `k`: redacted once for all, so that the patterns stand in a statement once."""
    limit = f"if({_in('k', contents)}, {CONTENT_LIMIT}, {WORD_LIMIT})" if contents else str(WORD_LIMIT)
    spared = f"{_in('k', persons)} AND match({text}, {quote(ADDRESS)})"
    return redacted(text, limit, policy.patterns, spare=("email", spared))


def _name(policy: Policy) -> str:
    """A name of an event, attribute, metric or span as it is, or 'unnamed'. At `strict` it has to be made of words that telemetry uses."""
    if policy.level != "strict":
        return f"if(match(s, {quote(NAME)}) AND length(s) <= {NAME_LIMIT} AND telemetry_redact(s) = s, s, 'unnamed')"
    return f"if(length(s) <= {NAME_LIMIT} AND multiMatchAny(s, [{quote(NAME_OF_WORDS)}]), s, 'unnamed')"


def _path(policy: Policy) -> str:
    """What a tool's event says of the file that it worked on, as it says it; nothing where the level keeps nothing of it."""
    if policy.treatments["file_path"] != "relative":
        return "''"
    return "if(empty(m['file_path']), JSONExtractString(m['tool_input'], 'file_path'), m['file_path'])"


def _file(policy: Policy) -> str:
    """Map of what is kept of the file that a tool worked on. Without a known repository only the extension of an absolute path is kept."""
    if policy.treatments["file_path"] != "relative":
        return "CAST(map(), 'Map(String, String)')"
    path = "replaceAll(path, '\\\\', '/')"
    within = "concat('/', project, '/')"
    relative = (
        f"multiIf(NOT match({path}, '^(/|~|[A-Za-z]:)'), {path}, project != '' AND position({path}, {within}) > 0,"
        f" substring({path}, position({path}, {within}) + length(project) + 2), '')"
    )
    extension = f"lower(extract({path}, '[.]([A-Za-z0-9]{{1,10}})$'))"
    found = f"map('file_extension', {extension}, 'file_path', {redacted(relative, WORD_LIMIT, policy.patterns)})"
    return f"mapFilter((k, v) -> notEmpty(v), {found})"


def render(policy: Policy = Policy()) -> str:  # noqa: B008 - it is frozen
    """The file's whole text: one CREATE OR REPLACE FUNCTION for each line of the list above."""
    treatments = policy.treatments

    def names(*wanted: str) -> frozenset[str]:
        return frozenset(name for name, treatment in treatments.items() if treatment in wanted)

    hashed_by_rule = names("hash") - HASH_COLUMNS
    due = {
        "known": (names("known"), _else_other(_known("v"), "v")),
        "identifier": (names("identifier") - ID_COLUMNS, "telemetry_identifier(salt, v)"),
        "version": (names("version"), _else_other(f"match(v, {quote(VERSION)})", "v")),
        "phrases": (names("phrases"), _phrases("v")),
        "hash": (hashed_by_rule, _hashed("v")),
        "text": (names("text", "person", "content"), _own_words("v", policy, names("person"), names("content"))),
    }
    cases = ", ".join(f"{_in('k', of)}, {what}" for of, what in due.values() if of)
    worded = frozenset().union(*(of for of, _ in due.values()))
    in_transcripts = IN_TRANSCRIPTS | policy.own_attributes.keys()
    error = "telemetry_redact(s)" if policy.level != "strict" else _phrases("s")
    worded_of_m = f"mapFilter((k, v) -> {_in('k', worded)}, m)"
    if contents := names("content") & HASH_COLUMNS:
        without = f"if({_in('k', contents)}, replaceRegexpOne(v, {quote(CONTENT_HASH)}, ''), v)"
        worded_of_m = f"mapApply((k, v) -> (k, {without}), {worded_of_m})"
    functions = {
        "telemetry_redact AS (s)": redacted("s", WORD_LIMIT, policy.patterns),
        "telemetry_text AS (k, v)": _own_words("v", policy, names("person"), frozenset()),
        "telemetry_ruled AS (salt, k, s)": _first(
            (_in("k", names("drop") & in_transcripts), "''"),
            (_in("k", hashed_by_rule & in_transcripts), _hashed("s")),
            (_in("k", names("known") & in_transcripts), _else_other(_known("s"), "s")),
            (_in("k", names("version") & in_transcripts), _else_other(f"match(s, {quote(VERSION)})", "s")),
        ),
        "telemetry_taken AS (k)": _in("k", frozenset(name for name, treatment in policy.own_attributes.items() if treatment != "text")),
        "telemetry_identifier AS (salt, s)": f"if(match(s, {quote(IDENTIFIER)}), s, {DIGEST.format('s')})",
        "telemetry_name AS (s)": _name(policy),
        "telemetry_count AS (x)": "accurateCastOrDefault(x, 'UInt64')",
        "telemetry_word AS (salt, s)": "telemetry_redact(s)" if policy.level != "strict" else _else_other(_known("s"), "s"),
        "telemetry_error AS (s)": error,
        "telemetry_numbers AS (m)": (
            f"mapApply((k, v) -> (k, ifNotFinite(toFloat64OrZero(v), 0)), mapFilter((k, v) -> {_in('k', names('number'))}, m))"
        ),
        "telemetry_words AS (salt, m)": f"mapApply((k, v) -> (k, multiIf({cases}, '')), {worded_of_m})",
        "telemetry_kept AS (m)": f"mapFilter((k, v) -> notEmpty(v) AND {_in('k', worded - COLUMNS)}, m)",
        "telemetry_path AS (m)": _path(policy),
        "telemetry_file AS (path, project)": _file(policy),
        "telemetry_identifiers AS (salt, m)": (
            f"mapApply((k, v) -> (k, telemetry_identifier(salt, v)), mapFilter((k, v) -> {_in('k', ID_COLUMNS)}, m))"
        ),
        "telemetry_hashes AS (salt, m)": (
            f"mapApply((k, v) -> (k, if(match(v, {quote(CONTENT_HASH)}), substring(v, 8, 64), {DIGEST.format('v')})),"
            f" mapFilter((k, v) -> {_in('k', names('hash', 'content') & HASH_COLUMNS)} AND v NOT IN ('', '<REDACTED>'), m))"
        ),
        "telemetry_unknown AS (m)": (
            f"arraySort(arrayDistinct(arrayMap(k -> telemetry_name(k), arrayFilter(k -> NOT {_in('k', frozenset(treatments) | {''})},"
            f" arrayConcat(mapKeys(m), splitByChar(',', m[{quote(UNKNOWN_NAMES)}]))))))"
        ),
    }
    head = "-- Made from src/sp_telemetry/privacy/policy.py by `python -m sp_telemetry.privacy.sql`; a test keeps the two equal.\n"
    return head + "".join(f"\nCREATE OR REPLACE FUNCTION {name} -> {body};\n" for name, body in functions.items())


if __name__ == "__main__":
    print(render(Policy(*sys.argv[1:2])), end="")
