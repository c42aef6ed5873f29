"""The tables of docs/privacy.md, made from the definition. `python -m sp_telemetry.privacy.table` prints them; a test holds both equal."""

from __future__ import annotations

from sp_telemetry.privacy.policy import ATTRIBUTES, KEPT, LEVELS, TREATMENTS


def attributes() -> str:
    """What becomes of each kind of attribute at each level, and which attributes are of that kind."""
    lines = [f"| kind | {' | '.join(LEVELS)} | attributes |", "|---|---|---|---|---|"]
    for kind, levels in KEPT.items():
        names = ", ".join(f"`{name}`" for name, of in sorted(ATTRIBUTES.items()) if of == kind)
        lines.append(f"| {kind} | {' | '.join(levels)} | {names} |")
    return "\n".join(lines) + "\n"


def treatments() -> str:
    return "\n".join(["| treatment | what is kept |", "|---|---|", *(f"| {name} | {what} |" for name, what in TREATMENTS.items())]) + "\n"


if __name__ == "__main__":
    print(attributes() + "\n" + treatments(), end="")
