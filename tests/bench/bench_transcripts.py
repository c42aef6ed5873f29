"""Audit and backfill of generated transcripts, beside ccusage on the same files in the same run.

    python tests/bench/bench_transcripts.py [--quick] [--json FILE] [--rounds 3] [--requests 500] [--checkout DIR]

Each round runs ccusage, then a first audit and a first backfill, each into an empty store, then both again with nothing new. What counts
is the command as a person types it: its wall time, the CPU time of its process and of the server while it ran, the peak memory of its
process, and by how much the server's memory peaked above what it was before. `--requests 130`: as many bytes with as many requests as
people's transcripts have (docs/decisions.md).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import server as servers
import transcripts

from tests.client.install import ClientUnavailable
from tests.client.install_ccusage import ccusage

VERSION = "20.0.24"
CACHE = Path(tempfile.gettempdir()) / "sp-telemetry-bench-transcripts"
DENSE = 500  # requests of a session
GOAL, GOAL_AGAIN, GOAL_MIB = 0.6, 0.1, 500
HEADS = ["run", "median s", "ccusage = 1", "CPU s", "ccusage = 1", "peak MiB", "server's growth MiB"]


@dataclass
class Took:
    """One run: seconds by the clock, seconds of CPU in the process and in the server meanwhile, the most memory of the process, and how
    much more than before the server had at its most."""

    wall_s: float
    cpu_s: float
    server_cpu_s: float
    peak_mib: float
    server_growth_mib: float

    @property
    def all_cpu_s(self) -> float:
        return self.cpu_s + self.server_cpu_s


def timed(command: list[str], environment: dict[str, str], server: servers.Server | None = None) -> tuple[Took, str]:
    """Runs it to its end. Raises where it fails (an audit that is not clean exits with 1)."""
    if server:
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak counts from here
    before = server.cost() if server else None
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.PIPE)
        errors = process.stderr.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        printed = out.read().decode()
    if process.returncode not in (0, 1) or (process.returncode and "audit" not in command):
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {errors}")
    after = server.cost() if server else None
    at_server = after.cpu_s - before.cpu_s if server else 0.0
    growth = after.peak_rss_mib - before.rss_mib if server else 0.0
    return Took(wall, used.ru_utime + used.ru_stime, at_server, used.ru_maxrss / 1024, growth), printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="60 MB, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=DENSE, help=f"of a session, in the mean (default {DENSE})")
    parser.add_argument("--checkout", type=Path, default=servers.ROOT)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    megabytes, sessions, rounds = (60, 40, 1) if args.quick else (1000, 400, args.rounds)
    try:
        program = ccusage(VERSION)
    except ClientUnavailable as reason:
        raise SystemExit(f"Nothing to compare with: {reason}") from None
    configuration = CACHE / (f"{megabytes}" if args.requests == DENSE else f"{megabytes}-{args.requests}")
    if not configuration.exists():
        print(f"making {megabytes} MB of transcripts …", flush=True)
        new = configuration.with_suffix(".new")
        truth = transcripts.write(new / "projects", sessions=sessions, megabytes=megabytes, requests=args.requests)
        new.rename(configuration)
        print(f"{truth.bytes / 1e6:,.0f} MB, {truth.files} files, {len(truth.requests):,} requests")
    size = sum(file.stat().st_size for file in configuration.rglob("*.jsonl"))
    runs: dict[str, list[Took]] = {name: [] for name in ("ccusage", "audit", "backfill", "audit again", "backfill again")}
    for _ in range(rounds):
        environment = {"PATH": os.environ["PATH"], "HOME": str(configuration), "CLAUDE_CONFIG_DIR": str(configuration), "TZ": "UTC"}
        runs["ccusage"].append(timed([*program, "--timezone", "UTC"], environment)[0])
        for name in ("audit", "backfill"):
            home = Path(tempfile.mkdtemp(prefix="sp-bench-"))
            try:
                with servers.running(home, args.checkout) as server:
                    mine = servers.environment(home, args.checkout) | {"CLAUDE_CONFIG_DIR": str(configuration), "HOME": str(configuration)}
                    command = [sys.executable, "-m", "sp_telemetry.cli.main", name, *(("--since", "52w") if name == "audit" else ())]
                    for suffix in ("", " again"):
                        runs[name + suffix].append(timed(command, mine, server)[0])
            finally:
                shutil.rmtree(home, ignore_errors=True)
    figures = {
        "bytes": size,
        "requests": args.requests,
        "ccusage": VERSION,
        "runs": {name: [asdict(took) | {"all_cpu_s": took.all_cpu_s} for took in each] for name, each in runs.items()},
    }
    title = f"{size / 1e6:,.0f} MB of transcripts, {rounds} rounds; goals: {GOAL} of ccusage, again {GOAL_AGAIN}, {GOAL_MIB} MiB"
    servers.table(title, HEADS, table(figures))
    servers.write(args.json, "transcripts", figures)


def table(figures: dict[str, Any]) -> list[list[Any]]:
    """A row under HEADS for each run."""

    def median(name: str, of: str) -> float:
        return statistics.median(took[of] for took in figures["runs"][name])

    return [
        [
            name, f"{median(name, 'wall_s'):.2f}", f"{median(name, 'wall_s') / median('ccusage', 'wall_s'):.2f}",
            f"{median(name, 'all_cpu_s'):.2f}", f"{median(name, 'all_cpu_s') / median('ccusage', 'all_cpu_s'):.2f}",
            f"{max(took['peak_mib'] for took in runs):.0f}", f"{max(took['server_growth_mib'] for took in runs):.0f}",
        ]
        for name, runs in figures["runs"].items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
