"""The context record, its form on the wire, and what the hooks can do with these files alone."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_telemetry.context import gitfiles, record, rules

HERE = Path(record.__file__).parent
FOR_HOOKS = ("rules", "gitfiles", "record", "configfile")
TEXTS = [name for name in record.FIELDS if name not in ("at_ns", "confidence")]
RECORDS = st.builds(
    record.ContextRecord, at_ns=st.integers(0, 2**63 - 1), confidence=st.floats(0, 1), **{name: st.text(max_size=20) for name in TEXTS}
)


def test_the_fields_are_these():
    assert record.FIELDS == (
        "session_id", "at_ns", "project", "branch", "feature", "chapter", "part", "step", "person", "directory", "spec_directory",
        "worktree", "feature_source", "chapter_source", "confidence", "hook", "record_id",
    )  # fmt: skip


def test_a_record_cannot_be_changed():
    with pytest.raises(AttributeError):
        record.ContextRecord().feature = "x"
    assert record.ContextRecord()._replace(step="plan").step == "plan"


def test_a_record_of_what_was_found():
    repository = gitfiles.NONE._replace(state="branch", branch="017-x\x07", project="book", directory="a/b", worktree="w")
    made = record.make("s", "PostToolUse", repository, rules.decide("017-x", prompt="/plan"), clean=rules.clean, person="ada")
    assert (made.branch, made.feature, made.feature_source, made.chapter, made.chapter_source) == ("017-x", "017-x", "branch", "", "")
    assert (made.project, made.directory, made.worktree) == ("book", "a/b", "w")
    assert (made.step, made.person, made.hook) == ("plan", "ada", "PostToolUse")
    assert made.confidence == 0.8
    assert made.at_ns > 1.7e18
    assert re.fullmatch("[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}", made.record_id)
    nothing = record.make("s", "h", gitfiles.NONE, rules.decide(), clean=rules.clean, project="named", at_ns=7)
    assert (nothing.confidence, nothing.project, nothing.at_ns) == (0.0, "named", 7)


@given(one=RECORDS, other=RECORDS)
def test_what_counts_as_a_change(one, other):
    assert one.same_context(one._replace(at_ns=1, hook="h", record_id="r", confidence=0.5))
    differing = {name for name in record.FIELDS if getattr(one, name) != getattr(other, name)}
    assert one.same_context(other) == (not differing - {"at_ns", "hook", "record_id", "confidence"})
    assert not one.same_context(None)
    assert record.ContextRecord.from_dict({**one.as_dict(), "of_a_later_version": 1}) == one


@given(records=st.lists(RECORDS, max_size=3))
def test_the_wire_form(records):
    logs = json.loads(record.to_otlp_json(records).decode("utf-8"))["resourceLogs"]
    assert logs[0]["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "sp-telemetry-context"}}]
    sent = logs[0]["scopeLogs"][0]["logRecords"]
    assert len(sent) == len(records)
    for log, one in zip(sent, records, strict=True):
        values = {attribute["key"]: attribute["value"] for attribute in log["attributes"]}
        assert log["timeUnixNano"] == str(one.at_ns)
        assert log["body"] == {"stringValue": "sp_telemetry.context"}
        assert values.pop("event.name") == {"stringValue": "sp_telemetry.context"}
        assert values.pop("session.id") == {"stringValue": one.session_id}
        assert values.pop("context.confidence") == {"doubleValue": one.confidence}
        rest = set(record.FIELDS) - {"session_id", "at_ns", "confidence"}
        assert values == {f"context.{name}": {"stringValue": getattr(one, name)} for name in rest}


def test_what_is_not_text_does_not_break_the_wire():
    assert b"a?b" in record.to_otlp_json([record.ContextRecord(person="a\udcffb")])


def test_ids_are_unique():
    assert len({record.new_id() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("name", FOR_HOOKS)
def test_hooks_may_run_an_old_python(name):
    source = (HERE / f"{name}.py").read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"os", "time", "json", "collections", "itertools", "unicodedata"}
    annotations = [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)]
    assert not [node for node in annotations if isinstance(node.right, ast.Constant) and node.right.value is None]


def test_hooks_need_nothing_but_the_standard_library(tmp_path):
    lines = (
        "import sys", f"sys.path.insert(0, {str(HERE)!r})", "sys.dont_write_bytecode = True", "before = set(sys.modules)",
        f"import {', '.join(FOR_HOOKS)}",
        f"found = gitfiles.read({str(tmp_path)!r})",
        "made = record.make('s', 'h', found, rules.decide('017-x', prompt='/plan'), clean=rules.clean)",
        f"configfile.read({str(tmp_path)!r})",
        "loaded = set(sys.modules) - before",
        "print(made.feature, sorted(m for m in loaded if m.partition('.')[0] not in sys.stdlib_module_names))",
        "print(sorted(loaded & {'dataclasses', 'typing', 're', 'uuid', 'inspect', 'subprocess', 'tomllib', 'json'}))",
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-S", "-I", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"017-x {sorted(FOR_HOOKS)!r}", "[]"]
