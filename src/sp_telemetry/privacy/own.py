"""The rules of one installation, `privacy.toml` in its home: patterns of its own, and what becomes of single attributes.

    [patterns.ticket]
    regex = 'ACME-[0-9]{4,}'          # RE2
    replacement = "<ticket>"          # this is the default
    like = ["see ACME-1234"]          # must match; checked each time
    unlike = ["ACME"]                 # must not

    [attributes]
    "error" = "drop"                  # a known attribute: less than its level keeps
    "team.name" = "text"              # an unknown one: redacted text instead of nothing

Rules only ever tighten what is known; `privacy_level` is what loosens. A file with anything wrong in it is refused as a whole.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sp_telemetry.errors import UsageError
from sp_telemetry.privacy.backtracking import stalls
from sp_telemetry.privacy.patterns import PATTERNS, Pattern
from sp_telemetry.privacy.policy import CONTEXT, LEVELS, Policy
from sp_telemetry.privacy.redaction import quote, redacted

NAME = "privacy.toml"
HINT = "`sp-telemetry privacy check` explains each rule; docs/privacy.md says what a rule may be."
MOST_PATTERNS = 100
LONGEST = 2000
MOST_BYTES = 30_000  # of all together: a statement holds each three times, its backslashes doubled, and the engine takes one of 256 kB
OF_A_PATTERN = (36, 427, 447)  # the engine's errors that a pattern is to blame for; memory that ran out, say, makes none a bad one
#: what a known attribute may be made by a rule, from the tightest; an unknown one may also be kept as text
TIGHTER = ("drop", "hash")
#: Ordinary values that no pattern may touch: the client's own words, without which no report says anything.
ORDINARY = (
    "api_request", "claude_code.api_request", "tool_result", "Bash", "Edit", "claude-sonnet-5-5", "claude-haiku-4-5-20251001", "sdk",
    "agent:builtin:general-purpose",
    "PostToolUse:Write", "2.1.330", "ShellError", "main", "017-usage-data-collection", "33-agent-telemetry",
    "implement", "rate_limit", "overloaded", "529", "linux", "242f01d1-9a53-496a-adcd-b26aa1573fb1", "req_011CSHoEeqs5C35K2UUqR7Fy",
    "specs/017-usage-data-collection/spec.md", "File has not been read yet. Read it first.", "überarbeitet",
)  # fmt: skip
#: What the policy itself writes; a pattern that matches it would make something else of what is stored each time that it is applied.
WRITTEN = (*(re.sub(r"\\[0-9]", "", pattern.text) for pattern in PATTERNS), "unnamed", "other-0123abcd", "hash-0123456789abcdef")
_BACKTRACKING = (
    (re.compile(r"\(\?<?[=!]"), "looks around itself"),
    (re.compile(r"(?<!\\)(?:\\\\)*\\[1-9]|\(\?P=|\\[gk][<{]"), "refers back to what it matched"),
    (re.compile(r"\(\?>|(?<!\\)[*+?}]\+"), "forbids to go back"),
)
SHARED = (
    "Let no two repeats share a text, one within the other or side by side: "
    "'(?:[a-z]+-)*[a-z]+!' instead of '([a-z]+-?)+!', '[a-z]{2,}!' instead of '[a-z]+[a-z]+!'."
)

Run = Callable[[str], bytes]  # a statement for the engine, its answer as TabSeparated


@dataclass(frozen=True)
class Own:
    """What the file says: patterns, and treatments by attribute."""

    patterns: tuple[Pattern, ...] = ()
    attributes: Mapping[str, str] | None = None

    def policy(self, level: str) -> Policy:
        """These rules at `level`. Raises UsageError for a rule that keeps more of a known attribute than the level does."""
        attributes = dict(self.attributes or {})
        kept = Policy(level).treatments | CONTEXT  # of what the hooks tell, a record of theirs keeps the most
        for name, treatment in attributes.items():
            there = kept.get(name)
            if there is None or treatment == there or treatment == "drop":
                continue
            if there == "drop" or treatment not in TIGHTER:
                what = f"{NAME}: [attributes] {name!r} is {treatment!r}; level {level} makes it {there!r}, and a rule may only keep less."
                raise UsageError(what, f"Allowed here: {', '.join(TIGHTER if there != 'drop' else TIGHTER[:1])}. A level keeps more.")
        return Policy(level, self.patterns, attributes)


def read(file: Path) -> Own:
    """The rules in `file`, checked without an engine; none where there is no file. Raises UsageError."""
    try:
        told = tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        return Own()
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} can't be read: {error}.", HINT) from None
    _only(file, "", told, ("patterns", "attributes"))
    patterns = told.get("patterns", {})
    attributes = told.get("attributes", {})
    if not isinstance(patterns, dict) or not isinstance(attributes, dict):
        raise UsageError(f"{file}: patterns and attributes have to be tables.", HINT)
    if len(patterns) > MOST_PATTERNS:
        raise UsageError(f"{file}: {len(patterns)} patterns; allowed are {MOST_PATTERNS}.", "Join some with `|`.")
    for name, treatment in attributes.items():
        if treatment not in (*TIGHTER, "text"):
            raise UsageError(f"{file}: [attributes] {name!r} is {treatment!r}; allowed are drop, hash, text.", HINT)
    own = Own(tuple(_pattern(file, name, table) for name, table in patterns.items()), attributes)
    if (size := sum(len(pattern.regex.encode()) for pattern in own.patterns)) > MOST_BYTES:
        what = f"{file}: the patterns have {size:,} bytes together; allowed are {MOST_BYTES:,}."
        raise UsageError(what, "Shorten some, or leave them out.")
    return own


def _pattern(file: Path, name: str, table: Any) -> Pattern:
    where = f"{file}: [patterns.{name}]"
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,40}", name):
        raise UsageError(f"{where}: a name is made of a to z, 0 to 9 and -, up to 41 of them.", HINT)
    if name in {pattern.name for pattern in PATTERNS}:
        raise UsageError(f"{where}: there is a pattern of that name already.", "Choose another name; what is built in can't be replaced.")
    if not isinstance(table, dict):
        raise UsageError(f"{where} is {table!r}; expected a table with `regex`.", HINT)
    _only(file, f"patterns.{name}.", table, ("regex", "replacement", "like", "unlike"))
    regex, replacement = table.get("regex", ""), table.get("replacement", f"<{name}>")
    if not isinstance(regex, str) or not 0 < len(regex) <= LONGEST:
        raise UsageError(f"{where}: regex has to be a text of 1 to {LONGEST} characters.", HINT)
    if not isinstance(replacement, str) or len(replacement) > 100:
        raise UsageError(f"{where}: replacement has to be a text of at most 100 characters.", HINT)
    if not replacement.isprintable():
        raise UsageError(f"{where}: the replacement {replacement!r} has to stay on one line, without control characters.", HINT)
    if r"\0" in replacement:
        what = f"{where}: the replacement {replacement!r} puts back all that was matched."
        raise UsageError(what, "Match what stands around it too, in groups, and put that back: '\\1<…>\\2'.")
    samples = [table.get(key, []) for key in ("like", "unlike")]
    if not all(isinstance(list_, list) and all(isinstance(each, str) for each in list_) for list_ in samples):
        raise UsageError(f"{where}: like and unlike have to be lists of texts.", HINT)
    for found, does in _BACKTRACKING:
        if found.search(regex):
            what = f"{where}: the pattern {does}, which needs backtracking; the engine (RE2) does not backtrack, so no text can stall it."
            raise UsageError(what, "Match what stands around it too, in groups, and put it back: replacement = '\\1<…>\\2'.")
    return Pattern(name, regex, replacement, like=tuple(samples[0]), unlike=tuple(samples[1]))


def _only(file: Path, prefix: str, table: Mapping[str, Any], allowed: Iterable[str]) -> None:
    for key in table:
        if key not in allowed:
            raise UsageError(f"{file}: unknown key {prefix + key!r}; allowed are {', '.join(allowed)}.", HINT)


def prove(patterns: Iterable[Pattern], run: Run) -> None:
    """Let the engine judge each pattern. Raises UsageError for the first that can't compile or eats what it should not."""
    for pattern in patterns:
        where = f"{NAME}: [patterns.{pattern.name}]"
        regex = quote(pattern.regex)
        try:
            run(f"SELECT match('', {regex}), length(multiMatchAllIndices('', [{regex}]))")
        except Exception as error:
            if getattr(error, "code", 0) not in OF_A_PATTERN:
                raise
            raise UsageError(f"{where} can't be compiled: {_reason(str(error))}", HINT) from None
        texts = ("", *ORDINARY, *WRITTEN, *pattern.like, *pattern.unlike)
        found = (
            run(f"SELECT arrayStringConcat(arrayMap(s -> toString(match(s, {regex})), [{', '.join(map(quote, texts))}]))").decode().strip()
        )
        matched = [text for text, hit in zip(texts, found, strict=True) if hit == "1"]
        if "" in matched:
            raise UsageError(
                f"{where} matches the empty text, and so everywhere.", "Let it need at least one character: `+` instead of `*`."
            )
        for text in ORDINARY:
            if text in matched:
                what = f"{where} eats ordinary text: it matches {text!r}, which Claude Code itself says."
                raise UsageError(what, "Let it need more of what it is meant for.")
        for text in WRITTEN:
            if text in matched:
                raise UsageError(f"{where} matches {text!r}, which the policy itself writes.", "Let it need more of what it is meant for.")
        for text in pattern.like:
            if text not in matched:
                raise UsageError(f"{where} does not match {text!r}, which stands under `like`.", HINT)
        for text in pattern.unlike:
            if text in matched:
                raise UsageError(f"{where} matches {text!r}, which stands under `unlike`.", HINT)
        try:
            again = run(f"SELECT match(replaceRegexpAll({quote(pattern.text)}, {regex}, {quote(pattern.text)}), {regex})").strip()
        except Exception as error:
            if getattr(error, "code", 0) not in OF_A_PATTERN:
                raise
            raise UsageError(f"{where}: the replacement {pattern.text!r} can't be used: {_reason(str(error))}", HINT) from None
        if again == b"1" and "\\" not in pattern.text:
            raise UsageError(f"{where} matches its own replacement {pattern.text!r}.", "Choose a replacement that it does not match.")
        likes, made = f"[{', '.join(map(quote, pattern.like))}]", f"replaceRegexpAll(s, {regex}, {quote(pattern.text)})"
        still = f"arrayMap((s, l) -> toString(s = l OR {made} != s), arrayMap(s -> {made}, {likes}), {likes})"
        for text, hit in zip(pattern.like, run(f"SELECT arrayStringConcat({still})").decode().strip() if pattern.like else "", strict=True):
            if hit == "1":
                what = f"{where} does not do away with {text!r}: applied again it makes something else of it, or it changes nothing."
                raise UsageError(what, "Put back only what stands around it.")
        if text := stalls(pattern.regex):
            what = f"{where} backtracks: the hooks, which match it with Python, would try millions of ways on {text[:30] + '…'!r}."
            raise UsageError(what, SHARED)


