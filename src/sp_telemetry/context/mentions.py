"""The chapter that a prompt names: "chapter 34", "ch. 34", `chapters/34-costs`, `@book/05-part/33-agents/text.md`, "33-agents".

A name counts only where that chapter is there, in this repository, and where the prompt names no second one; else nothing is said. What
leaves this module is the path of a chapter that exists: no word of the prompt.

Standard library only, Python 3.9, and no import of a sibling: the hooks load this file by path, and only for a prompt that has a digit or
a slash.
"""

import os
import time

MOST_TEXT = 2000  # what is longer was pasted, and may name anything
MOST_PATHS = 20
MOST_ENTRIES, MOST_DEEP, MOST_S = 5000, 5, 0.06
_WORDS = ("chapter", "chap", "ch", "ch.")
_ALSO = ("and", "or", "to", "&", "-", "\u2013", "until", "through", "und", "bis")
_AROUND = "\"'`()[]{}<>,;:!?*\u201c\u201d\u2018\u2019\u00ab\u00bb\u2026"


def chapter(prompt, repository, directory, config, *, gitfiles, rules) -> str:
    """The path of the one chapter that `prompt` names, as `rules.decide` wants it (a directory ends in `/`); '' for none or several."""
    if not isinstance(prompt, str):
        return ""

    def chapter_of(path):
        found = rules.decide(files=[(path, "prompt")], config=config)
        return found.chapter.value and (found.part.value, found.chapter.value)

    def inside(path):
        for start in (directory, repository.toplevel):
            full = os.path.join(start, path) if start else ""
            if full and os.path.exists(full):
                found = gitfiles.relative(repository, full)
                return found + "/" if found and os.path.isdir(full) else found
        return ""

    def known():
        top = repository.toplevel or directory
        return _known(top, gitfiles.relative(repository, top), chapter_of, rules.spec_roots(config))

    return named(prompt, inside, known, chapter_of)


def named(prompt, inside, known, chapter_of) -> str:
    """As `chapter`. `inside(path)`: a path that exists here or ""; `known()`: chapters' paths; `chapter_of(path)`: which it is."""
    numbers, names, paths = _mentions(prompt[:MOST_TEXT])
    if len(numbers) > 1:
        return ""
    found = {}
    for path in paths[:MOST_PATHS]:
        there = inside(path)
        if there and chapter_of(there):
            found[chapter_of(there)] = there
        else:
            parts = path.casefold().split("/")
            names.update([*parts, *(part.rpartition(".")[0] for part in parts)])
    names.discard("")
    if numbers or names:
        for path in known():
            part_and_chapter = chapter_of(path)
            name = part_and_chapter[1].casefold()
            if name in names or _number(name) in numbers:
                found.setdefault(part_and_chapter, path)
    return next(iter(found.values())) if len(found) == 1 else ""


def _mentions(text):
    """(numbers, names, paths) that a text mentions."""
    numbers, names, paths = set(), set(), []
    words = [word.strip(_AROUND).lstrip("@") for word in text.split()]
    raw = text.split()
    for at, word in enumerate(words):
        low = word.rstrip(".").casefold()
        if "/" in word:
            paths.append(word.rstrip("."))
        elif word.casefold() in _WORDS:
            numbers.update(_list_of_numbers(words, raw, at + 1))
        elif low[:2] == "ch" and _number(low) is not None:
            numbers.update([_number(low), *_list_of_numbers(words, raw, at + 1)[1:]])
        if low[:1].isdigit() and any(c in low for c in "-_"):
            names.add(low)
    return numbers, names, paths


def _list_of_numbers(words, raw, at):
    """The numbers that stand here: one of `34`, several of `33, 34 and 35` and of `33-35`."""
    found = []
    while at < len(words):
        first, dash, last = words[at].replace("\u2013", "-").rstrip(".").partition("-")
        first = first[: -2] if first.endswith(("'s", "\u2019s")) else first
        if not first.isdigit() or not first.isascii() or len(first) > 3:
            break
        found.append(int(first))
        if dash and last.isdigit():
            found.append(int(last[:3]))
        goes_on = raw[at].endswith(",")
        at += 1
        if at < len(words) and words[at].casefold() in _ALSO:
            at += 1
        elif not goes_on:
            break
    return found


def _number(name):
    """33 of `33-agents`, `chapter-33`, `ch33`; None where a name has no number."""
    for word in ("chapter", "chap", "ch"):
        if name.startswith(word):
            name = name[len(word):].lstrip("-_. ")
            break
    end = next((at for at, c in enumerate(name) if c not in "0123456789"), len(name))
    return int(name[:end]) if 1 <= end <= 3 and not name[end: end + 1].isalpha() else None


def _known(top, prefix, chapter_of, roots):
    """Paths of the chapters below `top`; none at all where there is more than can be looked at in a moment."""
    until, entries, found = time.monotonic() + MOST_S, 0, []
    level = [(top, prefix + "/" if prefix else "")]
    for _ in range(MOST_DEEP):
        below = []
        for folder, path in level:
            try:
                inner = list(os.scandir(folder))
            except OSError:
                continue
            entries += len(inner)
            if entries > MOST_ENTRIES or time.monotonic() > until:
                return []
            for entry in inner:
                here = path + entry.name
                if entry.name.startswith(".") or entry.name in ("node_modules", "site-packages") or here in roots:
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                here += "/" if is_folder else ""
                if any(c in "0123456789" for c in entry.name) and chapter_of(here):
                    found.append(here)
                elif is_folder:
                    below.append((entry.path, here))
        level = below
    return found
