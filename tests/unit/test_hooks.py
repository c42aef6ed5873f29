"""What the hooks record, and when: the real scripts, run as hooks.json has it, with a real receiver and real repositories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.client import OtlpRecorder
from tests.conftest import ROOT

pytestmark = [pytest.mark.checkout, pytest.mark.needs("sh", "git")]

HOOKS = json.loads((ROOT / "hooks" / "hooks.json").read_text())["hooks"]
NOBODY = 1  # a port that nobody listens on


def command_of(what: str) -> list[str]:
    """The command of hooks.json that ends in this word, with the client's placeholder filled in."""
    for entries in HOOKS.values():
        for hook in (hook for entry in entries for hook in entry["hooks"]):
            if hook["args"][-1] == what:
                return [part.replace("${CLAUDE_PLUGIN_ROOT}", str(ROOT)) for part in (hook["command"], *hook["args"])]
    raise KeyError(what)


@dataclass
class Session:
    """A session as its hooks see it: an installation, a directory, an environment with nothing of the machine's own."""

    scratch: Path
    cwd: Path
    port: int = NOBODY
    id: str = "11111111-2222-4333-8444-555555555555"
    more: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.scratch / "sp home"

    @property
    def data(self) -> Path:
        return self.scratch / "plugin data"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.scratch),
            "SP_TELEMETRY_HOME": str(self.home),
            "SP_TELEMETRY_OTLP_HTTP_PORT": str(self.port),
            "SP_TELEMETRY_CLICKHOUSE_PORT": str(NOBODY),
            "CLAUDE_PLUGIN_DATA": str(self.data),
            "CLAUDE_CODE_SESSION_ID": self.id,
            "SP_TELEMETRY_HOOKS": "wait",  # test_hooks_background.py is about those that don't
            "SP_TELEMETRY_HOOK_PATIENCE": "20",  # a loaded machine; those tests that are about the bound set it to 1
            **self.more,
        }

    def raw(self, what: str, stdin: bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """A hook with exactly these bytes. Exit 0 and a silent stderr hold whatever happens, so they are checked here."""
        cwd = options.pop("cwd", self.cwd)
        done = subprocess.run(command_of(what), input=stdin, env=self.environment, cwd=cwd, capture_output=True, timeout=10, **options)
        assert (done.returncode, done.stderr) == (0, b"")
        return done

    def hook(self, what: str, **fields: Any) -> dict[str, Any]:
        """A hook as the client calls it; what it answers."""
        call = {"session_id": self.id, "cwd": str(self.cwd), "hook_event_name": what, **fields}
        out = self.raw(what, json.dumps(call).encode(), cwd=call["cwd"] if Path(call["cwd"]).is_dir() else "/")
        return json.loads(out.stdout) if out.stdout else {}

    def start(self, source: str = "startup") -> dict[str, Any]:
        return self.hook("session", source=source)

    def edit(self, path: Path | str, tool: str = "Edit", **fields: Any) -> None:
        self.hook("edit", tool_name=tool, tool_input={"file_path": str(path)}, **fields)

    def spooled(self) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in sorted((self.home / "spool").glob("*.json"))]

    def counters(self) -> dict[str, int]:
        file = self.home / "hooks" / "counters.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def log(self) -> str:
        file = self.home / "logs" / "hooks.log"
        return file.read_text() if file.exists() else ""


def records(otlp: OtlpRecorder, least: int = 0) -> list[dict[str, Any]]:
    """What arrived, with the attributes' names without their prefix; waits until they are at least so many."""
    end = time.monotonic() + 20
    while len(found := _records(otlp)) < least and time.monotonic() < end:
        time.sleep(0.02)
    return found


def _records(otlp: OtlpRecorder) -> list[dict[str, Any]]:
    found = []
    for request in otlp.of("logs"):
        for resource in json.loads(request.body)["resourceLogs"]:
            for record in resource["scopeLogs"][0]["logRecords"]:
                named = {a["key"].removeprefix("context."): next(iter(a["value"].values())) for a in record["attributes"]}
                found.append(named | {"at_ns": int(record["timeUnixNano"])})
    return found


