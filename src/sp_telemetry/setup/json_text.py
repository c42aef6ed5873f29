"""Edits one member of a JSON text and leaves every other byte as it is: order, indentation, line ends, what we do not know.

Strict JSON, as Claude Code reads its settings: no comments, no trailing commas, no NaN. Pure: text in, text out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

_BLANKS = " \t\r\n"


class NotJson(ValueError):
    """The text is not what is edited here: the reason, with its line."""


@dataclass(frozen=True)
class Member:
    """One `"key": value` of an object, with the places of its parts in the text."""

    key: str
    value: Any
    start: int
    value_start: int
    end: int


@dataclass(frozen=True)
class Object:
    """An object in the text: where it opens and closes, and its members in order."""

    start: int
    end: int
    members: tuple[Member, ...]

    def get(self, key: str) -> Member | None:
        """The member that counts: of several with one name the last does."""
        return next((member for member in reversed(self.members) if member.key == key), None)


def parse(text: str) -> Any:
    """The value of `text`. Raises NotJson."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg} in line {error.lineno}") from None
    except ValueError:
        raise NotJson("a number is too long") from None


def get(text: str, path: tuple[str, ...]) -> Any:
    """The value at `path`, None where there is none."""
    value = parse(text)
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def put(text: str, path: tuple[str, ...], value: Any) -> str:
    """`text` with `value` at `path`; objects on the way are made. Raises NotJson where something else stands on the way."""
    target, rest = _walk(text, path)
    if not rest:
        member = target
        return text[: member.value_start] + json.dumps(value, ensure_ascii=False) + text[member.end :]
    for name in reversed(rest[1:]):
        value = {name: value}
    return _insert(text, target, rest[0], value, len(path) - len(rest))


def remove(text: str, path: tuple[str, ...]) -> str:
    """`text` without the member at `path` (each of them, where several have that name); unchanged where there is none."""
    while True:
        inside, rest = _walk(text, path[:-1]) if len(path) > 1 else (_top(text), ())
        if rest:
            return text
        holder = _object(text, inside.value_start, path[:-1]) if isinstance(inside, Member) else inside
        index = next((index for index, member in enumerate(holder.members) if member.key == path[-1]), None)
        if index is None:
            return text
        members = holder.members
        if index:
            start, end = members[index - 1].end, members[index].end
        elif len(members) > 1:
            start, end = members[0].start, members[1].start
        else:
            start, end = holder.start + 1, holder.end - 1
        text = text[:start] + text[end:]


def _walk(text: str, path: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """(the member at `path`, ()) or (the innermost object that is there, the names that are not)."""
    holder = _top(text)
    for depth, name in enumerate(path):
        member = holder.get(name)
        if member is None:
            return holder, path[depth:]
        if depth == len(path) - 1:
            return member, ()
        holder = _object(text, member.value_start, path[: depth + 1])
    return holder, ()


def _top(text: str) -> Object:
    parse(text)
    return _object(text, _skip(text, 0), ())


def _object(text: str, start: int, path: tuple[str, ...]) -> Object:
    if text[start] != "{":
        raise NotJson(f"{'.'.join(path) or 'the whole'} is not an object")
    decoder = json.JSONDecoder()
    members, at = [], _skip(text, start + 1)
    while text[at] != "}":
        key, end = decoder.raw_decode(text, at)
        value_start = _skip(text, _skip(text, end) + 1)
        value, value_end = decoder.raw_decode(text, value_start)
        members.append(Member(key, value, at, value_start, value_end))
        at = _skip(text, value_end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return Object(start, at + 1, tuple(members))


def _insert(text: str, holder: Object, key: str, value: Any, depth: int) -> str:
    line_end = "\r\n" if "\r\n" in text else "\n"
    step = _step(text)
    if holder.members:
        last = holder.members[-1]
        before = text[holder.start + 1 : holder.members[0].start] if len(holder.members) == 1 else text[holder.members[-2].end : last.start]
        blank = before.lstrip().removeprefix(",") if len(holder.members) > 1 else before
        colon = text[last.start : last.value_start]
        after_colon = colon[colon.rindex(":") + 1 :] if _blank(colon[colon.rindex(":") + 1 :]) else " "
        if "\n" in blank or "\r" in blank:
            margin = blank[max(blank.rfind("\n"), blank.rfind("\r")) + 1 :]
            written = _pretty(value, margin, step, line_end)
            return f"{text[: last.end]},{line_end}{margin}{json.dumps(key)}:{after_colon or ' '}{written}{text[last.end :]}"
        written = json.dumps(value, ensure_ascii=False, separators=None if after_colon else (",", ":"))
        space = blank or (" " if after_colon else "")
        return f"{text[: last.end]},{space}{json.dumps(key)}:{after_colon}{written}{text[last.end :]}"
    margin = step * (depth + 1)
    written = _pretty(value, margin, step, line_end)
    return (
        f"{text[: holder.start + 1]}{line_end}{margin}{json.dumps(key)}: {written}{line_end}{step * depth}{text[holder.end - 1 :]}"
    )


def _pretty(value: Any, margin: str, step: str, line_end: str) -> str:
    return json.dumps(value, ensure_ascii=False, indent=step).replace("\n", line_end + margin)


def _step(text: str) -> str:
    """The indentation of the first member that stands on a line of its own, else two blanks."""
    top = _object(text, _skip(text, 0), ())
    if top.members:
        blank = text[top.start + 1 : top.members[0].start]
        if "\n" in blank and (margin := blank.rpartition("\n")[2]):
            return margin
    return "  "


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at


def _blank(text: str) -> bool:
    return not text.strip(_BLANKS)


def _refuse(constant: str) -> NoReturn:
    raise NotJson(f"{constant} is not JSON")
