"""What the hooks cost: each beside a bare start of Python, and a turn of the real client with the plugin on and off.

    python tests/bench/bench_hooks.py [--runs 60] [--pairs 20] [--client 2.1.330] [--python /usr/bin/python3]

The runs of what is compared are interleaved, so that a busy moment of the machine falls on all of them. Promised: a hook within 2.5 times
`python3 -c pass` at p50 and p95, a turn with four tool calls within 30 ms at the median of the pairs' differences.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, executable  # noqa: E402
from tests.unit.test_hooks import Session, book  # noqa: E402


def milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def hooks(scratch: Path, python: str, runs: int) -> None:
    with OtlpRecorder(grpc=False) as otlp:
        repository = book(scratch / "book")
        port = int(otlp.http_url.rpartition(":")[2])
        path = f"{Path(python).parent}:/usr/bin:/bin"
        session = Session(scratch, repository, port, more={"PATH": path})
        away = Session(scratch / "away", repository, more={"PATH": path})
        session.start()
        away.start()
        part = repository / "manuscript" / "05-part"
        turn = iter(range(1_000_000))

        def moved(of: Session) -> None:
            of.edit(part / ("33-agents" if next(turn) % 2 else "34-costs") / "text.md")

        cases: dict[str, Callable[[], object]] = {
            "python3 -c pass": lambda: subprocess.run([python, "-c", "pass"], stdin=subprocess.DEVNULL, env=session.environment),
            "UserPromptSubmit, nothing new": lambda: session.hook("prompt", prompt="go on"),
            "PostToolUse Edit, same chapter": lambda: session.edit(part / "33-agents" / "text.md"),
            "PostToolUse Edit, new chapter, sent": lambda: moved(session),
            "PostToolUse Edit, new chapter, spooled": lambda: moved(away),
            "PostToolUse Bash, HEAD as it was": lambda: session.hook("bash", tool_name="Bash"),
            "SessionStart": session.start,
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for work in cases.values():
            work()
        for _ in range(runs):
            for name, work in cases.items():
                if name == "PostToolUse Edit, same chapter":
                    work()  # the case before may have moved the chapter
                times[name].append(milliseconds(work))
    bare = times["python3 -c pass"]
    print(f"\nHooks, {runs} runs each, {subprocess.check_output([python, '-V'], text=True).strip()} at {Path(python).name}\n")
    print(f"{'':<40} {'p50 ms':>8} {'p95 ms':>8} {'p50':>7} {'p95':>7}")
    for name, values in times.items():
        p50, p95 = percentile(values, 0.5), percentile(values, 0.95)
        print(f"{name:<40} {p50:>8.1f} {p95:>8.1f} {p50 / percentile(bare, 0.5):>6.2f}x {p95 / percentile(bare, 0.95):>6.2f}x")


def turns(scratch: Path, version: str, pairs: int) -> None:
    clone = scratch / "the clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv", "tests", "docs", ".*_cache", ".hypothesis"))
    repository = book(scratch / "turns")
    text = repository / "manuscript" / "05-part" / "33-agents" / "text.md"
    script = Script().on(
        "four tools",
        Reply("1", ToolUse("Read", file_path=str(text))),
        Reply("2", ToolUse("Bash", command="true")),
        Reply("3", ToolUse("Write", file_path=str(text.with_name("new.md")), content="new\n")),
        Reply("4", ToolUse("Bash", command="git log -1")),
        Reply("done"),
    )
    with MessagesApi(script) as api, OtlpRecorder(grpc=False) as otlp:
        clients = {}
        for name in ("off", "on"):
            clients[name] = ClaudeCode(executable(version), scratch / name, api.url)
        for arguments in (["marketplace", "add", str(clone)], ["install", "sp-telemetry@sp-telemetry"]):
            command = [clients["on"].executable, "plugin", *arguments]
            subprocess.run(command, env=clients["on"].environment(), check=True, capture_output=True)
        env = {"SP_TELEMETRY_HOME": str(scratch / "home"), "SP_TELEMETRY_OTLP_HTTP_PORT": otlp.http_url.rpartition(":")[2]}

        def turn(name: str) -> tuple[float, float]:
            text.with_name("new.md").unlink(missing_ok=True)
            spent = []
            whole = milliseconds(lambda: spent.append(clients[name].run("four tools", cwd=repository, env=env).result["duration_ms"]))
            return whole, spent[0]

        for name in ("off", "on"):
            turn(name)
        differences: list[tuple[float, float]] = []
        for number in range(pairs):
            order = ("off", "on") if number % 2 else ("on", "off")
            took = {name: turn(name) for name in order}
            differences.append((took["on"][0] - took["off"][0], took["on"][1] - took["off"][1]))
        sent = sum(json.loads(request.body)["resourceLogs"] != [] for request in otlp.of("logs"))
    print(f"\nA turn of Claude Code {version} with four tool calls, plugin on against off, {pairs} pairs ({sent} records sent)\n")
    for column, name in enumerate(("whole process", "the turn itself (duration_ms)")):
        values = [pair[column] for pair in differences]
        low, high = percentile(values, 0.25), percentile(values, 0.75)
        print(f"{name:<40} median {statistics.median(values):+.0f} ms   (quartiles {low:+.0f}, {high:+.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--client", default="2.1.330")
    parser.add_argument("--python", default=shutil.which("python3"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        hooks(Path(scratch), arguments.python, arguments.runs)
        if arguments.pairs:
            turns(Path(scratch), arguments.client, arguments.pairs)


if __name__ == "__main__":
    main()