def git(cwd: Path, *args: str) -> str:
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "protocol.file.allow=always"]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    return subprocess.run(["git", *identity, *args], cwd=cwd, env=env, check=True, capture_output=True, text=True).stdout.strip()


def book(path: Path, branch: str = "017-usage-data-collection") -> Path:
    path.mkdir(parents=True)
    git(path, "init", "-qb", "main")
    for name in ("manuscript/05-part/33-agents/text.md", "manuscript/05-part/34-costs/text.md", "specs/017-usage-data-collection/spec.md"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("text\n")
    git(path, "add", ".")
    git(path, "commit", "-qm", "start")
    git(path, "switch", "-qc", branch)
    return path


@pytest.fixture
def otlp() -> Iterator[OtlpRecorder]:
    with OtlpRecorder(grpc=False) as recorder:
        yield recorder


@pytest.fixture
def session(tmp_path: Path, otlp: OtlpRecorder) -> Session:
    return Session(tmp_path, book(tmp_path / "ein Büch lein"), int(otlp.http_url.rpartition(":")[2]))


def test_a_session_is_recorded_once_and_again_only_when_it_changes(session: Session, otlp: OtlpRecorder) -> None:
    session.start()
    for _ in range(3):
        session.hook("prompt", prompt="go on")
        session.hook("bash", tool_name="Bash", tool_input={"command": "ls"})
        session.hook("cwd", old_cwd="/", new_cwd=str(session.cwd))
    (only,) = records(otlp, 1)
    assert only["feature"] == "017-usage-data-collection"
    assert (only["feature_source"], only["spec_directory"]) == ("branch", "specs/017-usage-data-collection")
    assert (only["session.id"], only["branch"], only["hook"]) == (session.id, "017-usage-data-collection", "session")
    assert only["project"] == "ein Büch lein"
    assert session.counters()["delivered"] == 1
    assert session.spooled() == []
    assert session.log() == ""


def test_a_branch_switched_by_bash_is_seen_also_when_the_command_failed(session: Session, otlp: OtlpRecorder) -> None:
    session.start()
    git(session.cwd, "switch", "-qc", "018-cost-reports")
    session.hook("bash", tool_name="Bash", hook_event_name="PostToolUseFailure")
    git(session.cwd, "switch", "-q", "--detach")
    session.hook("bash", tool_name="Bash")
    assert [(one["branch"], one["feature"]) for one in records(otlp, 3)] == [
        ("017-usage-data-collection", "017-usage-data-collection"), ("018-cost-reports", "018-cost-reports"), ("", ""),
    ]


def test_bash_that_moved_nothing_starts_no_python(session: Session) -> None:
    session.start()
    (session.data / "python").write_text(str(session.scratch / "python") + "\n")
    fake = session.scratch / "python"
    fake.write_text(f"#!/bin/sh\necho started >>'{session.scratch}/started'\n")
    fake.chmod(0o755)
    started = session.scratch / "started"
    session.hook("bash", tool_name="Bash")
    assert not started.exists()
    session.hook("bash", tool_name="Bash", cwd=str(session.cwd / "manuscript"))  # Bash calls `cd`
    assert started.read_text().count("started") == 1
    git(session.cwd, "switch", "-q", "main")
    session.hook("bash", tool_name="Bash")
    assert started.read_text().count("started") == 2


def test_the_file_edited_last_says_the_chapter_until_the_branch_changes(session: Session, otlp: OtlpRecorder) -> None:
    part = session.cwd / "manuscript" / "05-part"
    session.start()
    session.edit(part / "33-agents" / "text.md")
    session.edit(part / "33-agents" / "more.md", tool="Write")
    session.edit(part / "34-costs" / "text.md")
    session.edit(session.cwd / "README.md")
    session.hook("edit", tool_name="NotebookEdit", tool_input={"notebook_path": str(part / "33-agents" / "plot.ipynb")})
    git(session.cwd, "switch", "-q", "main")
    session.hook("prompt", prompt="go on")
    chapters = [(one["chapter"], one["chapter_source"]) for one in records(otlp, 5)]
    assert chapters == [("", ""), ("33-agents", "file"), ("34-costs", "file"), ("33-agents", "file"), ("", "")]
    assert json.loads((session.home / "hooks" / f"{session.id}.json").read_text())["told"] == {}


def test_a_step_lasts_until_the_next_command_that_starts_one(session: Session, otlp: OtlpRecorder) -> None:
    session.start()
    for prompt in ("/speckit.plan the collector", "go on", "/commit", "/telemetry-report cost", "/sp:tasks"):
        session.hook("prompt", prompt=prompt)
    session.hook("edit", tool_name="Skill", tool_input={"skill": "speckit-implement", "args": "all"})
    session.hook("edit", tool_name="Skill", tool_input={"skill": "something-else"})
    session.start("compact")
    session.start("clear")
    assert [one["step"] for one in records(otlp, 5)] == ["", "plan", "tasks", "implement", ""]


def test_a_subagent_counts_for_its_session_but_its_directory_does_not(session: Session, otlp: OtlpRecorder, tmp_path: Path) -> None:
    session.start()
    git(session.cwd, "worktree", "add", "-qb", "018-cost-reports", str(tmp_path / "beside"))
    beside = tmp_path / "beside"
    session.edit(beside / "manuscript/05-part/34-costs/text.md", cwd=str(beside), agent_id="a1", agent_type="Explore")
    session.hook("bash", tool_name="Bash", cwd=str(beside), agent_id="a1")
    assert [(one["branch"], one["chapter"]) for one in records(otlp, 2)] == [
        ("017-usage-data-collection", ""), ("017-usage-data-collection", "34-costs"),
    ]


def test_a_session_that_moves_to_a_worktree_is_seen_there(session: Session, otlp: OtlpRecorder, tmp_path: Path) -> None:
    session.start()
    git(session.cwd, "worktree", "add", "-qb", "018-cost-reports", str(tmp_path / "beside"))
    session.hook("edit", tool_name="EnterWorktree", tool_input={}, cwd=str(tmp_path / "beside"))
    assert [(one["branch"], one["worktree"]) for one in records(otlp, 2)][-1] == ("018-cost-reports", "beside")


def rebasing(path: Path) -> Path:
    repository = book(path)
    for branch, text in (("main", "theirs"), ("017-usage-data-collection", "ours")):
        git(repository, "switch", "-q", branch)
        (repository / "specs/017-usage-data-collection/spec.md").write_text(text)
        git(repository, "commit", "-qam", text)
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "rebase", "-q", "main")
    return repository


