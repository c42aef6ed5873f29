"""privacy.toml: what it may say, what is refused and why, and what the definition's tables say in the documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sp_telemetry.errors import UsageError
from sp_telemetry.privacy import own, sql, table
from sp_telemetry.privacy.backtracking import stalls
from sp_telemetry.privacy.patterns import PATTERNS
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    engine = Engine(tmp_path_factory.mktemp("own"))
    with engine.handle() as handle:
        yield handle.query
    engine.close()


def load(folder: Path, text: str, run, level: str = "standard") -> Policy:
    (folder / own.NAME).write_text(text)
    return own.load(folder, level, run)


def check(home: Path, *arguments: str | bytes) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sp_telemetry.cli.main", "privacy", "check", *arguments]
    return subprocess.run(command, env={**os.environ, "SP_TELEMETRY_HOME": str(home)}, capture_output=True, text=True, timeout=60)


def test_check_explains_samples_at_the_command_line(tmp_path):
    done = check(tmp_path, "mail grace.hopper@example.org", "all well")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "Good: level strict, 0 patterns and 0 attribute rules of your own.\n"
        "  mail grace.hopper@example.org\n    → mail <email>  (email)\n"
        "  all well\n    stays as it is\n"
        "At strict only names are kept as texts (branch, feature, chapter, person, model), redacted so; other texts are not.\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are Unicode there")
def test_a_sample_that_is_no_utf_8(tmp_path):
    done = check(tmp_path, b"M\xfcller")
    assert done.returncode == 2 and done.stderr.startswith("sp-telemetry: What is to be tried is not UTF-8.\n")


def test_check_explains_the_rules_of_a_file_at_the_command_line(tmp_path):
    ticket = '[patterns.ticket]\nregex = "ACME-[0-9]{4,}"\nlike = ["see ACME-1234"]\n'
    (tmp_path / own.NAME).write_text(ticket + '[attributes]\n"error" = "drop"\n"team.name" = "text"\n')
    done = check(tmp_path, "--level", "standard", "of ACME-1234: grace@example.org")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "Good: level standard, 1 pattern and 2 attribute rules of your own.\n"
        f"  error: {table.TREATMENTS['drop']}; without the rule: {table.TREATMENTS['text']}\n"
        f"  team.name: {table.TREATMENTS['text']}; without the rule: nothing but its name, for it is unknown\n"
        "  of ACME-1234: grace@example.org\n    → of <ticket>: <email>  (ticket, email)\n"
    )
    assert "  see ACME-1234\n    → see <ticket>  (ticket)\n" in check(tmp_path).stdout  # among the samples, where none is given
    assert json.loads(check(tmp_path, "--json", "ACME-1234").stdout) == {
        "ok": True, "level": "strict", "samples": [{"text": "ACME-1234", "becomes": "<ticket>", "patterns": ["ticket"]}]
    }  # fmt: skip
    (tmp_path / own.NAME).write_text(ticket.replace("{4,}", "*"))
    assert check(tmp_path).returncode == 0
    (tmp_path / own.NAME).write_text(ticket.replace("ACME-", ""))
    done = check(tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and "eats ordinary text" in done.stderr


def test_no_file_is_no_rule(tmp_path, run):
    assert own.load(tmp_path, "strict", run) == Policy("strict")


def test_a_pattern_and_attribute_rules(tmp_path, run):
    text = """
