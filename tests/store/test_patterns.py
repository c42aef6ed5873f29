"""The redaction patterns, in the engine that applies them: each finds what it is for, none is overlooked, ordinary text stays."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sp_telemetry.privacy.keys import KEYS
from sp_telemetry.privacy.patterns import PATTERNS
from sp_telemetry.privacy.redaction import array, quote, redacted
from sp_telemetry.store.engine import Engine
from tests.store.examples import example

Run = Callable[[str], bytes]
LIMIT = 300


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    engine = Engine(Path(tmp_path_factory.mktemp("patterns")))
    with engine.handle() as handle:
        yield handle.query
    engine.close()


def made(run: Run, texts: list[str]) -> list[str]:
    """`texts`, redacted."""
    rows = run(
        f"SELECT {redacted('s', LIMIT)}"
        f" FROM (SELECT arrayJoin(arrayEnumerate(t)) AS n, t[n] AS s FROM (SELECT {array(texts)} AS t)) ORDER BY n"
    )
    return [re.sub(r"\\(.)", lambda found: {"t": "\t", "n": "\n"}.get(found[1], found[1]), row) for row in rows.decode().split("\n")[:-1]]


def test_there_are_keys_of_forty_providers_and_all_else_that_was_asked_for():
    assert len({key.provider for key in KEYS}) == len(KEYS) >= 40 and all(key.source for key in KEYS)
    wanted = [
        "private-key",
        "jwt",
        "url-password",
        "assigned-secret",
        "option-secret",
        "email",
        "phone",
        "card",
        "iban",
        "ip-address",
        "ipv6-address",
        "home",
    ]
    assert set(wanted) <= {pattern.name for pattern in PATTERNS}
    assert all(pattern.source for pattern in PATTERNS)


def test_examples(run):
    for pattern in PATTERNS:
        texts = [*pattern.like, *pattern.unlike]
        if not texts:
            continue
        hits = run(f"SELECT arrayStringConcat(arrayMap(s -> toString(match(s, {quote(pattern.regex)})), {array(texts)}))").decode().strip()
        assert hits == "1" * len(pattern.like) + "0" * len(pattern.unlike), pattern.name
        assert [bool(re.search(pattern.regex, text)) for text in texts] == [hit == "1" for hit in hits], "Python reads it otherwise"
        results = made(run, texts)
        assert all(text != result for text, result in zip(texts, results, strict=True) if text in pattern.like), pattern.name


@pytest.mark.parametrize("text", ["4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444", "6011111111111117", "30569309025904"])
def test_a_card_is_one_by_its_check_digit(run, text):
    wrong = text[:-1] + str((int(text[-1]) + 1) % 10)
    listed = f"paid with {text}, {wrong}; {text}"
    assert made(run, [listed]) == [f"paid with <card>, {wrong}; <card>"]


def surrounded(each: int, seed: int) -> list[str]:
    """For every pattern `each` texts that it matches, with something around them."""
    chance = random.Random(seed)
    found = []
    for pattern in PATTERNS:
        for _ in range(each):
            text = example(pattern.regex, chance)
            assert re.search(pattern.regex, text), pattern.name
            found.append(chance.choice(["", "x ", "a/", "(", "ü", '"', "%20", "\\n"]) + text + chance.choice(["", " y", ",", '"', "; ß"]))
    return found


def look_misses(run: Run, texts: list[str]) -> bytes:
    looks = array([pattern.look or pattern.regex for pattern in PATTERNS])
    regexes = array([pattern.regex for pattern in PATTERNS])
    changes = f"arrayFilter(i -> match(s, {regexes}[i]), range(1, {len(PATTERNS) + 1}))"
    missed = f"arrayFilter(i -> NOT has(multiMatchAllIndices(s, {looks}), i), {changes}) AS missed"
    some = (texts[at : at + 500] for at in range(0, len(texts), 500))  # the engine takes a statement of 256 kB at most
    return b"".join(run(f"SELECT s, {missed} FROM (SELECT arrayJoin({array(each)}) AS s) WHERE notEmpty(missed)") for each in some)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_pattern_matches_the_look_finds(run, seed):
    """What Vectorscan looks for is in every text that RE2 would change."""
    assert look_misses(run, surrounded(10, seed)) == b""


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10, 40))
def test_what_a_pattern_matches_the_look_finds_at_length(run, seed):
    assert look_misses(run, surrounded(40, seed)) == b""


def test_redacted_twice_is_redacted_once(run):
    once = made(run, surrounded(5, 3))
    assert made(run, once) == once


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern.name.endswith("-key")], ids=lambda pattern: pattern.name)
def test_no_part_of_a_key_is_left(run, pattern):
    chance = random.Random(pattern.name)
    keys = [example(pattern.regex, chance, more=20).strip() for _ in range(20)]
    results = made(run, [f"it said: {key} and more" for key in keys])
    for key, result in zip(keys, results, strict=True):
        left, rest = re.sub("<[a-z0-9-]+>", " ", result), key[8:]  # a prefix is no secret
        assert "-key>" in result and not any(rest[at : at + 8] in left for at in range(len(rest) - 7)), (key, result)


def _letters(chance: random.Random, count: int, of: str = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789") -> str:
    return "".join(chance.choices(of, k=count))


def test_formats_that_came_in_the_last_years_are_known_whole(run):
    """Put together here and not made from the patterns, which would find what they themselves say."""
    chance = random.Random(2026)
    any_, hex_ = (lambda count: _letters(chance, count)), (lambda count: _letters(chance, count, "0123456789abcdef"))
    made_up = [
        f"xsmtpsib-AC{hex_(62)}-{any_(16)}",  # within it one of another provider's begins
        f"glpat-{any_(27)}.01.0a{hex_(7)}", f"glpat-{any_(40)}.1a{hex_(7)}", f"ghs_{any_(20)}_eyJ{any_(20)}.{any_(30)}.{any_(20)}",
        f"AQ.Ab8RN6{any_(43)}", f"nvapi-{any_(64)}", f"sk_{hex_(48)}", f"crsr_{hex_(64)}", f"e2b_{hex_(40)}",
        f"sgamp_user_{_letters(chance, 26).upper()}_{hex_(64)}", f"pylf_v1_eu_{any_(43)}", f"apify_api_{any_(36)}", f"cfut_{any_(48)}",
        f"cfat_{any_(48)}", f"sbp_oauth_{hex_(40)}", f"dose{hex_(32)}", f"mdb_sa_sk_{any_(40)}", f"CCDB1_{any_(22)}_{any_(40)}",
        f"4b1d{any_(38)}", f"dbtu_{any_(40)}", f"ddpat_{any_(40)}", f"xaat-{hex_(8)}-1111-4222-8333-{hex_(12)}",
        f"sk_org_live_{any_(40)}", f"re_{any_(8)}_{any_(24)}", f"pat-eu1-{hex_(8)}-1111-4222-8333-{hex_(12)}",
        f"ATSTT3{any_(60)}", f"ATTA{hex_(64)}", f"cmVmdGtu{any_(56)}", f"sk.eyJ1Ijoi{any_(60)}.{any_(22)}", f"dtn_{hex_(64)}",
        f"v4.local.{any_(100)}", f"A{'A' * 21}{any_(80)}", f"EAAG{any_(160)}", f"packagist_ort_{hex_(60)}", f"polar_oat_{any_(43)}",
        f"https://hooks.zapier.com/hooks/catch/1234567/{any_(10).lower()}/", f"AZURE_OPENAI_KEY={hex_(32)}",
        f"https://acme.webhook.office.com/webhookb2/{hex_(8)}@{hex_(12)}/IncomingWebhook/{hex_(32)}/{hex_(12)}",
    ]  # fmt: skip
    results = made(run, [f"it said: {text} and more" for text in made_up])
    left = [
        (text, result) for text, result in zip(made_up, results, strict=True)
        if any(text[at : at + 6] in result for at in range(len(text) - 26, len(text) - 5)) or "<" not in result
    ]  # fmt: skip
    assert left == []
    digest = f"4b1d{hex_(60)}"
    assert made(run, [digest]) == [digest]  # an installation's user.id, say


def test_the_word_at_the_edge_of_what_is_looked_at_is_left_out(run):
    """Half a secret is known to no pattern, so the cut before the look takes the whole word away; the cut after it takes what is left."""
    secret = "ghp_" + "a1B2c3D4" * 5
    for fill in range(3200, 3260):
        [result] = made(run, [f"{'x' * 200} {'y' * (fill - 230)} {secret} and more {'z' * 3000}"])
        assert "ghp_" not in result and len(result) <= LIMIT
    [result] = made(run, ["/home/grace " * 40 + secret])
    assert "ghp_" not in result and result.startswith("~ ~ ")
    assert made(run, ["k" * 20 + " \x00\x1b[31m red\ttab"]) == ["k" * 20 + "   [31m red tab"]


@pytest.mark.checkout
def test_ordinary_text_stays_as_it_is(run):
    """The figures in docs/privacy.md come from the same corpus; here they have a bound."""
    from tests.store.corpus import corpus, touched

    texts = corpus()
    assert sum(map(len, texts.values())) > 20_000
    share = {kind: len({text for each in touched(some, run).values() for text in each}) / len(some) for kind, some in texts.items()}
    nothing = {
        "UUIDs",
        "request ids",
        "user.id and hashes",
        "versions",
        "models",
        "branches",
        "paths in a repository",
    }
    assert {kind for kind in nothing if share[kind]} == set()
    assert all(part < 0.03 for part in share.values()), share
