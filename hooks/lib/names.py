"""Names as they may be written down: of branches, directories, chapters, persons. What the policy takes for a secret or for a mark of a
person is redacted in them, at every level, as the store does it too; here because a record may wait on the disk for the server.

Nearly every name holds nothing that any pattern needs (marks.py), which is all that is looked at then: `re` costs half a start of Python.
Patterns of the installation's own (`privacy.toml`) are applied as far as this Python reads them; the store applies every one.
"""

import os

import places
import rules
from marks import MARKS

LONGEST = rules.LONGEST
HOME = "home"  # the pattern that takes `/home/name` out of a path
_DIGITS = {ord(digit): "0" for digit in "123456789"}
_LOCAL = {ord(sign): "a" for sign in "._%+"}


class Redaction:
    """The patterns, with those of the installation in `home`."""

    def __init__(self, home):
        self._marks = MARKS
        if home and os.path.exists(os.path.join(home, "privacy.toml")):
            self._marks = MARKS + _own(places.read(os.path.join(home, "privacy.toml")))

    def clean(self, text):
        """`text` as it may be kept: redacted, then cut, for half a secret is known to no pattern."""
        return self.redacted(rules.clean(text, rules.LONGEST_PATH))[:LONGEST].strip()

    def person(self, text):
        """The same, but an e-mail address and nothing else stays: it names whoever chose it as their name."""
        text = rules.clean(text, rules.LONGEST_PATH)
        return self.redacted(text, but="email" if _address(text) else "")[:LONGEST].strip()

    def harmless(self, path):
        """Whether a path of this machine holds nothing that may not be written down; whose home it is in is no secret here."""
        return self.redacted(path, but=HOME) == path

    def redacted(self, text, but=""):
        """`text` with every pattern replaced except the one named `but`."""
        folded = text.casefold().translate(_DIGITS)
        for name, least, groups, regex, new, check in self._marks:
            if len(text) >= least and name != but and all([any([one in folded for one in group]) for group in groups]):
                text = _replaced(regex, new, check, text)
        return text


def _replaced(regex, new, check, text):
    import re

    if not check:
        return re.sub(regex, new, text)
    for found in {match.group(1) for match in re.finditer(regex, text)}:
        if _luhn(found):
            text = text.replace(found, new)
    return text


def _address(text):
    local, _, domain = text.partition("@")
    parts = [local.translate(_LOCAL), *domain.split(".")]
    return len(parts) > 2 and all([part.isascii() and part.replace("-", "a").isalnum() for part in parts])


def _luhn(number):
    digits = [int(c) for c in reversed(number) if c.isdigit()]
    doubled = [digit * 2 - (9 if digit > 4 else 0) for digit in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _own(text):
    """Marks of the installation's own patterns; not of those that this Python can't read."""
    import re

    import configfile

    try:
        tables = configfile.parse(text).get("patterns")
    except ValueError:
        return ()
    found = []
    for name, table in tables.items() if isinstance(tables, dict) else ():
        regex = table.get("regex") if isinstance(table, dict) else None
        if not regex or not isinstance(regex, str):
            continue
        new = table.get("replacement", "<" + name + ">")
        try:
            if re.sub(regex, new, ""):
                continue  # everywhere, so the store refuses it
        except (re.error, TypeError, ValueError, IndexError, OverflowError, RecursionError):
            continue
        found.append((name, 1, (), regex, new, ""))
    return tuple(found)
