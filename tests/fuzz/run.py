"""Fuzz for as long as you like: `python tests/fuzz/run.py --seconds 600 [--target NAME …]`.

Targets of text are led by what of the code they reach, by atheris, which scripts/test installs where it has a wheel (Linux on x86-64). The
others, and all where there is none, change seeds at random. CI does this for two seconds a target (test_led.py); a change to a parser
deserves minutes. What fails is kept in tests/fuzz/found/; mend it with its input as a new seed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]
FOUND = Path(__file__).parent / "found"
Target = Callable[[bytes], None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="in all, shared by the targets")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, default=0, help="of chance, to try the same again; 0: another one each time")
    parser.add_argument("--tries", type=int, default=-1, help="at most, for each target that is led")
    parser.add_argument("--led", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.led:
        return led(asked.target, asked.seconds, asked.seed, tries=asked.tries)

    from tests.fuzz.text_targets import TARGETS

    chosen = asked.target or [*TARGETS, *_of_the_engine()]
    share = asked.seconds / len(chosen)
    of_text = [name for name in chosen if name in TARGETS]
    others = [name for name in chosen if name not in TARGETS]
    failed = 0
    if of_text and importlib.util.find_spec("atheris"):
        command = [sys.executable, __file__, "--led", "--seconds", str(share)]
        command += ["--seed", str(asked.seed), "--tries", str(asked.tries)]
        failed += abs(subprocess.run([*command, *(word for name in of_text for word in ("--target", name))], cwd=ROOT).returncode)
    else:
        failed += sum(_changing_seeds(name, TARGETS[name], share, asked.seed) for name in of_text)
    if others:
        from tests.fuzz.engine_targets import Engines

        engines = Engines()
        try:
            failed += sum(_changing_seeds(name, engines.targets[name], share, asked.seed) for name in others)
        finally:
            engines.close()
    print(f"{len(chosen)} targets, {failed} failed")
    return failed > 0


def _of_the_engine() -> list[str]:
    from tests.fuzz.engine_targets import NAMES

    return NAMES


def led(names: list[str], seconds: float, seed: int = 0, targets: dict[str, Target] | None = None, tries: int = -1) -> int:
    """How many of them failed. Each is a process of its own, for libFuzzer ends with it; what it is led by is loaded once."""
    import atheris

    hooks = [file.stem for file in (ROOT / "hooks" / "lib").glob("*.py")] + ["gitfiles", "record", "configfile", "mentions", "rules"]
    with atheris.instrument_imports(include=["sp_telemetry", "tests.fuzz", *hooks]):
        from tests.fuzz.text_targets import TARGETS
    from tests.fuzz.mutation import SEEDS

    FOUND.mkdir(exist_ok=True)
    failed = 0
    for name in names:
        print(f"{name}: led by what it reaches, {seconds:.0f} s", flush=True)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as made:
            if child := os.fork():
                failed += os.waitpid(child, 0)[1] != 0
                continue
            atheris.Setup(
                [sys.argv[0], made, *filter(os.path.isdir, [str(SEEDS / name)]),  # the first folder is written to
                 f"-max_total_time={max(int(seconds), 1)}", f"-artifact_prefix={FOUND}/{name}-", f"-seed={seed}",
                 f"-runs={tries}", "-verbosity=0", "-print_final_stats=1", "-max_len=4096", "-timeout=60", "-reload=0"],
                (targets or TARGETS)[name],
            )  # fmt: skip
            atheris.Fuzz()
            os._exit(0)
    return failed


def _changing_seeds(name: str, target: Target, seconds: float, seed: int) -> bool:
    from tests.fuzz.mutation import mutated, seeds

    known, chance, tries = seeds(name), random.Random(seed or None), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data, tries = mutated(chance.choice(known), known, chance), tries + 1
        try:
            target(data)
        except Exception:
            FOUND.mkdir(exist_ok=True)
            kept = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
            kept.write_bytes(data)
            traceback.print_exc()
            print(f"{name}: failed after {tries} tries with {kept}", flush=True)
            return True
    print(f"{name}: {tries} tries", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
