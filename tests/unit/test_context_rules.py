"""Which feature, chapter, part and step the rules find, and that they find nothing where nothing is said."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_telemetry.context import rules

SPECS = ("specs/017-usage-data-collection", "specs/018-cost-reports")


@pytest.mark.parametrize(
    ("branch", "feature"),
    [
        ("017-usage-data-collection", "017-usage-data-collection"),
        ("feature/017-usage", "017-usage"),
        ("ada/017-usage", "017-usage"),
        ("worktree-017-usage", "017-usage"),
        ("017-2fa-login", "017-2fa-login"),
        ("1017-usage", "1017-usage"),
        ("017-größe-der-本", "017-größe-der-本"),
        ("20260319-143022-user-auth", "20260319-143022-user-auth"),
        ("main", ""), ("master", ""), ("develop", ""), ("Main", ""), ("HEAD", ""), ("", ""),
        ("17-usage", ""), ("017", ""), ("017-", ""), ("usage-017", ""), ("2024-01-15-hotfix", ""), ("release/2024-01", ""),
        ("a/b/017-usage", ""), ("x017-usage", ""), ("chapter-33-agents", ""),
    ],
)  # fmt: skip
def test_feature_of_a_branch(branch, feature):
    found = rules.decide(branch).feature
    assert (found.value, found.source) == (feature, "branch" if feature else "")
    assert (found.confidence > 0) == bool(feature)


def test_number_and_name():
    assert rules.feature_number("017-usage-data-collection") == "017"
    assert rules.feature_name("017-usage-data-collection") == "usage-data-collection"
    assert (rules.feature_number("usage"), rules.feature_name("usage")) == ("", "usage")


def test_a_present_spec_directory_makes_it_certain():
    certain = rules.decide("017-usage-data-collection", spec_directories=SPECS)
    assert (certain.spec_directory.value, certain.feature.confidence) == ("specs/017-usage-data-collection", 1.0)
    alone = rules.decide("017-usage-data-collection")
    assert (alone.spec_directory.value, alone.feature.confidence) == ("", 0.8)


def test_a_second_branch_of_a_feature_counts_under_its_spec():
    found = rules.decide("ada/017-usage-fix", spec_directories=SPECS)
    assert (found.feature.value, found.spec_directory.value, found.feature.confidence) == ("017-usage-data-collection", SPECS[0], 0.8)


def test_two_specs_of_one_number_decide_nothing():
    found = rules.decide("017-usage", spec_directories=("specs/017-a", "specs/017-b"))
    assert (found.feature.value, found.spec_directory.value, found.feature.confidence) == ("017-usage", "", 0.5)


@pytest.mark.parametrize(
    ("path", "chapter", "part"),
    [
        ("book/05-part/33-agent-telemetry/chapter.md", "33-agent-telemetry", "05-part"),
        ("05-part/33-agent-telemetry/figures/tokens.md", "33-agent-telemetry", "05-part"),
        ("book/05-part/33-agent telemetry/01-section/a.md", "33-agent telemetry", "05-part"),
        ("part-5/chapter-33/a.md", "chapter-33", "part-5"),
        ("Teil/05-grundlagen/33-größen/a.md", "33-größen", "05-grundlagen"),
        ("chapters/33-agents/a.md", "33-agents", ""),
        ("src/Chapters/33-agents.adoc", "33-agents", ""),
        ("chapter-33-agents/a.md", "chapter-33-agents", ""),
        ("book/chapter33.md", "chapter33", ""),
        ("ch07/a.py", "ch07", ""),
        ("33-agents/a.md", "", ""), ("2024/05-12/07-03/a.md", "", ""), ("ch32v003/main.c", "", ""), ("src/charts/a.py", "", ""),
        ("05-part/notes.md", "", ""), ("README.md", "", ""), ("", "", ""), ("specs/017-x/01-a/02-b/c.md", "", ""),
        ("node_modules/01-a/02-b/c.md", "", ""), ("chapter/a.md", "", ""),
    ],
)  # fmt: skip
def test_chapter_of_a_file(path, chapter, part):
    found = rules.decide(files=[path])
    assert (found.chapter.value, found.part.value) == (chapter, part)
    assert found.chapter.source == ("file" if chapter else "")


@pytest.mark.parametrize(
    ("branch", "chapter"),
    [("chapter/33-agents", "33-agents"), ("chapter-33-agents", "33-agents"), ("ada/chapter-33-agents", "33-agents"),
     ("chapter-33", "chapter-33"), ("ch33", "ch33"), ("017-chapter-33", ""), ("main", "")],
)  # fmt: skip
def test_chapter_of_a_branch(branch, chapter):
    assert rules.decide(branch).chapter.value == chapter


def test_pitfall_25_finer_and_later_win():
    files = ["book/05-part/33-a/x.md", "book/05-part/34-b/x.md", "README.md"]
    everything = rules.decide("chapter-41-d", "book/06-part/40-c", files)
    assert (everything.chapter.value, everything.chapter.source) == ("34-b", "file")
    assert rules.decide("chapter-41-d", "book/06-part/40-c").chapter[:2] == ("40-c", "cwd")
    assert rules.decide("chapter-41-d", "").chapter[:2] == ("41-d", "branch")
    feature = rules.decide("017-a", "specs/019-c", ["specs/017-a/x.md", "specs/018-b/plan.md"], ("specs/018-b",))
    assert (feature.feature[:3], feature.spec_directory.value) == (("018-b", "spec_path", 1.0), "specs/018-b")
    assert rules.decide("017-a", "specs/019-c").feature[:2] == ("019-c", "cwd")
    assert rules.decide("017-a", "specs").feature[:2] == ("017-a", "branch")
    assert rules.decide("main", files=["specs/017-a.md"]).feature.value == ""


@pytest.mark.parametrize(
    ("prompt", "step"),
    [
        ("/specify what chapter 33 says", "specify"), ("/speckit.plan", "plan"), ("/sp.tasks\nall", "tasks"),
        ("/sp:implement now", "implement"),
        ("/speckit-validate", "validate"), ("/SPECIFY x", "specify"), ("/clear", ""), ("/plan/of/attack.md is a file", ""),
        ("plan it", ""), (" /plan", ""), ("/", ""), ("", ""), ("/my-secret-project", ""), ("/planning", ""),
    ],
)  # fmt: skip
def test_step_of_a_prompt(prompt, step):
    found = rules.step_of(prompt)
    assert (found.value, found.source) == (step, "prompt" if step else "")
    assert "chapter" not in repr(found) and "secret" not in repr(found)


def test_configuration_replaces_rules():
    config = {
        "project": "Das Buch",
        "feature": {"branches": ["team/*/{feature:any}-wip"], "specs": ["docs/specs"], "trunks": ["017-frozen"]},
        "chapter": {"paths": ["manuscript/{chapter:any}.*"], "branches": []},
        "step": {"names": ["draft"], "aliases": {"Write": "draft"}},
    }
    found = rules.decide("team/a/usage-wip", files=["manuscript/intro.md"], prompt="/write it", config=config)
    assert [finding.value for finding in found] == ["usage", "", "intro", "", "draft"]
    assert rules.decide("017-x", config=config).feature.value == ""
    assert rules.decide(files=["docs/specs/017-x/a.md"], config=config).spec_directory.value == "docs/specs/017-x"
    assert rules.project_of(config, "folder")[:2] == ("Das Buch", "config")
    assert rules.project_of({}, "folder")[:2] == ("folder", "repository")
    assert rules.project_of(None, "") == rules.NOTHING
    assert rules.decide("017-frozen", config=config).feature.why == "a trunk carries no feature"


WRONG = [None, [], {"feature": 3}, {"feature": {"branches": "x", "specs": [1]}}, {"step": {"aliases": [1]}, "project": 4}]


@pytest.mark.parametrize("config", WRONG)
def test_a_wrong_configuration_leaves_the_defaults(config):
    assert rules.decide("017-x", prompt="/plan", config=config).feature.value == "017-x"
    assert rules.step_of("/plan", config).value == "plan"


UNREADABLE = ["", "a//b", "/a", "{feature}{chapter}", "*-*", "{nothing}", "{feature", "a**", "/".join("a" * 17), "**/" * 3 + "a"]


@pytest.mark.parametrize("pattern", UNREADABLE)
def test_a_wrong_pattern_is_named_and_matches_nothing(pattern):
    assert rules.pattern_problem(pattern)
    assert rules.match(pattern, ["a", "a"]) is None


def test_the_default_patterns_are_right():
    tables = (rules.DEFAULTS["feature"]["branches"], rules.DEFAULTS["chapter"]["paths"], rules.DEFAULTS["chapter"]["branches"])
    assert not [pattern for table in tables for pattern in table if rules.pattern_problem(pattern)]


def test_names_are_cleaned():
    assert rules.decide("017-a\x1b[31mb\u202ec").feature.value == "017-a[31mbc"
    assert rules.decide("017-" + "x" * 5000).feature.value == "017-" + "x" * 4092  # cut where it is kept, behind redaction
    assert rules.clean("017-" + "x" * 5000) == "017-" + "x" * 196
    assert rules.decide("017-u\u0308ber").feature.value == rules.decide("017-\u00fcber").feature.value == "017-\u00fcber"
    assert rules.clean("a\udcffb") == "a\ufffdb"
    assert rules.clean(None) == ""


def test_hard_paths_take_no_time():
    deep = "/".join(["a-a"] * 2000)
    config = {"chapter": {"paths": ["**/*/**/*/{chapter}"] * 1000}}
    start = time.process_time()
    assert rules.decide(files=[deep], config=config).chapter.value == ""
    assert time.process_time() - start < 2


LIKELY = ["017-x", "05-part", "33-agents", "chapter-3", "specs", "chapters"]
ODD = ["*", "**", "{feature}", ".", "..", "\ud800", "\x00", "x" * 300]
WORDS = st.one_of(st.text(max_size=12), st.sampled_from(LIKELY + ODD))
PATHS = st.lists(WORDS, max_size=6).map("/".join)


@given(branch=PATHS, directory=PATHS, files=st.lists(PATHS, max_size=4), specs=st.lists(PATHS, max_size=3), prompt=PATHS.map("/".__add__))
def test_whatever_comes_in_what_comes_out_is_clean(branch, directory, files, specs, prompt):
    decision = rules.decide(branch, directory, files, specs, prompt)
    assert decision == rules.decide(branch, directory, files, specs, prompt)
    for finding in decision:
        assert 0 <= finding.confidence <= 1
        assert bool(finding.value) == bool(finding.source) == (finding.confidence > 0)
        assert rules.whole(finding.value) == finding.value
        assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in finding.value)
    assert re.fullmatch(r"|[0-9]{3,4}[-_].+|[0-9]{8}-[0-9]{6}-.+", decision.feature.value)
    assert decision.step.value in ("", *rules.DEFAULTS["step"]["names"])
    if decision.spec_directory.value:
        assert decision.spec_directory.value.rpartition("/")[2] == decision.feature.value


@given(feature=st.from_regex(r"\A[0-9]{3}-[a-z][a-z0-9-]{0,20}\Z"))
def test_a_feature_found_is_found_again(feature):
    assert rules.decide(feature).feature.value == feature
    assert rules.decide("main", files=[f"specs/{feature}/spec.md"]).feature.value == feature


@given(text=st.text(alphabet=st.characters(), max_size=400))
def test_cleaning_is_idempotent_and_short(text):
    once = rules.clean(text)
    assert rules.clean(once) == once
    assert len(once) <= 200
    once.encode("utf-8")


@given(pattern=st.lists(WORDS, max_size=5).map("/".join), path=PATHS)
def test_any_pattern_is_safe(pattern, path):
    rules.decide(path, path, [path], config={"feature": {"branches": [pattern]}, "chapter": {"paths": [pattern], "branches": [pattern]}})
