"""The policy as SQL functions: what `telemetry-server/clickhouse/views/00_privacy.sql` holds.

`python -m sp_telemetry.privacy.sql` prints the file; a test holds the two against each other. The views only ever call these:

- ``telemetry_words(m)``             of a map of attributes those kept as text, each redacted, one line, cut;
- ``telemetry_numbers(m)``           the numbers, as Float64; what is none, or not finite, is 0;
- ``telemetry_kept(m)``              of the words the ones that have no column of their own;
- ``telemetry_identifiers(salt, m)`` the identifiers, each kept or hashed;
- ``telemetry_hashes(salt, m)``      the texts of which only the salted SHA-256 is kept;
- ``telemetry_unknown(salt, m)``     the attributes that the policy does not name: checked name -> start of the value's hash;
- ``telemetry_text(k, v)``           the value of one attribute as text, redacted as it is its name's due;
- ``telemetry_redact(s)``, ``telemetry_identifier(salt, s)``, ``telemetry_name(s)``  the same for one text;
- ``telemetry_count(x)``             a Float64 as UInt64, 0 where it can't be one.

A view is analysed anew at every insert, with functions expanded in it, and that costs more than the rows of a small insert. So
each function is called once a row, on a whole map. Of many rows most of the time goes into looking keys up in maps, which is linear:
so columns are picked from small ones. Redaction works on LowCardinality:
once a distinct text of a block.
"""

from __future__ import annotations

from functools import reduce

from sp_telemetry.privacy.policy import ATTRIBUTES, PATTERNS, TREATMENTS, WORD_LIMIT

IDENTIFIER = r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(req|msg|toolu|srvtoolu|gen|wf)_[0-9A-Za-z]{6,80})?$"
#: an e-mail address and nothing else; its sign is put aside while a person's name is redacted
ADDRESS = r"^([A-Za-z0-9._%+-]+)@((?:[A-Za-z0-9-]+[.])+[A-Za-z0-9-]+)$", r"\1⟨at⟩\2"
ADDRESS_BACK = r"^([A-Za-z0-9._%+<>-]+)⟨at⟩([A-Za-z0-9.<>-]+)$", r"\1@\2"
NAME = r"^[a-z][a-z_]*([.][a-z_]+)*[a-z0-9]*$"


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _names(*treatments: str) -> str:
    return "(" + ", ".join(_quote(name) for name, treatment in sorted(ATTRIBUTES.items()) if treatment in treatments) + ")"


def _redacted(expression: str) -> str:
    return reduce(lambda inner, p: f"replaceRegexpAll({inner}, {_quote(p.regex)}, {_quote(p.text)})", PATTERNS, expression)


def render() -> str:
    """The file's whole text: one CREATE OR REPLACE FUNCTION for each line of the list above."""
    one_line = f"replaceRegexpAll(substringUTF8(toValidUTF8(toLowCardinality(s)), 1, {WORD_LIMIT}), '[[:cntrl:]]', ' ')"
    aside, back = (", ".join(map(_quote, replacement)) for replacement in (ADDRESS, ADDRESS_BACK))
    person = f"if(k IN {_names('person')}, replaceRegexpOne(v, {aside}), v)"
    digest = "lower(hex(SHA256(concat(salt, {}))))"
    functions = {
        "telemetry_redact AS (s)": _redacted(one_line),
        "telemetry_text AS (k, v)": f"replaceRegexpOne(toString(telemetry_redact({person})), {back})",
        "telemetry_identifier AS (salt, s)": (f"if(match(s, {_quote(IDENTIFIER)}), s, {digest.format('s')})"),
        "telemetry_name AS (s)": f"if(match(s, {_quote(NAME)}) AND length(s) <= 64, s, 'unnamed')",
        "telemetry_count AS (x)": "accurateCastOrDefault(x, 'UInt64')",
        "telemetry_numbers AS (m)": (
            f"mapApply((k, v) -> (k, ifNotFinite(toFloat64OrZero(v), 0)), mapFilter((k, v) -> k IN {_names('number')}, m))"
        ),
        "telemetry_words AS (m)": (
            f"mapApply((k, v) -> (k, telemetry_text(k, v)), mapFilter((k, v) -> k IN {_names('word', 'person', 'keep')}, m))"
        ),
        "telemetry_kept AS (m)": f"mapFilter((k, v) -> k IN {_names('keep')}, m)",
        "telemetry_identifiers AS (salt, m)": (
            f"mapApply((k, v) -> (k, telemetry_identifier(salt, v)), mapFilter((k, v) -> k IN {_names('identifier')}, m))"
        ),
        "telemetry_hashes AS (salt, m)": (
            f"mapApply((k, v) -> (k, {digest.format('v')}), mapFilter((k, v) -> k IN {_names('hash')} AND v NOT IN ('', '<REDACTED>'), m))"
        ),
        "telemetry_unknown AS (salt, m)": (
            f"mapApply((k, v) -> (telemetry_name(k), substring({digest.format('v')}, 1, 16)),"
            f" mapFilter((k, v) -> k NOT IN {_names(*TREATMENTS)}, m))"
        ),
    }
    head = "-- Made from src/sp_telemetry/privacy/policy.py by `python -m sp_telemetry.privacy.sql`; a test keeps the two equal.\n"
    return head + "".join(f"\nCREATE OR REPLACE FUNCTION {name} -> {body};\n" for name, body in functions.items())


if __name__ == "__main__":
    print(render(), end="")
