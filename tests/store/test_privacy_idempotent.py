"""The policy applied to what it left changes nothing, for every treatment at every level: so a collector may apply it before the store."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from sp_telemetry.privacy import sql
from sp_telemetry.privacy.patterns import PATTERNS
from sp_telemetry.privacy.policy import ATTRIBUTES, LEVELS, Policy
from sp_telemetry.privacy.redaction import quote
from sp_telemetry.privacy.vocabulary import PHRASES, WORDS
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine, Handle
from tests.store.examples import example

SALT = "'5a17'"
#: one attribute of each kind
NAMES = {kind: name for name, kind in ATTRIBUTES.items()} | {"own hash": "team.secret", "own text": "team.name"}
EXAMPLES = [text for pattern in PATTERNS for text in (*pattern.like, *pattern.unlike)]
OWN = ["other-0123abcd", "hash-" + "0a" * 8, "sha256:" + "0a" * 32, "sha256:" + "0a" * 32 + " more", "unnamed", "<email>", "0a" * 32]
BETWEEN = ["", "", " ", ", ", ": ", "\n", "; "]


def text(chance: random.Random) -> str:
    """Some of: examples of patterns, what is made from patterns, phrases, words, what the policy itself writes, any characters."""
    pieces = []
    for _ in range(chance.randrange(1, 6)):
        of = chance.randrange(7)
        if of == 0:
            pieces.append(example(chance.choice(PATTERNS).regex, chance))
        elif of == 1:
            pieces.append(
                "".join(chr(chance.choice([chance.randrange(128), chance.randrange(0xA0, 0xD800)])) for _ in range(chance.randrange(20)))
            )
        elif of == 2:
            pieces.append("x" * chance.randrange(400))
        else:
            pieces.append(chance.choice([EXAMPLES, [text for text, _ in PHRASES], sorted(WORDS), OWN][of - 3]))
        pieces.append(chance.choice(BETWEEN))
    return "".join(pieces)


ONCE = {
    "words": "mapSort(telemetry_words({salt}, {x}))",
    "numbers": "mapApply((k, v) -> (k, toString(v)), mapSort(telemetry_numbers({x})))",
    "identifiers": "mapSort(telemetry_identifiers({salt}, {x}))",
    "hashes": "mapApply((k, v) -> (k, concat('sha256:', v)), mapSort(telemetry_hashes({salt}, {x})))",
    "text": "mapApply((k, v) -> (k, telemetry_text(k, v)), {x})",
    "word": "mapApply((k, v) -> (k, telemetry_word({salt}, v)), {x})",
    "error": "mapApply((k, v) -> (k, telemetry_error(v)), {x})",
    "name": "mapApply((k, v) -> (k, telemetry_name(v)), {x})",
    "identifier": "mapApply((k, v) -> (k, telemetry_identifier({salt}, v)), {x})",
}


@pytest.fixture(scope="module", params=LEVELS)
def handle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    engine = Engine(tmp_path_factory.mktemp(request.param))
    with engine.handle() as opened:
        policy = Policy(request.param, (), {"team.secret": "hash", "team.name": "text"})
        for statement in schema.statements(sql.render(policy)):
            opened.query(statement)
        for table in ("given", "left"):
            opened.query(f"CREATE TABLE {table} (m Map(String, String)) ENGINE = Memory")
        yield opened
    engine.close()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
def test_applied_twice_is_applied_once(handle: Handle, seed: int) -> None:
    chance = random.Random(seed)
    values = ["", *EXAMPLES, *(text(chance) for _ in range(500))]
    handle.query("TRUNCATE TABLE given")
    rows = [json.dumps({"m": dict.fromkeys(NAMES.values(), value)}).encode() + b"\n" for value in values]
    handle.insert("INSERT INTO given", "JSONEachRow", rows)
    assert int(handle.query("SELECT count() FROM given")) == len(values)
    for what, once in ONCE.items():
        handle.query("TRUNCATE TABLE left")
        handle.query(f"INSERT INTO left SELECT {once.format(salt=SALT, x='m')} FROM given")
        differ = handle.query(f"SELECT m, {once.format(salt=SALT, x='m')} AS twice FROM left WHERE m != twice LIMIT 1", "JSONEachRow")
        assert differ == b"", (what, json.loads(differ))


def test_names_that_a_collector_listed_are_checked_as_those_of_attributes_are(handle: Handle) -> None:
    """So nothing can be said in them that an attribute's name could not say."""
    for text in ("new.attribute,unnamed", "zebra quagga,sk-ant-0123456789abcdef,new.attribute", "", ",,", "session.id", "x" * 300):
        listed = handle.query(f"SELECT telemetry_unknown(map('redaction.redacted.keys', {quote(text)}))")
        as_names = ", ".join(f"{quote(name)}, 'x'" for name in text.split(","))
        assert listed == handle.query(f"SELECT telemetry_unknown(map({as_names}))"), text
        assert b"zebra" not in listed and b"sk-ant" not in listed
