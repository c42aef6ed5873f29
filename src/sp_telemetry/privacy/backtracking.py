"""What a pattern of one's own would cost in the hooks, which match it with Python's `re`: the engine (RE2) never goes back, `re` does.

Where a pattern fails, `re` tries each way in which its repeats can share a text. Those ways are counted here, not walked: in how many a
part of the pattern reaches each place of a text. So the answer hangs on no clock, and one way or 2^200 take as long. The texts are made of
the pattern: what it needs up to a repeat, then what this one repeats, for as long as a file's name can be.
"""

from __future__ import annotations

import importlib
import random
import re
import warnings
from collections.abc import Iterator
from typing import Any

LONGEST = 255  # bytes of a file's name, and so of each part of a branch's
#: ways that a hook has time for (4 to 50 ns each, 0.25 s for all of its names); two neighbours that take the same have 2.8 million
MOST = 2_000_000
SHORT, FEW = 64, 10_000  # what has no more ways than that through a text as short will not have MOST; it is quicker to see
TRIED = 300  # texts of a pattern
_CHARACTERS = "aA0-_./ "
_LANE = 64  # bits of a count; it ends at MOST, long before it fills them
_OPEN = 1000  # RE2's most of a counted repeat
_ONE = ("LITERAL", "NOT_LITERAL", "IN", "ANY")
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")

Nodes = list[Any]
Ways = int  # for each place of a text the ways in which it is reached, side by side in one number


def stalls(regex: str) -> str:
    """A text on which `re` would go through more ways of `regex` than it has time for; empty if none is known, or `re` can't read it."""
    try:
        with warnings.catch_warnings():  # `[[:alpha:]]` is RE2's to read, and need not be told of
            warnings.simplefilter("ignore")
            nodes = _what_can_fail(list(importlib.import_module("re._parser").parse(regex)))
        fold = bool(re.search(r"\(\?[a-zA-Z]*i", regex))
        for short, text in _texts(nodes, regex):
            if _ways(nodes, short, fold) > FEW and _ways(nodes, text, fold) > MOST:
                return text
    except (re.error, ValueError, OverflowError, RecursionError):
        pass  # nor can the hooks read it, who leave it to the store
    return ""


def _what_can_fail(nodes: Nodes) -> Nodes:
    """Without what its end repeats of one character beyond the least: there the pattern has matched, and nothing is gone back for."""
    while nodes and str(nodes[-1][0]) in _REPEATS:
        name, (least, _, inner) = nodes[-1]
        if [str(kind) in _ONE for kind, _ in inner] != [True]:
            break
        if least:
            return [*nodes[:-1], (name, (least, least, inner))]
        nodes = nodes[:-1]
    return nodes


class _Enough(Exception):
    pass


def _ways(nodes: Nodes, text: str, fold: bool) -> int:
    """Ways through `nodes`, wherever in `text` they begin and end, those that get no further too; or a little more than MOST."""
    places = {one: sum(1 << _LANE * place for place, other in enumerate(text) if other == one) for one in set(text)}
    masks: dict[int, Ways] = {}
    taken = 0

    def sequence(nodes: Nodes, ways: Ways) -> Ways:
        for node in nodes:
            ways = one(node, ways) if ways else 0
        return ways

    def one(node: Any, ways: Ways) -> Ways:
        nonlocal taken
        name, value = str(node[0]), node[1]
        if name == "AT":
            return ways
        if name == "SUBPATTERN":
            return sequence(list(value[3]), ways)
        if name == "BRANCH":
            return sum(sequence(list(branch), ways) for branch in value[1])
        if name in _REPEATS:
            least, most, inner = value[0], min(int(value[1]), _OPEN), list(value[2])
            reached, empty = [ways], _empty(inner)
            while reached[-1] and len(reached) <= most:
                further = sequence(inner, reached[-1])
                # What takes nothing is not repeated.
                reached.append(further if len(reached) <= least else further - empty * reached[-1])
            return sum(reached[least:])
        if id(node) not in masks:
            takes = [one for one in places if _takes(name, value, one) or (fold and _takes(name, value, one.swapcase()))]
            masks[id(node)] = sum(places[one] for one in takes) * ((1 << _LANE) - 1)
        further = (ways & masks[id(node)]) << _LANE
        taken += further % ((1 << _LANE) - 1)  # the sum of its counts
        if taken > MOST:
            raise _Enough
        return further

    try:
        sequence(nodes, sum(1 << _LANE * place for place in range(len(text) + 1)))
    except _Enough:
        return MOST + 1
    return taken


