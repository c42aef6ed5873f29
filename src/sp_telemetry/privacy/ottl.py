"""The policy's treatments as statements of OTTL, the language of the OpenTelemetry Collector's transform processor.

OTTL has no loops, so a treatment is done to a map: the attributes that it concerns are copied to the context's cache, replaced there by
patterns, and merged back. A pattern sees values only, so what is done is marked in them: `=` stands before a value that is yet to be
judged, `+` before one that is. Every value has such a mark while that matters, so none that a client sends can be taken for it. Text
comes to the patterns without control characters, which leaves `\\x00` and `\\x01` as marks there.
"""

# ruff: noqa: E501 - a statement is one line
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sp_telemetry.privacy.patterns import Pattern
from sp_telemetry.privacy.policy import CONTENT_LIMIT, EVENTS, HASH_COLUMNS, UNKNOWN_NAMES, WORD_LIMIT, Policy
from sp_telemetry.privacy.redaction import MARGIN
from sp_telemetry.privacy.sql import ANY_WORD, CONTENT_HASH, HASHED, IDENTIFIER, KNOWN, NAME, NAME_LIMIT, NAME_OF_WORDS, VERSION
from sp_telemetry.privacy.vocabulary import PHRASES

SALT = "\ue000"  # stands for the salt's reference until the text is written: its `$` is the only one that the collector should read
NUMBER = r"^[+-]?[0-9.]{1,40}(?:[eE][+-]?[0-9]{1,4})?$"
#: a person's address that no pattern but that of e-mail addresses could match
ADDRESS = r"^([A-Za-z0-9._+-]+)@((?:[A-Za-z0-9-]+[.])+[A-Za-z0-9-]+)$"
#: Texts that no pattern matches (a test holds that), so that most events need none of them: a short name, hashes, models, numbers, versions;
#: beyond `strict` also words of the client, hooks, agents, events.
HARMLESS = (
    "[A-Za-z]{1,11}|[0-9a-f]{64}|claude-[a-z]{3,10}-[0-9](?:-[0-9]{1,2})?(?:-20[0-9]{6})?|(?:0|[1-9][0-9]{0,8})(?:[.][0-9]{1,6})?"
    "|[0-9]{1,2}(?:[.][0-9]{1,3}){2}"
)
HARMLESS_WORDS = (
    f"{ANY_WORD}|(?:claude_code[.])?(?:{'|'.join(EVENTS)})|(?:Pre|Post)ToolUse(?:Failure)?:[A-Z][A-Za-z]{{1,15}}"
    "|SessionStart:[a-z]{1,10}|agent:(?:custom|builtin(?::[a-z]{1,9}-[a-z]{1,9})?)"
)
#: treatments of what is text, or as text
TEXTUAL = ("identifier", "known", "version", "phrases", "person", "text", "relative", "content", "hash")
#: entries of cache["text"] that are no attributes
NAME_ENTRY, OTHER_ENTRY = ".name", ".other"


def literal(text: str) -> str:
    """`text` as a string of OTTL; what is not ASCII is escaped."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(f"[^ -~{SALT}]", lambda found: f"\\u{ord(found[0]):04x}", plain) + '"'


def listed(texts: Iterable[str]) -> str:
    return "[" + ", ".join(map(literal, sorted(texts))) + "]"


def template(replacement: str) -> str:
    """RE2's `\\1` as Go's `${1}`."""
    made = {"$": "$$", "\\\\": "\\"}
    return re.sub(r"\\[\\0-9]|\$", lambda found: made.get(found[0], f"${{{found[0][1:]}}}"), replacement)


def checked(pattern: Pattern) -> tuple[str, str]:
    """Regex and template. OTTL can't count a check digit, so what looks like a number with one is taken for it."""
    if not pattern.check:
        return pattern.regex, template(pattern.text)
    assert pattern.regex.startswith("(?:^|")
    return pattern.regex.replace("(?:", "(", 1), "${1}" + pattern.text