[patterns.ticket]
regex = 'ACME-[0-9]{4,}'
like = ["see ACME-1234"]
unlike = ["ACME"]
[attributes]
error = "drop"
"team.name" = "text"
"""
    policy = load(tmp_path, text, run)
    assert own.effect(policy, "see ACME-1234, mail a@b.org", run) == "see <ticket>, mail <email>"
    assert own.hits(policy, "see ACME-1234, mail a@b.org", run) == ["ticket", "email"]
    assert (policy.treatments["error"], policy.treatments["team.name"]) == ("drop", "text")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("regex = 1", "has to be a text"),
        ("regex = '(a'", "can't be compiled"),
        ("regex = 'a(?=b)'", "does not backtrack"),
        ("regex = '(?<!a)b'", "does not backtrack"),
        (r"regex = '(a)\1'", "does not backtrack"),
        ("regex = 'x++'", "forbids to go back"),
        ("regex = 'a*'", "matches the empty text"),
        ("regex = '.+'", "eats ordinary text"),
        ("regex = '[a-z]+'", "eats ordinary text"),
        ("regex = 'ACME'\nlike = ['nothing']", "does not match 'nothing'"),
        ("regex = 'ACME'\nunlike = ['an ACME']", "matches 'an ACME'"),
        ("regex = 'ACME'\nreplacement = '<ACME>'", "its own replacement"),
        ("regex = 'ACME'\nreplacement = '\\3'", "can't be used"),
        ("regex = '/'", "eats ordinary text"),
        ("regex = ' '", "eats ordinary text"),
        ("regex = '[^ -~]'", "eats ordinary text"),
        ("regex = '~'", "which the policy itself writes"),
        ("regex = 'key'", "which the policy itself writes"),
        ("regex = 'other-'", "which the policy itself writes"),
        ("regex = 'ACME'\nreplacement = '\\0'", "puts back all"),
        ('regex = "ACME"\nreplacement = "a\\nb"', "on one line"),
        ("regex = '(ACME)'\nreplacement = '[\\1]'\nlike = ['an ACME']", "does not do away with 'an ACME'"),
        ("regex = '(AC)ME'\nreplacement = '\\1ME'\nlike = ['an ACME']", "does not do away with 'an ACME'"),
        ("regex = 'ACME'\ncolour = 'red'", "unknown key"),
        ("regex = '([a-z0-9]+-?)+!'", "backtracks"),
    ],
)
def test_a_bad_pattern_is_refused_with_its_reason(tmp_path, run, text, reason):
    with pytest.raises(UsageError, match=r".") as refused:
        load(tmp_path, f"[patterns.mine]\n{text}", run)
    assert reason in str(refused.value)
    assert refused.value.hint


STALLING = (
    "([a-z0-9]+-?)+!", "(a|a)*b", "(a|b|ab)+c", "([a-z]+-[a-z]+-?)+!", "(a*)*b", "(a?b?)+!", "[a-z]+[a-z]+!", "[a-m]+[k-z]+!",
    "ACME-([a-z0-9]+-?)+!", "x(?:([a-z]+)+!)?", "(?:[a-z]{1,9}-?){1,9}!", "(?:[a-z]+-?){2,5}!",
    r"([\d]+|[^-_]+)*\.org", "(?i)([a-z]+)+!", r"(\w+\s?)*\.",
)  # fmt: skip
ORDINARY = (
    "ACME-[0-9]{4,}", "(?:foo|bar)-[a-z]+", "[a-z]+-[a-z]+", "[A-Z][A-Z0-9]+-[0-9]+", "(user )[^ ]+", r"\b[\w.-]+@[\w-]+\.[\w.]+\b",
    "(?:[a-z0-9]+-)*[a-z0-9]+!", "[a-z]{2,}!", r"[a-z0-9]+(?:-[a-z0-9]+)*\.internal", ".*foo.*bar", "[A-Za-z0-9+/]{20,}={0,2}",
    r"(?:[0-9]{1,3}\.){3}[0-9]{1,3}", "x(?:)*", "([0-9]{3}[- ]?){2,4}x", "(?:Ada|Grace) (?:[A-Z][a-z]+ ?)+",
)  # fmt: skip


def test_what_python_would_go_back_in_is_known_and_what_is_ordinary_is_not() -> None:
    assert [regex for regex in STALLING if not stalls(regex)] == []
    shipped = (pattern.regex for pattern in PATTERNS[::9])
    assert [regex for regex in (*ORDINARY, *shipped, "[[:alpha:]]{3}-[0-9]", r"\pL+", "(" * 900 + "x" + ")" * 900) if stalls(regex)] == []


def test_what_stands_around_a_secret_may_be_put_back(tmp_path, run):
    text = "[patterns.user]\nregex = '(user )[^ ]+'\nreplacement = '\\1<user>'\nlike = ['a user ada']"
    assert own.effect(load(tmp_path, text, run), "the user ada writes", run) == "the user <user> writes"


def test_a_rule_of_what_hooks_tell_is_allowed_to_keep_less(tmp_path, run):
    policy = load(tmp_path, "[attributes]\n'context.branch' = 'hash'\n'context.person' = 'drop'", run, "strict")
    assert (policy.of_records["context.branch"], policy.of_records["context.person"]) == ("hash", "drop")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[patterns.email]\nregex = 'ACME'", "a pattern of that name already"),
        ("[patterns.Mine]\nregex = 'ACME'", "a name is made of"),
        ("[attributes]\nprompt = 'text'", "only keep less"),
        ("[attributes]\nbody = 'hash'", "only keep less"),
        ("[attributes]\nerror = 'red'", "allowed are drop, hash, text"),
        ("level = 'full'", "unknown key"),
        ("[patterns", "can't be read"),
    ],
)
def test_a_bad_file_is_refused_with_its_reason(tmp_path, run, text, reason):
    with pytest.raises(UsageError) as refused:
        load(tmp_path, text, run, "strict")
    assert reason in str(refused.value)


def test_patterns_that_no_statement_can_hold_are_refused(tmp_path, run):
    table = "[patterns.p{}]\nregex = '{}'\n"
    most = [r"ACME" + r"\." * 998] * 15  # the longest there may be, of what is doubled in SQL
    policy = load(tmp_path, "".join(map(table.format, range(15), most)), run, "strict")
    largest = max(schema.statements(sql.render(policy)), key=len)
    run(largest)
    assert 150_000 < len(largest) < 1 << 18 and own.effect(policy, "ACME" + "." * 998, run) == "<p0>"
    with pytest.raises(UsageError, match=r"32,000 bytes together; allowed are 30,000"):
        load(tmp_path, "".join(map(table.format, range(16), [*most, most[0]])), run)


@pytest.mark.checkout
def test_the_documents_hold_the_definitions_tables():
    text = (ROOT / "docs" / "privacy.md").read_text()
    assert table.attributes() in text and table.treatments() in text
