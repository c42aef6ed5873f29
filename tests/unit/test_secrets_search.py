"""The search itself: it must find what is there, and go on where a store that is at work removes what was just listed."""

from __future__ import annotations

import shutil
from binascii import b2a_base64
from pathlib import Path

from tests.secrets_search import files, forms, search


def test_what_is_removed_while_it_is_read_is_left_and_what_came_for_it_is_read(tmp_path: Path) -> None:
    for part in ("all_1_1_0", "all_2_2_0"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "data.bin").write_bytes(b"of a part")
    read = []
    for place, data in files(tmp_path):
        if not read:  # the engine merges both parts into one
            shutil.copytree(tmp_path / "all_1_1_0", tmp_path / "all_1_2_1")
            shutil.rmtree(tmp_path / "all_1_1_0")
            shutil.rmtree(tmp_path / "all_2_2_0")
        read.append((place, data))
    assert [place for place, data in read if data == b"of a part"] == ["all_1_2_1/data.bin"]


def test_a_mark_is_found_in_each_form_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "hex").write_bytes(b"planted mark".hex().encode())
    (tmp_path / "planted mark").write_bytes(b"nothing")
    found = search({"first": "planted mark", "second": "another one"}, files(tmp_path))
    assert {(name, place) for name, _, place in found} == {("first", "hex"), ("first", "name of planted mark")}


#: of letters whose forms differ: quotes, a backslash, what base64 has signs for, two bytes of UTF-8
SECRET = 'Grace?>~ "Hopper\\9" ~>?é~>? Zebra77'
RAW = SECRET.encode()
JSON = SECRET.replace("\\", "\\\\").replace('"', '\\"').replace("é", "\\u00e9")


def in_base64(before: int, url: bool) -> bytes:
    """With others before and behind it, as in a body that is encoded as a whole."""
    encoded = b2a_base64(b"of others"[:before] + RAW + b" and so on")
    return encoded.translate(bytes.maketrans(b"+/", b"-_")) if url else encoded


def test_each_form_is_found_however_it_came_to_be() -> None:
    """Encoded here once more, by other means than the search has."""
    encoded = {
        "as it is": RAW,
        "in lower case": SECRET.lower().encode(),
        "in upper case": SECRET.upper().encode(),
        **{f"base64+{before}": in_base64(before, url=False) for before in range(3)},
        **{f"base64url+{before}": in_base64(before, url=True) for before in range(3)},
        "hex": b"".join(b"%02x" % byte for byte in RAW),
        "HEX": b"".join(b"%02X" % byte for byte in RAW),
        "reversed": bytes(reversed(RAW)),
        "URL": b"".join(b"%c" % byte if (chr(byte).isalnum() and byte < 128) or byte == ord("~") else b"%%%02X" % byte for byte in RAW),
        "URL, all": b"".join(b"%%%02X" % byte for byte in RAW),
        "JSON": JSON.encode(),
        "JSON twice": JSON.replace("\\", "\\\\").replace('"', '\\"').encode(),
        "JSON, all": "".join(f"\\u{ord(letter):04x}" for letter in SECRET).encode(),
        "its beginning": RAW[:12],
        "its middle": RAW[len(RAW) // 2 - 7 : len(RAW) // 2 + 7],
        "its end": RAW[-12:],
    }
    assert set(encoded) == set(forms(SECRET)) and b"+" in encoded["base64+0"] and b"-" in encoded["base64url+0"]
    found = search({"planted": SECRET}, [(form, b"\0what is before\n and " + data + b"\xff\n\0") for form, data in encoded.items()])
    assert {(form, form) for form in encoded} <= {(form, place) for _, form, place in found}
    deep = [(f"{before} before", in_base64(before, url=False)) for before in range(3, 10)]
    assert {place for _, _, place in search({"planted": SECRET}, deep)} == {place for place, _ in deep}
