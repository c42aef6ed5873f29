"""The user settings file: one member changed, every other byte as it was, and the way back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home
from sp_telemetry.setup import claude_settings, json_text
from sp_telemetry.setup.environment import person_of, variables, with_person

WANTED = variables(person="Ada Lovelace", traces=True)
NAMES = st.text(max_size=8) | st.sampled_from(["env", "permissions", "OTEL_METRICS_EXPORTER", "ENV", "hooks"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
ENV = st.dictionaries(st.text(max_size=6) | st.sampled_from(["HTTP_PROXY", "OTEL_LOG_USER_PROMPTS"]), st.text(max_size=8), max_size=4)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A settings file as somebody may have written it: any members, any layout."""
    value = draw(st.dictionaries(NAMES, VALUES, max_size=4))
    value.pop("env", None)
    if draw(st.booleans()):
        members = list(value.items())
        members.insert(draw(st.integers(0, len(members))), ("env", draw(ENV)))
        value = dict(members)
    indent = draw(st.sampled_from([None, 0, 1, 2, 4, "\t"]))
    separators = draw(st.sampled_from([None, (",", ":"), (" ,", " : ")]))
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=draw(st.booleans()))
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    before, after = (draw(st.sampled_from(["", "\n", " ", "\r\n\r\n"])) for _ in range(2))
    return before + text + after


@given(documents())
def test_only_our_variables_change_and_all_goes_back(text: str) -> None:
    file = claude_settings.SettingsFile(Path("x"), True, text)
    after = claude_settings.changed(file, WANTED)
    expected = json.loads(text)
    expected.setdefault("env", {}).update(WANTED)
    assert json.loads(after) == expected
    assert list(json.loads(after)) == list(expected)  # the order too

    # Every byte that was there is there, in its order: ours were inserted, nothing else.
    rest = iter(after)
    absent = [sign for sign in text if sign not in rest]
    touched = any(name in (json.loads(text).get("env") or {}) for name in WANTED)
    assert touched or not "".join(absent).strip()

    back = claude_settings.changed(claude_settings.SettingsFile(Path("x"), True, after), dict.fromkeys(WANTED))
    without = {name: value for name, value in json.loads(text).get("env", {}).items() if name not in WANTED}
    assert json.loads(back)["env"] == without


@given(documents(), st.sampled_from(["NEW", "ü\n\"'\\", "\u2028"]), VALUES)
def test_put_then_remove_is_byte_for_byte_where_a_member_stood_before(text: str, key: str, value: object) -> None:
    holder = json.loads(text).get("env")
    put = json_text.put(text, ("env", key), value)
    assert json.loads(put)["env"][key] == value
    if holder:
        assert json_text.remove(put, ("env", key)) == text
    elif holder is None and json.loads(text):
        assert json_text.remove(put, ("env",)) == text
    assert json_text.remove(text, ("env", "never there")) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{\n  "env": {\n    "A": "1"\n  }\n}'),
        ('{"model":"opus"}', '{"model":"opus","env":{"A":"1"}}'),
        ('{"model": "opus"}\n', '{"model": "opus", "env": {"A": "1"}}\n'),
        ('{\n\t"model": "opus"\n}\n', '{\n\t"model": "opus",\n\t"env": {\n\t\t"A": "1"\n\t}\n}\n'),
        ('{\r\n    "env": {\r\n        "B": "2"\r\n    }\r\n}', '{\r\n    "env": {\r\n        "B": "2",\r\n        "A": "1"\r\n    }\r\n}'),
        ('{\n  "env": {}\n}\n', '{\n  "env": {\n    "A": "1"\n  }\n}\n'),
        ('{"env": {"A": "0", "A": "2"}}', '{"env": {"A": "0", "A": "1"}}'),
    ],
)
def test_what_is_inserted_looks_like_its_neighbours(before: str, after: str) -> None:
    assert json_text.put(before, ("env", "A"), "1") == after


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "sp").make()


BOOK = b'{\n  // no comment here\n}'
ORIGINAL = '{\n    "model": "opus",\n    "env": {"HTTP_PROXY": "http://proxy:3128",\n      "X": "\u00fc"},\n  "z": [1,   2]}\r\n'.encode()


