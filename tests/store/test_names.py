"""What the hooks redact in a name is what the store would: their patterns are generated, but applied by another engine."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from sp_telemetry.privacy.keys import KEYS
from sp_telemetry.privacy.patterns import PATTERNS
from sp_telemetry.privacy.redaction import array, redacted
from sp_telemetry.store.engine import Engine
from tests.store.examples import example
from tests.unit.test_hooks_names import load

pytestmark = pytest.mark.checkout


def test_the_hooks_redact_as_the_store_does(tmp_path: Path) -> None:
    chance = random.Random(9)
    texts = [text for pattern in PATTERNS for text in (*pattern.like, *pattern.unlike)]
    texts += [f"017-{example(key.regex, chance)}-x" for key in KEYS for _ in range(5)]
    texts += [example(pattern.regex, chance, more=4) for pattern in PATTERNS for _ in range(5)]
    clean = load("names").Redaction("").clean
    texts = sorted({text for text in texts if text.isprintable() and text.isascii() and text == text.strip() and len(text) < 150})
    engine = Engine(tmp_path)
    with engine.handle() as handle:
        rows = handle.query(f"SELECT {redacted('s', 200)} FROM (SELECT arrayJoin({array(texts)}) AS s)", "JSONCompactEachRow")
    engine.close()

    stored = [json.loads(row)[0].strip() for row in rows.decode().splitlines()]
    assert len(texts) > 500
    assert [pair for pair in zip(texts, map(clean, texts), stored, strict=True) if pair[1] != pair[2]] == []
