"""Inputs made from seeds: files in seeds/<target>, changed a little, with the words that matter."""

from __future__ import annotations

import random
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"
WORDS = [
    b"\0", b"\xff", b"\x80", b"\n", b"\r\n", b"\r", b'"', b"'", b"`", b"\\", b"\\u0000", b"\\ud800",
    b"{", b"}", b"[", b"]", b"(", b")", b",",
    b":", b"=", b"#", b"--", b"/*", b"*/", b"$$", b";", b"1e999", b"-0", b"NaN", b"null", b"true", b"\xef\xbb\xbf",
    b"\xe2\x80\xa8", b"0x", b"_",
    b"file('{file}')", b"telemetry.installation", b"installation", b"SETTINGS select = 'file(''{file}'')'", b"FORMAT Values", b"SELECT",
    b"system.users", b" APPLY ", b"INTO OUTFILE '/x'", b"{x:Identifier}", b"x -> ", b"AS settings", b"SETTINGS", b"'''", b'"""',
    b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x00", b"\x1a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x0b", b"\x0c", b"../", b"\x1f",
]  # fmt: skip


def seeds(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((SEEDS / target).glob("*"))] or [b""]


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """`data` after one to six changes."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at, end = sorted((chance.randint(0, len(changed)), chance.randint(0, len(changed))))
        end = min(end, at + chance.choice((1, 2, 8, 1000)))
        match chance.randrange(7):
            case 0:
                del changed[at:end]
            case 1:
                changed[at:at] = chance.choice(WORDS)
            case 2:
                changed[at:end] = chance.choice(WORDS)
            case 3:
                changed[at:at] = changed[at:end] * chance.choice((1, 1, 2, 50))
            case 4 if changed:
                changed[at - 1] ^= 1 << chance.randrange(8)
            case 5:
                other = chance.choice(others)
                cut = chance.randint(0, len(other))
                changed[at:end] = other[cut : cut + chance.choice((4, 40, 4000))]
            case 6:
                changed[at:end] = chance.randbytes(chance.choice((1, 4, 9)))
    return bytes(changed[:20_000])
