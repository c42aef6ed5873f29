"""Texts that a regular expression matches, made from its syntax tree: quick, and the same at each run for the same seed."""

from __future__ import annotations

import random
import string
from functools import cache
from re import _constants as code
from re import _parser as parser

PRINTABLE = string.ascii_letters + string.digits + "._-+/=~ @#é"


def example(regex: str, chance: random.Random, more: int = 8) -> str:
    """A text that `regex` matches; an open repetition gets up to `more` above its least."""
    return _all(_parsed(regex), chance, more)


@cache
def _parsed(regex: str):
    return parser.parse(regex)


def _node(op, argument, chance: random.Random, more: int) -> str:
    if op is code.LITERAL:
        return chr(argument)
    if op is code.NOT_LITERAL:
        return chance.choice([letter for letter in PRINTABLE if letter != chr(argument)])
    if op is code.ANY:
        return chance.choice(PRINTABLE)
    if op is code.IN:
        return chance.choice(_letters(argument))
    if op is code.BRANCH:
        return _all(chance.choice(argument[1]), chance, more)
    if op is code.SUBPATTERN:
        return _all(argument[3], chance, more)
    if op in (code.MAX_REPEAT, code.MIN_REPEAT):
        least, most, inner = argument
        most = least + more if most is code.MAXREPEAT else min(most, least + more)
        return "".join(_all(inner, chance, more) for _ in range(chance.randint(least, most)))
    if op is code.AT:
        return ""
    raise ValueError(f"{op} is not foreseen")


def _all(nodes, chance: random.Random, more: int) -> str:
    return "".join(_node(op, argument, chance, more) for op, argument in nodes)


def _letters(parts) -> list[str]:
    found: set[str] = set()
    for op, argument in parts:
        if op is code.LITERAL:
            found.add(chr(argument))
        elif op is code.RANGE:
            found |= {chr(number) for number in range(argument[0], min(argument[1], 0x2FF) + 1)}
        elif op is code.CATEGORY:
            found |= {" ", "\t"} if argument is code.CATEGORY_SPACE else set(string.digits)
    if parts[0][0] is code.NEGATE:
        return sorted(set(PRINTABLE) - found)
    return sorted(found)