def detached(path: Path) -> Path:
    repository = book(path)
    git(repository, "switch", "-q", "--detach")
    return repository


def bare(path: Path) -> Path:
    path.mkdir()
    git(path, "init", "-q", "--bare", "-b", "017-usage-data-collection")
    return path


def submodule(path: Path) -> Path:
    book(path / "inner")
    outer = book(path / "outer", "018-cost-reports")
    git(outer, "submodule", "--quiet", "add", str(path / "inner"), "vendored")
    git(outer / "vendored", "switch", "-qc", "019-in-the-submodule")
    return outer / "vendored"


def plain(path: Path) -> Path:
    (path / "chapters" / "07-plain").mkdir(parents=True)
    return path / "chapters" / "07-plain"


def gone(path: Path) -> Path:
    return path / "gone"


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (rebasing, {"branch": "017-usage-data-collection", "feature": "017-usage-data-collection"}),
        (detached, {"branch": "", "feature": "", "chapter": ""}),
        (bare, {"branch": "017-usage-data-collection", "directory": ""}),
        (submodule, {"branch": "019-in-the-submodule", "feature": "019-in-the-submodule"}),
        (plain, {"branch": "", "feature": "", "chapter": "07-plain", "chapter_source": "cwd"}),
        (gone, {"branch": "", "feature": "", "chapter": ""}),
    ],
)
def test_every_kind_of_place(place: Any, expected: dict[str, str], tmp_path: Path, otlp: OtlpRecorder) -> None:
    session = Session(tmp_path, place(tmp_path / "pläce"), int(otlp.http_url.rpartition(":")[2]))
    session.start()
    (only,) = records(otlp, 1)
    assert {name: only[name] for name in expected} == expected


