"""The redaction patterns in the form in which the hooks carry them: `hooks/lib/marks.py`, made by `python -m sp_telemetry.privacy.names`.

A hook writes names of branches and directories to the disk while the server is down, so it has to redact them itself, in a process that
lives for milliseconds: importing `re` costs half as much as starting Python, compiling every pattern ten times that. So beside each
pattern stands what a text must hold for it to match: of each group of literals at least one, found in the pattern's own parse tree (the
way of RE2's prefilter). They are compared in lower case and with each digit as 0, so that a number's shape is a literal too. Nearly every
name holds none, and then nothing is imported; else only the patterns in question are compiled.
"""

from __future__ import annotations

import importlib
from typing import Any

from sp_telemetry.privacy.patterns import PATTERNS

MOST = 4096  # literals that are kept of one part of a pattern while it is looked through
FEW = 4  # characters of a class that is no digit, for each of them to count as a literal
GROUPS = 3
DIGITS = str.maketrans("123456789", "0" * 9)

Group = frozenset[str]
Exact = Group | None  # the texts that a part of a pattern matches, folded; None: too many to say


def fold(text: str) -> str:
    """As the hooks see a text when they look for literals: without letter case, each digit as 0."""
    return text.casefold().translate(DIGITS)


def needs(regex: str) -> tuple[tuple[str, ...], ...]:
    """Groups of literals; a text that `regex` matches holds, folded, at least one of each group. The most telling first."""
    exact, groups = _of(list(importlib.import_module("re._parser").parse(regex)))
    groups = groups if exact is None else [*groups, exact]
    best = sorted({_least(group) for group in groups if "" not in group}, key=_worth, reverse=True)
    return tuple(tuple(sorted(group)) for group in best[:GROUPS])


def _worth(group: Group) -> tuple[int, int, list[str]]:
    return min(map(len, group)), -len(group), sorted(group)


def _least(group: Group) -> Group:
    """Without those that hold another one."""
    kept: list[str] = []
    for text in sorted(group, key=lambda text: (len(text), text)):
        if not any(one in text for one in kept):
            kept.append(text)
    return frozenset(kept)


def _of(nodes: list[Any]) -> tuple[Exact, list[Group]]:
    """A sequence: all that it can be where that is little, else the groups that its pieces need."""
    groups: list[Group] = []
    run: Group = frozenset([""])
    whole = True
    for node in nodes:
        exact, needed, ends = _node(node)
        joined = None if exact is None or len(run) * len(exact) > MOST else frozenset(a + b for a in run for b in exact)
        if joined is not None and not ends:
            run = joined
            continue
        whole = False
        groups += [run, *needed]
        if joined is not None:  # what begins a repetition can still stand behind what was before it
            groups.append(joined)
        run = exact if exact is not None and not ends else frozenset([""])
    if whole:
        return run, []
    return None, [group for group in [*groups, run] if "" not in group]


def _node(node: Any) -> tuple[Exact, list[Group], bool]:
    """(what it begins with, or is; the groups it needs; whether more may follow that is not said)."""
    name, value = str(node[0]), node[1]
    if name == "LITERAL":
        return frozenset([fold(chr(value))]), [], False
    if name == "AT":
        return frozenset([""]), [], False
    if name == "IN":
        return _class(value), [], False
    if name == "SUBPATTERN":
        exact, groups = _of(list(value[3]))
        return exact, groups, False
    if name == "BRANCH":
        branches = [_of(list(branch)) for branch in value[1]]
        if all(exact is not None for exact, _ in branches) and sum(len(exact or ()) for exact, _ in branches) <= MOST:
            return frozenset().union(*(exact or () for exact, _ in branches)), [], False
        every = [groups if exact is None else [exact] for exact, groups in branches]
        good = [[group for group in groups if "" not in group] for groups in every]
        if not all(good):
            return None, [], False
        return None, [frozenset().union(*(max(map(_least, groups), key=_worth) for groups in good))], False
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
        return _repeat(value[0], value[1], list(value[2]))
    return None, [], False  # ANY, NOT_LITERAL, …: anything


def _class(parts: list[Any]) -> Exact:
    found: set[str] = set()
    for name, value in parts:
        first, last = (value, value) if str(name) == "LITERAL" else value if str(name) == "RANGE" else (0, 0)
        if not first:
            return None  # negated, or \s
        if chr(first).isdigit() and chr(last).isdigit():
            found.add("0")
        elif last - first >= FEW:
            return None
        else:
            found |= {fold(chr(code)) for code in range(first, last + 1)}
    return frozenset(found) if len(found) <= FEW + 1 else None


def _repeat(fewest: int, most: Any, nodes: list[Any]) -> tuple[Exact, list[Group], bool]:
    exact, groups = _of(nodes)
    if exact is None:
        return None, groups if fewest else [], False
    times, reached = [frozenset([""])], 0
    while reached < min(int(most), 32) and len(times[-1]) * len(exact) <= MOST:
        times.append(frozenset(a + b for a in times[-1] for b in exact))
        reached += 1
    if reached >= int(most):
        every = frozenset().union(*times[fewest:])
        if len(every) <= MOST:
            return every, [], False
    return (times[min(fewest, reached)], [], True) if fewest else (None, [], False)


def least(regex: str) -> int:
    """How many characters a text that `regex` matches has at least."""
    return int(importlib.import_module("re._parser").parse(regex).getwidth()[0])


def render() -> str:
    """The module's whole text."""
    lines = [
        '"""Marks of a secret or of a person in a name. Made from src/sp_telemetry/privacy/patterns.py by',
        "`python -m sp_telemetry.privacy.names`; a test keeps the two equal. names.py, beside this file, reads it.",
        "",
        "(name; least length of a text; groups of literals, of each of which it must hold one; pattern; what stands in its place; check)",
        '"""',
        "",
        "# ruff: noqa: E501",
        "# fmt: off",
        "MARKS = (",
    ]
    for pattern in PATTERNS:
        told = (pattern.name, least(pattern.regex), needs(pattern.regex), pattern.regex, pattern.text, pattern.check)
        lines.append(f"    {told!r},")
    return "\n".join([*lines, ")", ""])


if __name__ == "__main__":
    print(render(), end="")
