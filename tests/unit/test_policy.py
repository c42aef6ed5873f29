"""The privacy policy as data: whole, without contradictions, rendered to what is shipped."""

from __future__ import annotations

import re

import pytest

from sp_telemetry import resources
from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import ATTRIBUTES, EVENTS, PATTERNS, TREATMENTS
from tests.recordings.reading import recordings


def test_the_shipped_sql_is_the_rendering():
    assert resources.path("telemetry-server/clickhouse/views/00_privacy.sql").read_text() == sql.render()


def test_every_attribute_has_a_known_treatment():
    assert set(ATTRIBUTES.values()) == set(TREATMENTS)


HASHED = ("prompt", "prompt_text", "response", "tool_input", "tool_parameters", "user.email", "user_prompt", "full_command")
DROPPED = ("body", "system_prompt", "host.name", "process.command_args", "workspace.host_paths", "file_path", "bash_command")


@pytest.mark.parametrize("name", HASHED)
def test_what_people_and_the_model_write_is_at_most_hashed(name):
    assert ATTRIBUTES[name] == "hash"


@pytest.mark.parametrize("name", DROPPED)
def test_what_has_no_use_is_dropped(name):
    assert ATTRIBUTES[name] == "drop"


def test_every_event_and_attribute_of_the_recordings_is_known():
    """So that in the store `unknown_attributes` means: newer than these clients."""
    for recording in recordings():
        for event in recording.events():
            assert event.name in EVENTS
            assert set(event.attributes) | set(event.resource) <= set(ATTRIBUTES), (recording.name, event.name)


def test_names_are_unique_and_patterns_are_such_as_both_engines_read():
    assert len({pattern.name for pattern in PATTERNS}) == len(PATTERNS)
    assert len(set(EVENTS)) == len(EVENTS)
    for pattern in PATTERNS:
        re.compile(pattern.regex)
        assert not re.search(r"\(\?[=!<]|\\[1-9]", pattern.regex), "RE2 has neither look-around nor back-references"
        assert not re.search(pattern.regex, "a sentence about chapter 33, feature 017-usage-data-collection and 12.5 % of 1,000 tokens")


@pytest.mark.parametrize("kept", ["claude-sonnet-5-5", "repl_main_thread", "agent:builtin:general-purpose", "017-usage-data-collection",
                                  "2.1.330", "ShellError", "main", "33-agent-telemetry", "mcp__github__create_issue"])  # fmt: skip
def test_ordinary_names_pass_unchanged(kept):
    for pattern in PATTERNS:
        assert not re.search(pattern.regex, kept), pattern.name


def test_identifiers_and_names():
    for identifier in ("", "242f01d1-9a53-496a-adcd-b26aa1573fb1", "req_011CSHoEeqs5C35K2UUqR7Fy", "toolu_18ea8fe243e48369000100"):
        assert re.search(sql.IDENTIFIER, identifier)
    for other in ("grace", "242f01d1-9a53-496a-adcd-b26aa1573fb1x", "req_", "sk-ant-0123456789", "req_a b", "a\nreq_0123456789"):
        assert not re.search(sql.IDENTIFIER, other)
    for name in EVENTS:
        assert re.search(sql.NAME, name)
    for other in ("Hello world", "sk-ant-api03", "a b", "grace@example.org", "/home/grace"):
        assert not re.search(sql.NAME, other)