def test_undone_the_bytes_are_back(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(ORIGINAL)
    file.chmod(0o640)
    assert claude_settings.apply(home, file, WANTED)
    assert not claude_settings.apply(home, file, WANTED)
    assert file.stat().st_mode & 0o777 == 0o640
    assert claude_settings.read(file).env == {"HTTP_PROXY": "http://proxy:3128", "X": "ü"} | WANTED
    # a second set-up under another name: still the way back to the first day
    assert claude_settings.apply(home, file, variables(person="Grace", attributes=WANTED["OTEL_RESOURCE_ATTRIBUTES"]))
    assert claude_settings.undo(home, dry_run=True) == ("restored", [])
    assert claude_settings.undo(home) == ("restored", [])
    assert file.read_bytes() == ORIGINAL
    assert claude_settings.undo(home) == ("nothing", [])


@pytest.mark.parametrize("content", [None, b"", b" \r\n", b"{}", b'\xef\xbb\xbf{"a": 1}'])
def test_undone_a_file_is_what_it_was_also_none(home: Home, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / ".claude" / "settings.json"
    if content is not None:
        file.parent.mkdir()
        file.write_bytes(content)
    assert claude_settings.apply(home, file, WANTED)
    assert claude_settings.read(file).env == WANTED
    claude_settings.undo(home)
    assert (file.read_bytes() if file.exists() else None) == content


def test_undone_after_changes_only_ours_go(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"env": {"OTEL_RESOURCE_ATTRIBUTES": "team=docs", "OTEL_LOGS_EXPORTER": "console"}}')
    attributes = claude_settings.read(file).env["OTEL_RESOURCE_ATTRIBUTES"]
    claude_settings.apply(home, file, variables(person="Ada", attributes=attributes))
    now = json.loads(file.read_text())
    assert now["env"]["OTEL_RESOURCE_ATTRIBUTES"] == "team=docs,enduser.id=Ada"
    now["model"] = "opus"
    now["env"]["OTEL_METRICS_EXPORTER"] = "none"
    now["env"]["OTEL_RESOURCE_ATTRIBUTES"] += ",room=7"
    file.write_text(json.dumps(now))
    assert claude_settings.undo(home) == ("removed", ["OTEL_METRICS_EXPORTER"])
    assert json.loads(file.read_text()) == {
        "env": {"OTEL_RESOURCE_ATTRIBUTES": "team=docs,room=7", "OTEL_LOGS_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"},
        "model": "opus",
    }


def test_a_set_up_again_after_changes_goes_back_to_the_changed(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(ORIGINAL)
    claude_settings.apply(home, file, variables(person="Ada"))
    file.write_bytes(file.read_bytes().replace(b'"opus"', b'"sonnet"'))
    claude_settings.apply(home, file, variables(person="Grace"))
    claude_settings.undo(home)
    assert json.loads(file.read_bytes()) == json.loads(ORIGINAL.replace(b'"opus"', b'"sonnet"'))


@pytest.mark.parametrize("content", [BOOK, b"[1]", b'{"env": [1]}', b'{"a": NaN}', b'{"a": 1,}', b"\xff{}", b"{", b"[" * 100_000])
def test_what_the_client_could_not_read_is_not_touched(home: Home, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="Nothing was changed"):
        claude_settings.apply(home, file, WANTED)
    assert file.read_bytes() == content
    assert os.listdir(tmp_path) in (["sp", "settings.json"], ["settings.json", "sp"])


def test_a_link_stays_a_link(home: Home, tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles" / "claude.json", tmp_path / "settings.json"
    real.parent.mkdir()
    real.write_bytes(ORIGINAL)
    link.symlink_to(real)
    claude_settings.apply(home, link, WANTED)
    assert link.is_symlink() and b"OTEL_LOGS_EXPORTER" in real.read_bytes()
    claude_settings.undo(home)
    assert link.is_symlink() and real.read_bytes() == ORIGINAL


def test_killed_between_note_and_file_it_can_be_run_again(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(ORIGINAL)

    def die(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(claude_settings, "_replace", die)
        with pytest.raises(KeyboardInterrupt):
            claude_settings.apply(home, file, WANTED)
    assert file.read_bytes() == ORIGINAL
    assert claude_settings.undo(home, dry_run=True) == ("left", [])
    claude_settings.apply(home, file, WANTED)
    claude_settings.undo(home)
    assert file.read_bytes() == ORIGINAL


def test_somebody_writing_meanwhile_loses_nothing(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"a": 1}')
    true, times = claude_settings.read, iter(range(100))

    def read(path: Path) -> claude_settings.SettingsFile:
        found = true(path)
        if next(times) == 0:
            file.write_text('{"a": 2}')
        return found

    monkeypatch.setattr(claude_settings, "read", read)
    claude_settings.apply(home, file, {"A": "1"})
    assert json.loads(file.read_text()) == {"a": 2, "env": {"A": "1"}}


@given(st.text(min_size=1, max_size=20))
def test_a_person_travels_percent_encoded(person: str) -> None:
    try:
        person.encode()
    except UnicodeEncodeError:
        return
    merged = with_person("a=1,enduser.id=old,b=%20,enduser.id=older", person)
    assert person_of(merged) == person and merged.count("enduser.id") == 1 and merged.startswith("a=1,") and merged.endswith(",b=%20")
    assert merged.isascii() and not set(merged) & set(' ";\\')
