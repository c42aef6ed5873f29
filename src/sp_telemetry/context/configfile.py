"""Reads `.claude/telemetry.toml` in a hook: the part of TOML that its keys need, on a Python without `tomllib`.

Hooks run on Python 3.9, where `tomllib` does not exist, and on newer ones, where importing it costs two interpreter starts. The keys
hold strings, lists of strings and one table of strings, so this reads exactly those: `[table]`, `key = "text"`, `key = 'text'`,
`key = ["a", "b"]` (over several lines too), comments. Anything else makes the whole file unread, with a reason, rather than half
understood; `sp-telemetry context` reads the same file with `tomllib`, checks it, and says when a hook would read it otherwise.

Standard library only, Python 3.9, no import of a sibling: the hooks load this file by path, and only when the file exists.
"""

import os

NAME = os.path.join(".claude", "telemetry.toml")
_MOST = 1 << 16
_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_ESCAPES = {'"': '"', "\\": "\\", "t": "\t", "n": "\n"}


def read(toplevel: str) -> tuple:
    """(settings, reason): the settings as nested dicts, and why they are empty where a file is there and was not understood."""
    try:
        with open(os.path.join(toplevel, NAME), "rb") as file:
            raw = file.read(_MOST + 1)
        if len(raw) > _MOST:
            return {}, "larger than 64 KiB"
        return parse(raw.decode("utf-8")), ""
    except (FileNotFoundError, NotADirectoryError):
        return {}, ""
    except (OSError, ValueError) as error:
        return {}, str(error) or type(error).__name__


def parse(text: str) -> dict:
    """The settings in `text`. Raises ValueError, with the line, for all that is not in the small part of TOML named above."""
    settings = {}
    table, seen = settings, {()}
    lines = enumerate(text.replace("\r\n", "\n").split("\n"), 1)
    for number, line in lines:
        scan = _Scan(line, number)
        if scan.done():
            continue
        if scan.take("["):
            names = tuple(scan.keys())
            if not scan.take("]") or not scan.done() or names in seen:
                raise scan.wrong()
            seen.add(names)
            table = settings
            for name in names:
                table = table.setdefault(name, {})
                if not isinstance(table, dict):
                    raise scan.wrong()
            continue
        names = scan.keys()
        if len(names) != 1 or names[0] in table or not scan.take("="):
            raise scan.wrong()
        table[names[0]] = scan.items(lines) if scan.take("[") else scan.string()
        if not scan.done():
            raise scan.wrong()
    return settings


def _control(char):
    return (char < " " and char != "\t") or char == "\x7f"


class _Scan:
    """A place in one line."""

    def __init__(self, line, number):
        self.line, self.number, self.at = line, number, 0

    def wrong(self):
        return ValueError(f"line {self.number}: only strings, lists of strings and tables of them are read by the hooks")

    def peek(self):
        while self.line[self.at: self.at + 1] in (" ", "\t"):
            self.at += 1
        return self.line[self.at: self.at + 1]

    def done(self):
        if self.peek() == "#" and any(_control(char) for char in self.line[self.at:]):
            raise self.wrong()
        return self.peek() in ("", "#")

    def take(self, mark):
        if self.peek() != mark:
            return False
        self.at += 1
        return True

    def keys(self):
        names = []
        while True:
            if self.peek() in ('"', "'"):
                names.append(self.string())
            else:
                start = self.at
                while self.line[self.at: self.at + 1] in _BARE:
                    self.at += 1
                names.append(self.line[start: self.at])
                if not names[-1]:
                    raise self.wrong()
            if not self.take("."):
                return names

    def string(self):
        quote, text = self.peek(), ""
        if quote not in ('"', "'") or not quote or self.line.startswith(quote * 3, self.at):
            raise self.wrong()
        self.at += 1
        while self.at < len(self.line):
            char = self.line[self.at]
            self.at += 1
            if char == quote:
                return text
            if _control(char):
                break
            if char == "\\" and quote == '"':
                char = _ESCAPES.get(self.line[self.at: self.at + 1], "")
                self.at += 1
                if not char:
                    break
            text += char
        raise self.wrong()

    def items(self, lines):
        values = []
        while True:
            self.skip(lines)
            if self.take("]"):
                return values
            values.append(self.string())
            self.skip(lines)
            if not self.take(",") and self.peek() != "]":
                raise self.wrong()

    def skip(self, lines):
        """On to the next line that holds something, within a list."""
        while self.done():
            self.number, self.line = next(lines, (self.number, None))
            if self.line is None:
                self.line = ""
                raise ValueError(f"line {self.number}: a list is not closed")
            self.at = 0
