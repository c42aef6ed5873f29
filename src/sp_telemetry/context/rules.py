"""From a branch and paths to feature, chapter, part and step. Pure: strings in, findings out, nothing read, nothing raised.

Standard library only, Python 3.9, and no import of a sibling: the hooks load this file by path in a process that lives for
milliseconds. For the same reason there is neither `dataclasses` (17 ms of a 9 ms start) nor `re` (each compiled pattern costs
more than all the matching here): patterns are globs with named holes, matched segment by segment, so the time that a
repository's configuration can take is bounded.

A pattern is a path of segments. `**` stands for any number of segments; a segment is literal text (letter case is ignored) with at
most one hole in it: `*` (anything) or `{feature}`, `{part}`, `{chapter}` (a name that starts with its number), `{chapter:word}`
(`chapter-33…`), `{feature:any}`, `{part:any}`, `{chapter:any}` (any name). A segment may end in `.*`, an extension that is left off.

What is finer wins (a touched file over the working directory over the branch), and what is later wins (the last file first). The
caller passes the files touched since the branch last changed, and among them, in their order, chapters that a prompt named. What matches
nothing is '' and has no source: nothing is guessed.
"""

from collections import namedtuple

LONGEST = 200
LONGEST_PATH = 4096
MOST_SEGMENTS = 64
MOST_PATTERNS = 32
MOST_DEEP = 2  # `**` in a pattern; with the limits above, the worst configuration on the deepest path costs 0.3 s, a usual one 0.3 ms

Finding = namedtuple("Finding", "value source confidence why")
Decision = namedtuple("Decision", "feature spec_directory chapter part step")
NOTHING = Finding("", "", 0.0, "nothing matches")

DEFAULTS = {
    "project": "",
    "feature": {
        "branches": ("{feature}", "*/{feature}", "worktree-{feature}"),
        "specs": ("specs", ".specify/specs"),
        "trunks": ("main", "master", "develop", "dev", "trunk", "HEAD"),
    },
    "chapter": {
        "paths": (
            "**/{part}/{chapter}/**",
            "**/chapters/{chapter}/**",
            "**/chapters/{chapter}.*",
            "**/{chapter:word}/**",
            "**/{chapter:word}.*",
        ),
        "branches": ("chapter/{chapter}", "chapter-{chapter}", "*/chapter-{chapter}", "{chapter:word}", "*/{chapter:word}"),
    },
    "step": {
        "names": ("constitution", "specify", "clarify", "plan", "tasks", "analyze", "checklist", "implement", "validate", "review"),
        "aliases": {},
    },
}
HOLES = ("*", "{feature}", "{feature:any}", "{part}", "{part:any}", "{chapter}", "{chapter:word}", "{chapter:any}")
_ELSEWHERE = frozenset((".git", "node_modules", ".venv", "site-packages"))
# How sure a finding is by its source; a present spec directory makes the branch's word certain.
_SURE = {"file": 0.95, "cwd": 0.8, "branch": 0.6, "prompt": 0.5}
_WHY = {"file": "a touched file", "cwd": "the working directory", "branch": "branch", "prompt": "what the prompt names"}
_UNWANTED = {code: None for span in ((0, 32), (127, 160), (0x2028, 0x202F), (0x2066, 0x206A)) for code in range(*span)}
_UNWANTED.update({0x200E: None, 0x200F: None, 0xFEFF: None})


def clean(text: object, longest: int = LONGEST) -> str:
    """Text that is safe to store and to show: no control or direction characters, composed (NFC), at most 200 characters."""
    if not isinstance(text, str):
        return ""
    if not (text.isascii() and text.isprintable()):
        text = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text[:LONGEST_PATH].translate(_UNWANTED))
        from unicodedata import normalize  # paid for only where a name is not plain ASCII

        text = normalize("NFC", text)
    return text.strip()[:longest].strip()


def whole(text: object) -> str:
    """`clean`, not yet cut: of half a secret nobody can tell that it is one, so names are cut behind their redaction."""
    return clean(text, LONGEST_PATH)


def decide(branch="", directory="", files=(), spec_directories=(), prompt="", config=None) -> Decision:
    """What holds now. Paths are relative to the repository with `/` (absolute where there is none); `files` in the order touched.
    Names as long as they are there: they are cut where they are kept (`record.make`).

    One of `files` is a path, or (path, "prompt") for a chapter that was only named; of those a directory ends in `/`.
    """
    settings = settle(config)
    places = [_place(one) for one in reversed(list(files or ()))]
    places.append(([*_segments(directory), ""], "cwd"))
    feature, spec_directory = _feature(_text(branch), places, [whole(path) for path in spec_directories or ()], settings["feature"])
    chapter, part = _chapter(_text(branch), places, settings)
    return Decision(feature, spec_directory, chapter, part, step_of(prompt, config))