def _empty(nodes: Nodes) -> int:
    """Ways through `nodes` that take nothing."""
    ways = 1
    for node in nodes:
        name, value = str(node[0]), node[1]
        if name == "SUBPATTERN":
            ways *= _empty(list(value[3]))
        elif name == "BRANCH":
            ways *= sum(_empty(list(branch)) for branch in value[1])
        elif name in _REPEATS:
            ways *= _empty(list(value[2])) ** value[0]
        elif name != "AT":
            return 0
    return min(ways, MOST)


def _takes(name: str, value: Any, character: str) -> bool:
    code = ord(character)
    if name == "LITERAL":
        return bool(code == value)
    if name == "NOT_LITERAL":
        return bool(code != value)
    if name == "IN":
        negated = str(value[0][0]) == "NEGATE"
        return negated != any(_takes(str(part[0]), part[1], character) for part in value[negated:])
    if name == "RANGE":
        return bool(value[0] <= code <= value[1])
    if name == "CATEGORY":
        kind = str(value).rpartition("_")[2]
        held = {"DIGIT": character.isdigit(), "SPACE": character.isspace(), "WORD": character.isalnum() or character == "_"}[kind]
        return held != ("_NOT_" in str(value))
    return True  # ANY


def _texts(nodes: Nodes, regex: str) -> Iterator[tuple[str, str]]:
    """(short, long) texts that let a repeat repeat: one character, or what it takes, behind what the pattern needs to get there."""
    chance, seen = random.Random(regex), set()
    characters = sorted({*_CHARACTERS, *filter(str.isprintable, _named(nodes))})
    for before, inner in _repeats(nodes, []):
        lead = _sample(before, chance, characters)
        takes = (one for one in characters if _ways(inner, one, False))
        for one in (*takes, *(_sample(inner, chance, characters) for _ in range(8))):
            if one and (lead, one) not in seen and len(seen) < TRIED:
                seen.add((lead, one))
                yield lead + one * max(6, SHORT // len(one)), (lead + one * LONGEST)[:LONGEST]


def _repeats(nodes: Nodes, before: Nodes) -> Iterator[tuple[Nodes, Nodes]]:
    """(what stands before a repeat, what it repeats), for each repeat at each depth."""
    for number, (kind, value) in enumerate(nodes):
        name, here = str(kind), before + nodes[:number]
        if name in _REPEATS and value[1] > 1:
            yield here, list(value[2]) * 2
        for inner in _within(name, value):
            yield from _repeats(inner, here)


def _within(name: str, value: Any) -> list[Nodes]:
    if name == "BRANCH":
        return [list(branch) for branch in value[1]]
    return [list(value[-1])] if name in ("SUBPATTERN", *_REPEATS) else []


def _named(nodes: Nodes) -> Iterator[str]:
    """Characters that the pattern names, ends of ranges too."""
    for kind, value in nodes:
        name = str(kind)
        if name in ("LITERAL", "NOT_LITERAL"):
            yield chr(value)
        elif name == "RANGE":
            yield from map(chr, value)
        for inner in [value] if name == "IN" else _within(name, value):
            yield from _named(inner)


def _sample(nodes: Nodes, chance: random.Random, characters: list[str]) -> str:
    """A text that `nodes` match."""
    text = ""
    for kind, value in nodes:
        name = str(kind)
        if name in ("SUBPATTERN", "BRANCH"):
            text += _sample(chance.choice(_within(name, value)), chance, characters)
        elif name in _REPEATS:
            times = min(value[0] + chance.choice((0, 0, 1, 4)), int(value[1]), LONGEST)
            text += "".join(_sample(list(value[2]), chance, characters) for _ in range(times))
        elif name != "AT" and len(text) < LONGEST:
            text += chance.choice([one for one in characters if _takes(name, value, one)] or [""])
    return text
