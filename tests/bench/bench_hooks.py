"""What the plugin costs: each hook beside a bare start of Python, a turn of the real client with the plugin on and off, and the time from
Enter to the text of `/telemetry-report cost`.

    python tests/bench/bench_hooks.py [--json hooks.json] [--quick] [--client 2.1.330] [--python /usr/bin/python3]

What is compared is run in turns, so that a busy moment of the machine falls on all of it; of a turn the pairs' differences count, with
the order changed from pair to pair. Promised: a hook within 2.5 times `python3 -c pass` at p50 and p95; a turn with four tool calls
within 30 ms in the median of 20 pairs; a report within 0.6 s.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "bench"), str(ROOT), str(ROOT / "src")]

import server as servers  # noqa: E402
import terminal as terminals  # noqa: E402

from sp_telemetry import resources  # noqa: E402
from sp_telemetry.setup.replay import Recording, replay  # noqa: E402
from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, executable  # noqa: E402
from tests.client.script import Request  # noqa: E402
from tests.unit.test_hooks import Session, book, command_of  # noqa: E402

RECORDED = "book-2.1.330-http-protobuf"


def milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def in_turns(cases: dict[str, Callable[[], object]], runs: int, before: dict[str, Callable[[], object]] | None = None) -> dict[str, list]:
    """The times of each case, all of them once in every round; `before` is done untimed."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for work in cases.values():
        work()
    for _ in range(runs):
        for name, work in cases.items():
            (before or {}).get(name, int)()
            times[name].append(milliseconds(work))
    return times


def hooks(scratch: Path, python: str, runs: int) -> dict[str, Any]:
    with OtlpRecorder(grpc=False) as otlp:
        repository = book(scratch / "book")
        port = int(otlp.http_url.rpartition(":")[2])
        path = f"{Path(python).parent}:/usr/bin:/bin"
        session = Session(scratch, repository, port, more={"PATH": path})
        away = Session(scratch / "away", repository, more={"PATH": path})
        quick = replace(session, more={"PATH": path, "SP_TELEMETRY_HOOKS": "1"})
        session.start()
        away.start()
        part = repository / "manuscript" / "05-part"
        turn = iter(range(1_000_000))

        def moved(of: Session) -> None:
            of.edit(part / ("33-agents" if next(turn) % 2 else "34-costs") / "text.md")

        same = "PostToolUse Edit, same chapter"
        cases: dict[str, Callable[[], object]] = {
            "python3 -c pass": lambda: subprocess.run([python, "-c", "pass"], stdin=subprocess.DEVNULL, env=session.environment),
            "UserPromptSubmit, what the client waits": lambda: quick.hook("prompt", prompt="go on"),
            "UserPromptSubmit, what is done": lambda: session.hook("prompt", prompt="go on"),
            same: lambda: session.edit(part / "33-agents" / "text.md"),
            "PostToolUse Edit, new chapter, sent": lambda: moved(session),
            "PostToolUse Edit, new chapter, spooled": lambda: moved(away),
            "PostToolUse Bash, HEAD as it was": lambda: session.hook("bash", tool_name="Bash"),
            "SessionStart": session.start,
        }
        times = in_turns(cases, runs, {same: cases[same]})  # the case before may have moved the chapter
    bare = times["python3 -c pass"]
    rows = []
    for name, values in times.items():
        at = [servers.percentile(values, share) for share in (0.5, 0.95)]
        rows.append({
            "name": name, "p50_ms": at[0], "p95_ms": at[1],
            "p50_times": at[0] / servers.percentile(bare, 0.5), "p95_times": at[1] / servers.percentile(bare, 0.95),
        })  # fmt: skip
    shown = [
        [r["name"], *(f"{r[key]:.1f}" for key in ("p50_ms", "p95_ms")), *(f"{r[key]:.2f}" for key in ("p50_times", "p95_times"))]
        for r in rows
    ]
    version = subprocess.check_output([python, "-c", "import sys; print(sys.version.split()[0])"], text=True).strip()
    heads = ["hook", "p50 ms", "p95 ms", "p50, bare = 1", "p95, bare = 1"]
    servers.table(f"Hooks, {runs} runs each, Python {version}", heads, shown)
    return {"runs": runs, "python": version, "rows": rows}


def with_plugin(client: ClaudeCode, clone: Path) -> None:
    for arguments in (["marketplace", "add", str(clone)], ["install", "sp-telemetry@sp-telemetry"]):
        subprocess.run([client.executable, "plugin", *arguments], env=client.environment(), check=True, capture_output=True)


def turns(scratch: Path, clone: Path, version: str, pairs: int) -> dict[str, Any]:
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
        clients = {name: ClaudeCode(executable(version), scratch / name, api.url) for name in ("off", "on")}
        with_plugin(clients["on"], clone)
        env = {"SP_TELEMETRY_HOME": str(scratch / "home"), "SP_TELEMETRY_OTLP_HTTP_PORT": otlp.http_url.rpartition(":")[2]}

        def turn(name: str) -> tuple[float, float]:
            text.with_name("new.md").unlink(missing_ok=True)
            spent = []
            whole = milliseconds(lambda: spent.append(clients[name].run("four tools", cwd=repository, env=env).result["duration_ms"]))
            return whole, spent[0]

        for name in ("off", "on"):
            turn(name)
        took: list[dict[str, tuple[float, float]]] = []
        for number in range(pairs):
            order = ("off", "on") if number % 2 else ("on", "off")
            took.append({name: turn(name) for name in order})
        sent = sum(json.loads(request.body)["resourceLogs"] != [] for request in otlp.of("logs"))
    rows = []
    for column, name in ((1, "the turn itself (duration_ms)"), (0, "the whole process")):
        differences = [pair["on"][column] - pair["off"][column] for pair in took]
        low, high = (servers.percentile(differences, share) for share in (0.25, 0.75))
        without = statistics.median(pair["off"][column] for pair in took)
        rows.append({"name": name, "off_ms": without, "median_ms": statistics.median(differences), "low_ms": low, "high_ms": high})
    shown = [[r["name"], f"{r['off_ms']:.0f}", f"{r['median_ms']:+.0f}", f"{r['low_ms']:+.0f} to {r['high_ms']:+.0f}"] for r in rows]
    heads = ["", "off, median ms", "on - off, median ms", "quartiles ms"]
    servers.table(f"A turn of Claude Code {version} with four tool calls, {pairs} pairs ({sent} records sent)", heads, shown)
    return {"pairs": pairs, "client": version, "rows": rows}