def step_of(prompt, config=None) -> Finding:
    """The step that a prompt starts: the name of its slash command, `/speckit.plan …` → plan. Never any other word of the prompt."""
    head = prompt[:LONGEST].split(None, 1)[:1] if isinstance(prompt, str) else []
    if not head or prompt[0] != "/" or "/" in head[0][1:]:
        return NOTHING
    return step_of_command(head[0][1:], config)


def step_of_command(command, config=None) -> Finding:
    """The step that a command or skill stands for, by its name with or without a namespace: `sp:tasks`, `speckit.plan`, `speckit-plan`."""
    settings = settle(config)["step"]
    full = clean(command).lower()
    bare = full.replace(":", ".").rpartition(".")[2]
    for prefix in ("speckit-", "sp-"):
        bare = bare[len(prefix):] if bare.startswith(prefix) else bare
    for name in (full, bare):
        step = settings["aliases"].get(name, name if name in settings["names"] else "")
        if step:
            return Finding(whole(step), "prompt", 1.0, "the command /" + full)
    return NOTHING


def project_of(config, repository_name) -> Finding:
    """The project's name: what the configuration says, else the repository's."""
    named = whole(settle(config)["project"])
    if named:
        return Finding(named, "config", 1.0, "`project` in the configuration")
    named = whole(repository_name)
    return Finding(named, "repository", 1.0, "the repository's name") if named else NOTHING


def spec_roots(config=None) -> tuple:
    """The directories that hold spec directories, for those who look which of these exist."""
    return settle(config)["feature"]["specs"]


def feature_number(feature: str) -> str:
    """`017` of `017-usage-data-collection`; '' where a name has no number."""
    return feature[: _digits(feature)]


def feature_name(feature: str) -> str:
    """`usage-data-collection` of `017-usage-data-collection`."""
    return feature[_digits(feature):].lstrip("-_. ")


def settle(config) -> dict:
    """The configuration over the defaults. What is not of its type is passed over: a hook can't complain, `sp-telemetry context` does."""
    config = config if isinstance(config, dict) else {}
    settled = {"project": config.get("project") if isinstance(config.get("project"), str) else ""}
    for table in ("feature", "chapter", "step"):
        given = config.get(table) if isinstance(config.get(table), dict) else {}
        settled[table] = {}
        for key, default in DEFAULTS[table].items():
            value = given.get(key)
            if isinstance(default, dict) and isinstance(value, dict):
                settled[table][key] = {k.lower(): v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)}
            elif isinstance(default, tuple) and isinstance(value, (list, tuple)):
                settled[table][key] = tuple(v for v in value[:MOST_PATTERNS] if isinstance(v, str))
            else:
                settled[table][key] = default
    return settled


def pattern_problem(pattern: str) -> str:
    """What is wrong with a pattern, in words; '' for a good one. Patterns with a problem match nothing."""
    segments = pattern.split("/")
    if not pattern or len(segments) > 16 or segments[:-1].count("**") > MOST_DEEP or "" in segments:
        return "a pattern has 1 to 16 segments, none of them empty, and at most two `**` beside one at its end"
    for segment in segments:
        prefix, _, rest, _ = _parse(segment)
        if segment != "**" and any(c in prefix + rest for c in "*{}"):
            return "{!r} has more than one hole, or one that is not among {}".format(segment, ", ".join(HOLES))
    return ""


def match(pattern, segments):
    """What the holes of a pattern hold, as a dict, or None. `**` takes as few segments as it can."""
    return None if pattern_problem(pattern) else _match(pattern.split("/"), segments)


def _match(pattern, segments):
    if not pattern:
        return {} if not segments else None
    if pattern[0] == "**":
        if len(pattern) == 1:
            return {} if segments else None
        tails = (_match(pattern[1:], segments[skip:]) for skip in range(len(segments)))
        return next((found for found in tails if found is not None), None)
    here = _hole(pattern[0], segments[0]) if segments and segments[0] else None
    rest = None if here is None else _match(pattern[1:], segments[1:])
    return None if rest is None else {**rest, **here}


def _parse(segment):
    extension = segment.endswith(".*") and len(segment) > 2
    body = segment[:-2] if extension else segment
    for hole in HOLES:
        prefix, found, rest = body.partition(hole)
        if found:
            return prefix, hole, rest, extension
    return body, "", "", extension


