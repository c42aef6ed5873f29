"""The privacy policy as data: whole, without contradictions, rendered to what is shipped."""

from __future__ import annotations

import random
import re

import pytest

from sp_telemetry import resources
from sp_telemetry.privacy import collector, sql
from sp_telemetry.privacy.ottl import HARMLESS, HARMLESS_WORDS
from sp_telemetry.privacy.patterns import PATTERNS
from sp_telemetry.privacy.policy import ATTRIBUTES, COLUMNS, CONTEXT, EVENTS, HASH_COLUMNS, ID_COLUMNS, KEPT, LEVELS, TREATMENTS, Policy
from sp_telemetry.privacy.vocabulary import NAME_WORDS, PHRASES, WORDS
from tests.recordings.reading import recordings
from tests.store.examples import example

#: from what keeps nothing to what keeps most
TIGHTNESS = ("drop", "hash", "phrases", "known", "version", "identifier", "number", "relative", "person", "text", "content")


def test_the_shipped_sql_is_the_rendering():
    assert resources.path("telemetry-server/clickhouse/views/00_privacy.sql").read_text() == sql.render()


@pytest.mark.parametrize("level", LEVELS)
def test_the_shipped_policies_of_the_collector_are_the_rendering(level):
    shipped = resources.path(f"telemetry-server/otel-collector/privacy/{level}.yaml").read_text()
    assert shipped == collector.render(Policy(level)), f"python -m sp_telemetry.privacy.collector {level} writes it"


def test_a_context_record_is_what_the_view_reads():
    view = resources.path("telemetry-server/clickhouse/views/21_context.sql").read_text()
    assert set(re.findall(r"\['(context\.\w+|session\.id)'\]", view)) == set(CONTEXT)


def test_what_the_collector_takes_for_harmless_no_pattern_touches():
    chance = random.Random(161)
    for _ in range(3000):
        text = example(chance.choice((HARMLESS, HARMLESS_WORDS)), chance)
        assert re.fullmatch(f"{HARMLESS}|{HARMLESS_WORDS}", text)
        assert [pattern.name for pattern in PATTERNS if re.search(pattern.regex, text)] == [], text


def test_the_collectors_salt_is_the_only_thing_that_it_reads_from_elsewhere():
    for level in LEVELS:
        text = collector.render(Policy(level))
        assert collector.SALT_FILE in text and "$" not in text.replace("$$", "").replace(collector.SALT_FILE, "")


def test_every_attribute_has_a_kind_and_every_kind_a_treatment_at_each_level():
    assert set(ATTRIBUTES.values()) == set(KEPT)
    assert {treatment for levels in KEPT.values() for treatment in levels} == set(TREATMENTS) == set(TIGHTNESS)
    assert set(ATTRIBUTES) >= (COLUMNS | HASH_COLUMNS | ID_COLUMNS)


def test_each_level_keeps_at_least_what_the_one_before_keeps():
    for kind, levels in KEPT.items():
        assert [*levels] == sorted(levels, key=TIGHTNESS.index), kind


def test_strict_is_the_default_and_keeps_the_same_functions():
    assert Policy().level == LEVELS[0] == "strict"
    names = [tuple(re.findall(r"FUNCTION (\w+ AS \([^)]*\))", sql.render(Policy(level)))) for level in LEVELS]
    assert len(set(names)) == 1 and len(names[0]) > 10


HASHED = ("prompt", "response", "tool_input", "tool_parameters", "user.email")
DROPPED = (
    "body", "system_prompt", "host.name", "process.command_args", "workspace.host_paths", "file_path", "bash_command", "prompt_text",
    "user_prompt", "full_command",
)  # fmt: skip


@pytest.mark.parametrize("name", HASHED)
def test_what_people_and_the_model_write_is_at_most_hashed(name):
    assert Policy("strict").treatments[name] == Policy("standard").treatments[name] == "hash"


@pytest.mark.parametrize("name", DROPPED)
def test_what_has_no_use_is_dropped(name):
    assert Policy("strict").treatments[name] == "drop"


def test_own_words_are_kept_at_strict_only_where_the_product_is_about_them():
    own = ("text", "person", "content", "relative")
    kept = {name for name, treatment in Policy("strict").treatments.items() if treatment in own}
    assert kept == {
        "user.id", "enduser.id", "context.person", "model", "final_model", "gen_ai.request.model", "gen_ai.response.model",
        "vcs.repository.name", "vcs.ref.head.name",
    }  # fmt: skip


def test_phrases_find_themselves_and_no_other():
    """So that what was made of an error once stays the same when it is made again."""
    for text, _ in PHRASES:
        assert [other for other, look in PHRASES if re.search(look, text)] == [text]
    assert not any(re.search(look, "other") for _, look in PHRASES)


def test_words_are_words():
    assert all(re.fullmatch(r"[A-Za-z0-9_.+#@-]+", word) for word in WORDS)
    assert all(re.fullmatch("[a-z]+", word) for word in NAME_WORDS)


def test_pitfall_a02_every_event_and_attribute_of_the_recordings_is_known():
    """So that in the store `unknown_attributes` means: newer than these clients."""
    for recording in recordings():
        for event in recording.events():
            assert event.name in EVENTS, event.name
            assert set(event.attributes) | set(event.resource) <= set(ATTRIBUTES), (recording.name, event.name)


def test_names_are_unique_and_patterns_are_such_as_both_engines_read():
    assert len({pattern.name for pattern in PATTERNS}) == len(PATTERNS)
    assert len(set(EVENTS)) == len(EVENTS)
    for pattern in PATTERNS:
        re.compile(pattern.regex)
        assert not re.search(r"\(\?<?[=!]|\\[1-9]", pattern.regex), "RE2 has neither look-around nor back-references"
        assert not re.search(pattern.regex, "a sentence about chapter 33, feature 017-usage-data-collection and 12.5 % of 1,000 tokens")


def test_identifiers_and_names():
    for identifier in ("", "242f01d1-9a53-496a-adcd-b26aa1573fb1", "req_011CSHoEeqs5C35K2UUqR7Fy", "toolu_18ea8fe243e48369000100"):
        assert re.search(sql.IDENTIFIER, identifier)
    for other in ("grace", "242f01d1-9a53-496a-adcd-b26aa1573fb1x", "req_", "sk-ant-0123456789", "req_a b", "a\nreq_0123456789"):
        assert not re.search(sql.IDENTIFIER, other)
    for name in EVENTS:
        assert re.search(sql.NAME, name)
    for version in ("2.1.330", "26.9.2", "v1", "2.2.0-beta.3", "1.0.0-rc2", ""):
        assert re.search(sql.VERSION, version)
    for other in ("hunter2", "203.0.113.77", "1.2.3-my-fork", "2.1.330 (grace)"):
        assert not re.search(sql.VERSION, other)
    for other in ("Hello world", "sk-ant-api03", "a b", "grace@example.org", "/home/grace"):
        assert not re.search(sql.NAME, other)
