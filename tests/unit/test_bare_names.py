"""The commands' bare names: who has them, ours put into the user's commands folder, and taken away to the byte."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from sp_telemetry.home import Home
from sp_telemetry.setup import bare_names
from sp_telemetry.setup.layers import layers
from tests.conftest import ROOT

pytestmark = pytest.mark.checkout
SETUP, REPORT = bare_names.NAMES


@dataclass
class User:
    """Somebody's home: plugins that are switched on in their settings, and whatever lies in their commands folder."""

    folder: Path

    @property
    def home(self) -> Home:
        return Home(self.folder / "sp home")

    @property
    def config(self) -> Path:
        return self.folder / ".claude"

    @property
    def commands(self) -> Path:
        return self.config / "commands"

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": str(self.folder)}

    def plugins(self, *names: str, on: bool = True) -> None:
        self.config.mkdir(exist_ok=True)
        (self.config / "settings.json").write_text(json.dumps({"enabledPlugins": {f"{name}@market": on for name in names}}))

    def another(self, name: str = "other", skills: tuple[str, ...] = (REPORT,), cached: bool = False) -> None:
        """A plugin of somebody else that has these skills: in its marketplace's folder, or in the client's cache."""
        market = self.folder / "market"
        root = market / "plugins" / name if not cached else self.config / "plugins" / "cache" / name
        for index, skill in enumerate(skills):
            file = root / ("skills" if index % 2 == 0 else "more") / f"directory-{index}" / "SKILL.md"
            file.parent.mkdir(parents=True)
            file.write_text(f'---\nname: "{skill}"\n---\ntheirs\n')
        (root / ".claude-plugin").mkdir()
        (root / ".claude-plugin" / "plugin.json").write_text(json.dumps({"name": name, "skills": "./more"}))
        plugins = self.config / "plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        (plugins / "installed_plugins.json").write_text(json.dumps({"plugins": {f"{name}@market": [{"installPath": str(root)}]}}))
        if not cached:
            (market / ".claude-plugin").mkdir()
            entry = {"name": name, "source": f"./plugins/{name}"}
            (market / ".claude-plugin" / "marketplace.json").write_text(json.dumps({"plugins": [entry]}))
            (plugins / "known_marketplaces.json").write_text(json.dumps({"market": {"installLocation": str(market)}}))

    def look(self) -> list[bare_names.BareName]:
        return bare_names.look(self.home, self.environ, layers(self.environ, None, ()))

    def states(self) -> dict[str, str]:
        return {one.name: one.state for one in self.look()}


@pytest.fixture
def user(tmp_path: Path) -> User:
    made = User(tmp_path / "home of ada")
    made.folder.mkdir()
    made.plugins("sp-telemetry")
    return made


def test_the_plugin_answers_by_itself(user: User) -> None:
    assert user.states() == {SETUP: "free", REPORT: "free"}
    user.plugins("sp-telemetry", on=False)
    assert user.look() == []


@pytest.mark.parametrize("cached", [False, True])
def test_another_plugin_with_the_name(user: User, cached: bool) -> None:
    user.another(skills=("something", SETUP), cached=cached)
    assert user.states() == {SETUP: "free", REPORT: "free"}  # installed, and not switched on
    user.plugins("other", "sp-telemetry")
    assert user.states() == {SETUP: "taken", REPORT: "free"}
    assert "other@market" in user.look()[0].what


def test_put_and_taken_away(user: User) -> None:
    user.another(skills=(REPORT, SETUP))
    user.plugins("other", "sp-telemetry")
    written = bare_names.put(user.home, user.environ, user.look())
    assert sorted(path.name for path in user.commands.iterdir()) == [f"{SETUP}.md", f"{REPORT}.md"]
    assert written == [str(user.commands / f"{SETUP}.md"), str(user.commands / f"{REPORT}.md")]
    for name in bare_names.NAMES:
        text = (user.commands / f"{name}.md").read_text()
        assert text.startswith(f"---\n{bare_names.MARK}\nname: {name}\n") and "${" not in text and str(ROOT) in text
    assert user.states() == {SETUP: "ours", REPORT: "ours"}
    assert bare_names.put(user.home, user.environ, user.look()) == []
    assert bare_names.take_away(user.home, dry_run=True) == (written, []) and user.commands.exists()
    assert bare_names.take_away(user.home) == (written, [])
    assert not user.commands.exists() and bare_names.take_away(user.home) == ([], [])


def test_what_lies_there_is_never_touched(user: User) -> None:
    user.another(skills=(REPORT, SETUP))
    user.plugins("other", "sp-telemetry")
    seen = user.look()
    user.commands.mkdir()
    mine = user.commands / f"{REPORT}.md"
    mine.write_bytes(b"my own\r\n")
    linked = user.commands / f"{SETUP}.md"
    linked.symlink_to("nowhere")
    # also where it came between the look and the writing
    for names in (seen, user.look()):
        assert bare_names.put(user.home, user.environ, names) == []
    assert user.states() == {SETUP: "theirs", REPORT: "theirs"}
    assert bare_names.take_away(user.home) == ([], [])
    assert mine.read_bytes() == b"my own\r\n" and linked.is_symlink()
    assert len(list(user.commands.iterdir())) == 2


def test_a_file_that_was_changed_since_stays(user: User) -> None:
    user.commands.mkdir(parents=True)
    written = bare_names.put(user.home, user.environ, user.look())
    Path(written[1]).write_text("mine now\n")
    assert user.states() == {SETUP: "ours", REPORT: "theirs"}
    assert bare_names.take_away(user.home) == (written[:1], written[1:])
    assert [path.name for path in user.commands.iterdir()] == [f"{REPORT}.md"]


def test_a_folder_of_the_persons_stays_empty_as_it_was(user: User) -> None:
    user.commands.mkdir()
    bare_names.put(user.home, user.environ, user.look())
    bare_names.take_away(user.home)
    assert list(user.commands.iterdir()) == []


def test_a_moved_checkout_is_mended_by_the_next_set_up(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    bare_names.put(user.home, user.environ, user.look())
    elsewhere = user.folder / "elsewhere"
    for name in bare_names.NAMES:
        (elsewhere / "commands" / name).mkdir(parents=True)
        (elsewhere / "commands" / name / "SKILL.md").write_text("---\nname: x\n---\n${CLAUDE_PLUGIN_ROOT}/y\n")
    monkeypatch.setattr(bare_names, "_our_root", lambda config: elsewhere)
    assert len(bare_names.put(user.home, user.environ, user.look())) == 2
    assert f"{elsewhere}/y" in (user.commands / f"{REPORT}.md").read_text()
    assert len(bare_names.take_away(user.home)[0]) == 2


def test_the_hook_knows_the_mark() -> None:
    text = (ROOT / "hooks" / "lib" / "report.py").read_text()
    assert f'MARK = "{bare_names.MARK}"' in text