def _hole(pattern, text):
    prefix, hole, rest, extension = _parse(pattern)
    if extension:
        text = text.rpartition(".")[0]
    if len(text) < len(prefix) + len(rest) or text[: len(prefix)].casefold() != prefix.casefold():
        return None
    middle, end = text[len(prefix): len(text) - len(rest)], text[len(text) - len(rest):]
    if end.casefold() != rest.casefold() or not (middle if hole else not middle and text):
        return None
    name, _, shape = hole.strip("{}").partition(":")
    if hole in ("", "*"):
        return {}
    return {name: middle} if shape == "any" or _shaped(name, shape, middle) else None


def _shaped(name, shape, text):
    digits = _digits(text)
    after = text[digits:]
    letters = any(c.isalpha() for c in after)
    if name == "feature":  # NNN-name; four digits are a year unless a word follows; spec-kit also numbers by date and time
        if digits == 8:
            return after[:1] == "-" and _digits(after[1:]) == 6 and after[7:8] == "-" and letters
        return after[:1] in ("-", "_") and letters and (digits == 3 or (digits == 4 and after[1:2].isalpha()))
    if shape != "word" and 1 <= digits <= 3 and after[:1] in ("-", "_", ".", " ") and letters:
        return True
    for word, most in (("part", 2),) if name == "part" else (("chapter", 3), ("chap", 3), ("ch", 2)):
        if text[: len(word)].lower() == word:
            number = text[len(word):].lstrip("-_. ")
            return 1 <= _digits(number) <= most and number[_digits(number):][:1] in ("", "-", "_", ".", " ")
    return False


def _digits(text):
    return next((at for at, c in enumerate(text) if c not in "0123456789"), len(text))


def _text(value):
    return value[:LONGEST_PATH] if isinstance(value, str) else ""


def _segments(path):
    return [s for s in _text(path).split("/") if s not in ("", ".")][:MOST_SEGMENTS]


def _place(one):
    path, source = (one, "file") if isinstance(one, str) else (*one, "", "")[:2]
    path = _text(path)
    return [*_segments(path), ""] if source == "prompt" and path.endswith("/") else _segments(path), source


def _feature(branch, places, present, settings):
    for segments, source in places:
        for root in settings["specs"] if source != "prompt" else ():
            top = _segments(root)
            if segments[: len(top)] == top and len(segments) > len(top) + 1 and _shaped("feature", "", segments[len(top)]):
                name = whole(segments[len(top)])
                found = whole("/".join([*top, name]))
                source = "spec_path" if source == "file" else source
                sure = 1.0 if found in present else 0.9
                return Finding(name, source, sure, "in " + found), Finding(found, source, sure, "in " + found)
    if branch.casefold() in [trunk.casefold() for trunk in settings["trunks"]]:
        return NOTHING._replace(why="a trunk carries no feature"), NOTHING
    for pattern in settings["branches"]:
        name = whole((match(pattern, _segments(branch)) or {}).get("feature"))
        if name:
            return _of_branch(name, pattern, present)
    return NOTHING, NOTHING


def _of_branch(name, pattern, present):
    why = "branch matches " + pattern
    number = feature_number(name)
    same = [path for path in present if path.rpartition("/")[2] == name]
    akin = same or [path for path in present if number and feature_number(path.rpartition("/")[2]) == number]
    if len(akin) != 1:
        sure = 0.5 if akin else (0.8 if pattern == "{feature}" else _SURE["branch"])
        return Finding(name, "branch", sure, why + (f", {len(akin)} spec directories have its number" if akin else "")), NOTHING
    # Several branches may work on one spec (017-usage, 017-usage-fix): the directory's name is the one that reports add up under.
    sure = 1.0 if same else 0.8
    why += ", " + akin[0] + " exists"
    return Finding(akin[0].rpartition("/")[2], "branch", sure, why), Finding(akin[0], "branch", sure, why)


def _chapter(branch, places, settings):
    tries = [(s, source, settings["chapter"]["paths"]) for s, source in places if _ELSEWHERE.isdisjoint(s) and not _in_specs(s, settings)]
    tries.append((_segments(branch), "branch", settings["chapter"]["branches"]))
    for segments, source, patterns in tries:
        for pattern in patterns:
            holes = match(pattern, segments) or {}
            chapter, part = whole(holes.get("chapter")), whole(holes.get("part"))
            if chapter or part:
                why = _WHY.get(source, "branch") + " matches " + pattern
                found = [Finding(value, source, _SURE.get(source, 0.5), why) if value else NOTHING for value in (chapter, part)]
                return found[0], found[1]
    return NOTHING, NOTHING


def _in_specs(segments, settings):
    return any(segments[: len(top)] == top for top in map(_segments, settings["feature"]["specs"]) if top)