def test_the_repositorys_rules_and_the_persons_name_are_used(session: Session, otlp: OtlpRecorder) -> None:
    (session.cwd / ".claude").mkdir()
    (session.cwd / ".claude/telemetry.toml").write_text('project = "The Book"\n[step]\nnames = ["draft"]\n')
    session.home.mkdir()
    (session.home / "config.toml").write_text('# made by set-up\nautostart = false\nperson = "Ada Lövelace"\n')
    session.start()
    session.hook("prompt", prompt="/draft it")
    assert [(one["project"], one["person"], one["step"]) for one in records(otlp, 2)] == [
        ("The Book", "Ada Lövelace", ""), ("The Book", "Ada Lövelace", "draft"),
    ]


def test_the_running_servers_own_port_counts(session: Session, otlp: OtlpRecorder) -> None:
    session.home.mkdir()
    (session.home / "server.json").write_text(json.dumps({"pid": 1, "ports": {"otlp_http": session.port}}))
    session.port = NOBODY
    session.start()
    assert len(records(otlp, 1)) == 1


def test_a_large_repository_costs_no_more(session: Session, otlp: OtlpRecorder) -> None:
    (session.cwd / ".git/packed-refs").write_text("# pack-refs\n" + "".join(f"{n:040x} refs/heads/b{n}\n" for n in range(60_000)))
    for number in range(3000):
        (session.cwd / f"specs/{number % 900 + 100}-s{number}").mkdir(parents=True)
    session.start()
    begun = time.monotonic()
    session.hook("prompt", prompt="/plan")
    assert time.monotonic() - begun < 0.3
    assert records(otlp, 2)[-1]["step"] == "plan"


def test_files_are_private_to_their_owner(session: Session) -> None:
    session.port = NOBODY
    session.start()
    modes = {path.name: path.stat().st_mode & 0o077 for path in (session.home, *session.home.rglob("*"))}
    assert len(modes) > 5
    assert set(modes.values()) == {0}


def test_a_prompt_that_names_a_chapter_sets_it_until_an_edit_says_otherwise(session: Session, otlp: OtlpRecorder) -> None:
    session.start()
    session.hook("prompt", prompt="Secretly shorten chapter 34, and chapter 99 is not there")
    assert len(records(otlp, 1)) == 1  # two names, even where one leads nowhere, decide nothing
    session.hook("prompt", prompt="Secretly shorten chapter 34.")
    session.hook("prompt", prompt="go on")
    session.edit(session.cwd / "manuscript/05-part/33-agents/text.md")
    session.hook("prompt", prompt="and now chapter 33")  # an edit has said so already, and is surer
    session.hook("prompt", prompt="then @manuscript/05-part/34-costs/text.md")
    git(session.cwd, "switch", "-qc", "018-cost-reports")
    session.hook("bash", tool_name="Bash")
    assert [(one["chapter"], one["chapter_source"], one["confidence"]) for one in records(otlp, 5)] == [
        ("", "", 1.0), ("34-costs", "prompt", 0.5), ("33-agents", "file", 0.95), ("34-costs", "prompt", 0.5), ("", "", 0.8),
    ]
    kept = "".join(path.read_text(errors="replace") for path in session.home.rglob("*") if path.is_file())
    sent = b"".join(request.body for request in otlp.requests)
    assert "ecretly" not in kept and b"ecretly" not in sent