def _reason(text: str) -> str:
    """The engine's reason without the query, which would repeat every pattern."""
    text = text.partition("DB::Exception: ")[2] or text
    text = re.split(r": (?:In scope|while executing|While processing)", text)[0]
    return re.sub(r"\s+", " ", text)[:300].rstrip(". ") + "."


def effect(policy: Policy, text: str, run: Run, limit: int = 300) -> str:
    """What the policy's redaction makes of `text`."""
    return run(f"SELECT {redacted('s', limit, policy.patterns)} FROM (SELECT {quote(text)} AS s) FORMAT RawBLOB").decode()


def hits(policy: Policy, text: str, run: Run) -> list[str]:
    """Names of the patterns that `text` matches, in the order in which they are applied."""
    regexes = ", ".join(quote(pattern.regex) for pattern in policy.patterns)
    found = run(f"SELECT arrayStringConcat(arrayMap(r -> toString(match({quote(text)}, r)), [{regexes}]))").decode().strip()
    return [pattern.name for pattern, hit in zip(policy.patterns, found, strict=True) if hit == "1"]


def asked(folder: Path, level: str) -> Policy:
    """The policy that the installation in `folder` asks for, its patterns not proved yet. Raises UsageError."""
    if level not in LEVELS:
        raise UsageError(f"privacy_level is {level!r}; allowed are {', '.join(LEVELS)}.")
    return read(folder / NAME).policy(level)


def load(folder: Path, level: str, run: Run) -> Policy:
    """The same, proved by the engine. Raises UsageError."""
    policy = asked(folder, level)
    prove(policy.own_patterns, run)
    return policy