@dataclass
class Statements:
    """Those of one context (`log`, `span`, …), in `lines`."""

    of: str
    policy: Policy
    lines: list[str] = field(default_factory=list)

    def add(self, *lines: str) -> None:
        self.lines += lines

    def cached(self, *path: str) -> str:
        return f"{self.of}.cache" + "".join(f"[{literal(part)}]" for part in path)

    def attribute(self, name: str) -> str:
        return f"{self.of}.attributes[{literal(name)}]"

    def in_map(self, part: str, regex: str, by: str, more: str = "", where: str = "") -> None:
        """Replace in every value of a map of the cache. `by`: Go's template."""
        condition = f" where {where}" if where else ""
        self.add(f'replace_all_patterns({self.cached(part)}, "value", {literal(regex)}, {literal(by)}{more}){condition}')

    def in_text(self, target: str, regex: str, by: str) -> None:
        self.add(f"replace_pattern({target}, {literal(regex)}, {literal(by)})")

    def copy(self, part: str, keys: Iterable[str], source: str) -> None:
        """A map in the cache: the entries of `source` with these keys."""
        self.add(f"set({self.cached(part)}, {source})", f"keep_keys({self.cached(part)}, {listed(keys)})")

    def merge(self, part: str, to: str) -> None:
        self.add(f'merge_maps({to}, {self.cached(part)}, "upsert")')

    # ---- attributes

    def attributes(
        self, treatments: Mapping[str, str], stay: Iterable[str] = (), texts: Mapping[str, str] | None = None, hashes: bool = True
    ) -> None:
        """Make every attribute what its treatment says, and remove those with none.

        `stay`: names that the caller treats itself. `texts`: other text to redact, entry of cache["text"] -> what to put there.
        `hashes`: False where the store has no columns for hashes of contents.
        """
        left_out = set() if hashes else {name for name in HASH_COLUMNS if treatments.get(name) == "hash"}

        def of(*wanted: str) -> set[str]:
            return {name for name, treatment in treatments.items() if treatment in wanted} - left_out

        attributes, every = f"{self.of}.attributes", self.cached("all")
        self.add(f"keep_keys({attributes}, {listed(of('number', *TEXTUAL) | {*stay, UNKNOWN_NAMES})})")
        for name in sorted(of("number")):
            it = self.attribute(name)
            self.add(f'set({it}, "") where {it} != nil and not IsInt({it}) and not IsDouble({it}) and not IsMatch({it}, {literal(NUMBER)})')

        # All as text; lists, maps and bytes as an empty one.
        self.copy("all", of(*TEXTUAL) | {UNKNOWN_NAMES}, attributes)
        self.in_map("all", "(?s)^(.*)$", "=${1}")
        self.add(f"stringify_all({every})")
        self.in_map("all", "^(true|false|-?[0-9][0-9.e+-]*)$", "=${1}")
        self.in_map("all", "(?s)^[^=].*$", "=")

        self._or_hashed("identifier", of("identifier"), IDENTIFIER)
        self._or_hashed("known", of("known"), KNOWN, "other-", 8)
        self._or_hashed("version", of("version"), VERSION, "other-", 8)
        self._or_hashed("hash", of("hash") - HASH_COLUMNS, f"^(?:{HASHED})?$", "hash-", 16)
        contents = of("content") & HASH_COLUMNS
        if hashes and (hashed := of("hash", "content") & HASH_COLUMNS):
            self._content_hashes(hashed, hashed - contents)
        self.in_map("all", "^=", "")
        for name in sorted(of("phrases")):
            self.phrases(self.cached("all", name))
        self._texts(of("text", "person"), of("content", "relative"), of("person"), contents, texts or {})
        if hashes:
            for name in sorted(contents):
                hash_, it = self.cached("hashes", name), self.cached("all", name)
                self.add(f'set({it}, Concat([{hash_}, {it}], " ")) where {hash_} != nil and {hash_} != ""')
        self._unknown_names()
        self.merge("all", attributes)

    def _or_hashed(self, part: str, keys: set[str], regex: str, prefix: str = "", length: int = 64) -> None:
        """Those that `regex` matches as they are, of the others the beginning of their salted hash."""
        if keys:
            self.copy(part, keys, self.cached("all"))
            self.judge(part, regex, prefix, length)
            self.merge(part, self.cached("all"))

    def judge(self, part: str, regex: str, prefix: str = "", length: int = 64) -> None:
        self.in_map(part, f"^=({regex.removeprefix('^').removesuffix('$')})$", "+${1}")
        self.in_map(part, "(?s)^=(.*)$", f"{SALT}${{1}}", f", SHA256, {literal(f'-{prefix}%s')}")
        self.in_map(part, rf"^-({prefix}[0-9a-f]{{{length}}}).*$", "+${1}")
        self.in_map(part, r"^\+", "")

    def _content_hashes(self, keys: set[str], only: set[str]) -> None:
        """cache["hashes"]: `sha256:` and the salted hash, also of what was hashed before; none of what the client left out itself. Of `only`
        nothing else is kept."""
        self.copy("hashes", keys, self.cached("all"))
        self.in_map("hashes", "^=(?:<REDACTED>)?$", "+")
        self.in_map("hashes", r"(?s)^=(sha256:[0-9a-f]{64})(?:[\x00-\x20\x7f].*)?$", "+${1}")
        self.in_map("hashes", "(?s)^=(.*)$", f"{SALT}${{1}}", ', SHA256, "+sha256:%s"')
        self.in_map("hashes", r"^\+", "")
        self.copy("hashed", only, self.cached("hashes"))
        self.merge("hashed", self.cached("all"))

    def phrases(self, it: str) -> None:
        """Phrases for what is recognised in the text `it`, in its place."""
        line, found = self.cached("line", "it"), self.cached("found")
        self.add(f"set({self.cached('line')}, {{}})", f"set({line}, {it}) where {it} != nil", f'set({found}, "")')
        self._one_line("line", WORD_LIMIT)
        for text, look in PHRASES:
            self.add(f'set({found}, Concat([{found}, {literal(text)}], "; ")) where IsMatch({line}, {literal(look)})')
        self.add(f'set({found}, "; other") where {found} == "" and {it} != nil and {it} != ""')
        self.in_text(found, "^; ", "")
        self.add(f"set({it}, {found}) where {it} != nil")

    # ---- texts

    def _one_line(self, part: str, limit: int) -> None:
        """As redaction.one_line: without control characters, what is beyond `limit` and MARGIN, and the word that this cuts through."""
        self.in_map(part, "[\\x00-\\x1f\\x7f]", " ")
        self.add(f'truncate_all({self.cached(part)}, {4 * limit + MARGIN}, true, "\\x00")')
        self.in_map(part, r"[^ ,;&<>(){}|]*\x00$", "")

    def _texts(self, short: set[str], long: set[str], persons: set[str], contents: set[str], texts: Mapping[str, str]) -> None:
        long = long | ({UNKNOWN_NAMES} if self.policy.level != "strict" else set())
        if short or long or texts:
            self.copy("text", short | long, self.cached("all"))
            for entry, source in texts.items():
                self.add(f"set({self.cached('text', entry)}, {source})")
            self.redact(long, persons, contents)
            self.copy("redacted", short | long, self.cached("text"))
            self.merge("redacted", self.cached("all"))

    def redact(self, long: Iterable[str] = (), persons: Iterable[str] = (), contents: Iterable[str] = ()) -> None:
        """cache["text"]: each on one line, redacted, cut; those named in `long` later. Nothing is done to what is harmless."""
        text, needed = self.cached("text"), f"{self.cached('redact')} == true"
        if long:
            self.copy("long", long, text)
            if contents:  # a collector before this one wrote their hash before them
                self.in_map("long", CONTENT_HASH, "")
            self._one_line("long", CONTENT_LIMIT)
        self._one_line("text", WORD_LIMIT)
        if long:
            self.merge("long", text)
        harmless = HARMLESS if self.policy.level == "strict" else f"{HARMLESS}|{HARMLESS_WORDS}"
        all_of_it = f"^(?:(?:{harmless})?\\n)*$"
        lines = f'Concat([Concat(Values({text}), "\\n"), ""], "\\n")'
        self.add(f"set({self.cached('redact')}, true) where not IsMatch({lines}, {literal(all_of_it)})")
        for name in sorted(persons):
            it = self.cached("text", name)
            self.add(f'replace_pattern({it}, {literal(ADDRESS)}, "${{1}}\\x01${{2}}") where {needed} and {it} != nil')
        for pattern in self.policy.patterns:
            self.in_map("text", *checked(pattern), where=needed)
        self.in_map("text", "\\x01", "@", where=needed)
        if long:
            self.copy("long", long, text)
            self.in_map("long", f"^({'.{1000}' * (CONTENT_LIMIT // 1000)}).+$", "${1}", where=needed)
        self.in_map("text", f"^(.{{{WORD_LIMIT}}}).+$", "${1}", where=needed)
        if long:
            self.merge("long", text)

    # ---- names

    def check_name(self, it: str) -> None:
        """What telemetry_name does to `it`, which stands redacted in cache["text"] but at `strict`."""
        fits = f"IsMatch({it}, {literal(NAME_OF_WORDS)})"
        if self.policy.level != "strict":
            fits = f"(IsMatch({it}, {literal(NAME)}) and {self.cached('text', NAME_ENTRY)} == {it})"
        self.add(f'set({it}, "unnamed") where not {fits} or IsMatch({it}, "^.{{{NAME_LIMIT + 1}}}")')

    def _unknown_names(self) -> None:
        """Of the names that redaction/privacy lists each that is none becomes `unnamed`. They stand in brackets while they are judged."""
        it = self.cached("all", UNKNOWN_NAMES)
        good = (NAME_OF_WORDS if self.policy.level == "strict" else NAME).removeprefix("^").removesuffix("$")
        self.in_text(it, "[^A-Za-z0-9_.,-]", "?")
        self.in_text(it, f"[^,]{{{NAME_LIMIT + 1},}}", "?")
        self.in_text(it, "([^,]+)", "<${1}>")
        self.in_text(it, f"<({good})>", "[${1}]")
        self.in_text(it, "<[^<>]*>", "[unnamed]")
        self.in_text(it, r"[\[\]]", "")
