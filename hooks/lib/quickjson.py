"""JSON for a process that lives for milliseconds: `import json` alone costs as much as starting Python, for it compiles patterns.

The interpreter's own scanner and string encoder (`_json`) do the work that `json` wraps. Where they are missing or differ, `json`
itself is used.
"""

try:
    from _json import encode_basestring_ascii as _quoted
    from _json import make_scanner

    class _Settings:
        strict = False
        object_hook = object_pairs_hook = None
        parse_float, parse_int, parse_constant = float, int, float
        memo = {}  # noqa: RUF012 - the scanner asks for it and keeps its own

    _scan = make_scanner(_Settings())
except (ImportError, AttributeError, TypeError):
    _scan = None


def loads(text):
    """The value in `text`. Raises ValueError (or RecursionError) for what is not JSON."""
    if _scan is None:
        import json

        return json.loads(text)
    start = len(text) - len(text.lstrip(" \t\r\n\ufeff"))
    try:
        return _scan(text, start)[0]
    except RecursionError:
        raise
    except Exception:  # the scanner looks for json.decoder's error, which isn't loaded: SystemError or ImportError, by version
        raise ValueError("not JSON") from None


def dumps(value, **_):
    """`value` as compact ASCII. Takes and ignores what callers of `json.dumps` say about form."""
    if _scan is None:
        import json

        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict):
        return "{" + ",".join([_quoted(str(key)) + ":" + dumps(item) for key, item in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([dumps(item) for item in value]) + "]"
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    return repr(value)
