"""The search itself: it must find what is there, and go on where a store that is at work removes what was just listed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.secrets_search import files, search


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