def echo(request: Request) -> Reply:
    """`said-3` to `number-3`, at once. In one word: the client moves the cursor over blanks instead of writing them."""
    asked = re.findall(r"number-([0-9]+)", json.dumps(request.body["messages"]))
    return Reply(f"said-{asked[-1] if asked else 0}", delay=0)


def reports(scratch: Path, clone: Path, version: str, runs: int) -> dict[str, Any]:
    """`/telemetry-report cost` in the terminal, the hook alone, the command line alone; and a prompt without the plugin, beside."""
    repository = book(scratch / "reports")
    today = datetime.datetime.now(datetime.UTC).date()
    with (
        servers.running() as server,
        MessagesApi(Script().otherwise(echo)) as api,
    ):
        replay(Recording(resources.path(f"recordings/{RECORDED}")), "127.0.0.1", server.ports)
        clients = {name: ClaudeCode(executable(version), scratch / f"reports {name}", api.url) for name in ("off", "on")}
        with_plugin(clients["on"], clone)
        env = {"SP_TELEMETRY_HOME": str(server.home), "SP_TELEMETRY_VENV": sys.prefix, "SP_TELEMETRY_TIMEZONE": "UTC"}
        session = Session(scratch, repository, more=env)
        call = {"session_id": session.id, "cwd": str(repository), "hook_event_name": "UserPromptExpansion"}
        call |= {"command_name": "sp-telemetry:telemetry-report", "command_args": "cost"}

        def hook() -> None:
            environ = {**session.environment, "SP_TELEMETRY_CLICKHOUSE_PORT": str(server.ports["clickhouse"])}
            done = subprocess.run(command_of("report"), input=json.dumps(call).encode(), env=environ, cwd=repository, capture_output=True)
            assert "requests" in json.loads(done.stdout)["reason"], done

        environ = servers.environment(server.home)
        command = [sys.executable, "-m", "sp_telemetry.cli.main", "report", "cost", "--format", "text"]
        days, answers = iter(range(31, 10_000)), iter(range(1, 10_000))
        with (
            terminals.terminal(clients["on"], repository, scratch, **env) as on,
            terminals.terminal(clients["off"], repository, scratch) as off,
        ):

            def typed() -> float:
                since = next(days)  # the first day stands under the table, so each answer can be told from the one before
                return on.answer_ms(f"/telemetry-report cost --since {since}d", f"{today - datetime.timedelta(since)}")

            def prompted() -> float:
                number = next(answers)
                return off.answer_ms(f"number-{number}", f"said-{number}")

            times: dict[str, list[float]] = {name: [] for name in ("typed", "prompted", "hook", "command line")}
            for _ in range(runs + 1):
                times["typed"].append(typed())
                times["prompted"].append(prompted())
                times["hook"].append(milliseconds(hook))
                times["command line"].append(milliseconds(lambda: subprocess.run(command, env=environ, check=True, capture_output=True)))
    names = {
        "typed": "/telemetry-report cost, from Enter to its text on the screen",
        "hook": "its hook alone", "command line": "of that, the command line",
        "prompted": "beside: a prompt that the model answers at once, without the plugin",
    }  # fmt: skip
    rows = [{"name": text, **_spread(times[name][1:])} for name, text in names.items()]
    shown = [[row["name"], *(f"{row[key]:.0f}" for key in ("p50_ms", "p95_ms"))] for row in rows]
    servers.table(f"Enter to text, Claude Code {version} in tmux, {runs} runs each", ["", "p50 ms", "p95 ms"], shown)
    return {"runs": runs, "client": version, "rows": rows}


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50_ms": servers.percentile(values, 0.5), "p95_ms": servers.percentile(values, 0.95)}


def interpreter() -> str:
    """The `python3` on PATH itself: a version manager's stand-in takes ten times as long, and the hooks pass it by too."""
    return subprocess.check_output(["python3", "-c", "import os, sys; print(os.path.realpath(sys.executable))"], text=True).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="a look, not figures to quote")
    parser.add_argument("--client", default="2.1.330")
    parser.add_argument("--python", default=interpreter())
    parser.add_argument("--only", choices=("hooks", "turns", "reports"))
    args = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch, clone = Path(folder), Path(folder) / "the clone"
        shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".git", ".venv*", "tests", "docs", ".*_cache", ".hypothesis"))
        if args.only in (None, "hooks"):
            figures["hooks"] = hooks(scratch, args.python, 10 if args.quick else 60)
        if args.only in (None, "turns"):
            figures["turns"] = turns(scratch, clone, args.client, 3 if args.quick else 20)
        if args.only in (None, "reports"):
            figures["reports"] = reports(scratch, clone, args.client, 3 if args.quick else 20)
    servers.write(args.json, "hooks", figures)


if __name__ == "__main__":
    main()
