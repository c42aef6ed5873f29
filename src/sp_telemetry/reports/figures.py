"""Figures as people read them, and text that keeps to a number of terminal columns."""

from __future__ import annotations

import unicodedata
from typing import Any


def figure(value: Any, kind: str) -> str:
    """`value` for a table; a dash where there is none."""
    return "-" if value is None else plain(value, kind)


def plain(value: Any, kind: str) -> str:
    if kind == "money":
        return money(value)
    if kind in ("count", "tokens"):
        return f"{value:,}"
    if kind == "ratio":
        percent = value * 100
        return "<1%" if 0 < percent < 1 else f"{percent:.0f}%" if percent < 99.5 or percent == 100 else "99%"
    if kind == "ms":
        return span(value)
    if kind == "bytes":
        for unit in ("B", "KB", "MB", "GB"):
            if value < 1000 or unit == "GB":
                return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
            value /= 1000
    if kind == "time":
        return str(value)[:16].replace("T", " ")
    return printable(str(value))


def money(dollars: float) -> str:
    """Cents from a dollar on; below it as many decimals as two digits need, so that little is not nothing."""
    if dollars <= -0.00005:
        return "-" + money(-dollars)
    if dollars == 0 or abs(dollars) >= 0.995:
        return f"${dollars:,.2f}"
    if abs(dollars) >= 0.1:
        return f"${dollars:.2f}"
    return f"${dollars:.4f}" if abs(dollars) >= 0.00005 else "<$0.0001"


def span(ms: float) -> str:
    if ms < 1000:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d}"


def printable(text: str) -> str:
    """`text` without control characters: names come from branches and tools, and must not steer a terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def width_of(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def cut(text: str, size: int) -> str:
    """`text` in at most `size` columns, with … where something was left out."""
    text = printable(text)
    if width_of(text) <= size:
        return text
    while text and width_of(text) > size - 1:
        text = text[:-1]
    return text + "…"


def pad(text: str, size: int, right: bool = False) -> str:
    fill = " " * (size - width_of(text))
    return fill + text if right else text + fill
