"""Makes the recordings again: the real client, a stub of the model, and everything it exports, kept byte for byte.

    python tests/recordings/record.py [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.client import ClaudeCode, MessagesApi, NeutralHomes, OtlpRecorder, Run, executable  # noqa: E402
from tests.client.neutral import NoNamespaces  # noqa: E402
from tests.recordings import book, clean, contexts, reading  # noqa: E402

HERE = Path(__file__).resolve().parent
HOOKS = ("SessionStart", "UserPromptSubmit", "PostToolUse", "PostToolUseFailure", "CwdChanged", "SubagentStart")
EVERYTHING = {name: "1" for name in (
    "OTEL_LOG_USER_PROMPTS", "OTEL_LOG_ASSISTANT_RESPONSES", "OTEL_LOG_TOOL_DETAILS", "OTEL_LOG_TOOL_CONTENT",
    "OTEL_LOG_RAW_API_BODIES")}
PERSON = {"author": "ada", "grace": "grace"}
MODELS = {
    "2.1.330": book.Models("claude-opus-5-5", "claude-sonnet-5-5"),
    "2.1.197": book.Models("claude-opus-4-8", "claude-sonnet-5"),
}
SHORT = ("switch-branch", "subagents")


@dataclass(frozen=True)
class Recording:
    name: str
    version: str
    protocol: str
    only: tuple[str, ...] | None = None
    switches: tuple[tuple[str, str], ...] = ()
    cache: str = "5m"
    more: tuple[str, ...] = ()


RECORDINGS = [
    Recording("book-2.1.330-http-protobuf", "2.1.330", "http/protobuf", cache="1h"),
    Recording("book-2.1.330-http-json", "2.1.330", "http/json", SHORT),
    Recording("book-2.1.330-grpc", "2.1.330", "grpc", SHORT),
    Recording("book-2.1.197-http-protobuf", "2.1.197", "http/protobuf"),
    Recording("book-2.1.197-grpc", "2.1.197", "grpc", SHORT, cache="1h"),
    # A short system prompt and few tools: the raw bodies are about the book, not about the client.
    Recording("book-2.1.330-everything", "2.1.330", "http/protobuf", ("failing-tools", "detached"),
              tuple(EVERYTHING.items()), more=("--system-prompt", "You help to write a book.",
                                               "--tools", "Bash,Read,Edit")),
]


class Recorder:
    """One recording under way: the homes, the stub, the recorder, and the sessions as they end."""

    def __init__(self, recording: Recording, homes: NeutralHomes, otlp: OtlpRecorder) -> None:
        self.recording, self.homes, self.otlp = recording, homes, otlp
        self.checkouts: dict[str, str] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.api = MessagesApi(book.script(recording.cache), observe=self.branch)
        hook = {"hooks": [{"type": "command", "command": "record-hook", "timeout": 10}]}
        settings = {"hooks": {event: [hook] for event in HOOKS}}
        self.clients = {}
        for user in PERSON:
            home = homes.directory / user
            self.clients[user] = ClaudeCode(homes.client, home, self.api.url, settings=settings, prefix=homes.enter(),
                                            inside=f"/home/{user}",
                                            path=f"/home/{user}/.local/bin:/usr/local/bin:/usr/bin:/bin")
            tool = home / ".local" / "bin" / "record-hook"
            tool.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / "hook.py", tool)
            tool.chmod(0o755)
        homes.hand_over()

    def outside(self, path: str) -> Path:
        return self.homes.directory / Path(path).relative_to("/home")

    def branch(self, request: Any) -> dict[str, Any]:
        """The branch checked out when the request came: the truth that attribution is tested against."""
        top = self.outside(self.checkouts[request.session_id])
        git = top / ".git"
        if git.is_file():  # a worktree
            git = self.outside(git.read_text().removeprefix("gitdir:").strip())
        head = (git / "HEAD").read_text().strip()
        return {"git_branch": head.removeprefix("ref: refs/heads/") if head.startswith("ref:") else None}

    def play(self) -> None:
        wanted = [session for session in book.sessions(MODELS[self.recording.version])
                  if not self.recording.only or session.scenario in self.recording.only]
        by_name = {session.scenario: session for session in wanted}
        beside = {session.beside for session in wanted}
        for session in wanted:
            if session.scenario in beside:
                continue
            self.prepare(session)
            pair = [session] + ([by_name[session.beside]] if session.beside else [])
            with ThreadPoolExecutor(len(pair)) as pool:
                list(pool.map(lambda each: self.turns(each, each.turns), pair))
        for session in wanted:
            if session.later:
                self.prepare(session)
                self.turns(session, session.later)

    def prepare(self, session: book.Session) -> None:
        def git(*args: str) -> None:
            self.homes.run("git", *args, user="author", cwd=book.BOOK)

        if session.before:
            git("add", "-A")
            git("commit", "-q", "--allow-empty", "-m", "Save the work")
            git(*session.before)
        if session.cwd == book.WORKTREE and not self.outside(book.WORKTREE).exists():
            git("worktree", "add", "-q", book.WORKTREE, book.F18)

    def turns(self, session: book.Session, turns: tuple[book.Turn, ...]) -> None:
        entry = self.sessions.get(session.scenario)
        if entry is None:
            entry = {"session_id": str(uuid.uuid4()), "scenario": session.scenario, "user": PERSON[session.user],
                     "cwd": session.cwd, "runs": []}
            self.sessions[session.scenario] = entry
            self.checkouts[entry["session_id"]] = session.cwd
        for turn in turns:
            resumed = bool(entry["runs"])
            env = self.otlp.environment(self.recording.protocol, **dict(self.recording.switches),
                                        OTEL_RESOURCE_ATTRIBUTES=f"enduser.id={PERSON[session.user]}")
            run = self.clients[session.user].run(
                turn.prompt, cwd=session.cwd, env=env | turn.env, model=session.model, more=self.recording.more,
                **({"resume": entry["session_id"]} if resumed else {"session_id": entry["session_id"]}))
            if run.session_id != entry["session_id"]:
                raise SystemExit(f"{session.scenario}: the client ended without its session: {run.stderr[-800:]} {run.stdout[-800:]}")
            entry["runs"].append(_run(run, resumed))


def _run(run: Run, resumed: bool) -> dict[str, Any]:
    keep = ("total_cost_usd", "usage", "modelUsage", "num_turns", "is_error", "subtype", "stop_reason", "api_error_status",
            "result", "duration_ms", "duration_api_ms")
    return {"args": run.args, "resumed": resumed, "exit_code": run.returncode,
            **{key: run.result[key] for key in keep if key in run.result}}


def make(recording: Recording) -> Path:
    """Plays the book and writes the recording's folder anew."""
    place = Path(tempfile.mkdtemp(prefix="recording-"))
    try:
        homes = NeutralHomes(place, executable(recording.version), tuple(PERSON))
        book.build(homes)
        with OtlpRecorder() as otlp:
            recorder = Recorder(recording, homes, otlp)
            with recorder.api:
                recorder.play()
        target = HERE / recording.name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        write(target, recorder)
        return target
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write(target: Path, recorder: Recorder) -> None:
    requests = []
    for number, request in enumerate(recorder.otlp.requests):
        name = f"{number:04}.{request.signal}.{request.extension}"
        (target / name).write_bytes(clean.export(request.signal, request.extension, request.body))
        requests.append({"file": name, "signal": request.signal, "content_type": request.content_type,
                         "received_at": request.received_at})
    hooks: list[str] = []
    for user in PERSON:
        log = recorder.homes.directory / user / ".hooks.jsonl"
        hooks += log.read_text().splitlines() if log.exists() else []
        projects = recorder.homes.directory / user / ".claude" / "projects"
        for source in sorted(projects.rglob("*.jsonl")):
            copy = target / "transcripts" / source.relative_to(projects)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(clean.transcript(source.read_text()))
    hooks.sort(key=lambda line: json.loads(line)["at_ns"])
    (target / "hooks.jsonl").write_text("".join(line + "\n" for line in hooks))
    order = [session.scenario for session in book.sessions(MODELS[recorder.recording.version])]
    log = [{key: value for key, value in asdict(line).items() if key != "observed"} | line.observed for line in recorder.api.log]
    document = {
        "name": recorder.recording.name,
        "client_version": recorder.recording.version,
        "protocol": recorder.recording.protocol,
        "switches": dict(recorder.recording.switches),
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "sessions": sorted(recorder.sessions.values(), key=lambda session: order.index(session["scenario"])),
        "api_log": log,
        "requests": requests,
    }
    (target / "recording.json").write_text(_readable(document))


def _readable(document: dict[str, Any]) -> str:
    """JSON with one line for each entry of the long lists: small, and a difference can be read."""
    lines = []
    for key, value in document.items():
        entries = value if isinstance(value, list) else None
        text = json.dumps(value) if entries is None else "[\n  " + ",\n  ".join(map(json.dumps, entries)) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="make this one alone")
    wanted = parser.parse_args().only
    if wanted and wanted not in {recording.name for recording in RECORDINGS}:
        parser.error(f"no recording {wanted}; there are {', '.join(recording.name for recording in RECORDINGS)}")
    try:
        for recording in RECORDINGS:
            if wanted in (None, recording.name):
                target = make(recording)
                contexts.write(reading.Recording(target))
                size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
                print(f"{recording.name}: {len(list(target.glob('*.*.*')))} exports, {size / 1024:.0f} KiB")
    except NoNamespaces as reason:
        print(reason, file=sys.stderr)
        return 2
    left = clean.leaks(HERE, ROOT)
    for line in left:
        print(line, file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
