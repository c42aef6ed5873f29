"""Fuzz for as long as you like: `python tests/fuzz/run.py --seconds 600 [--target NAME …]`.

Targets of text are led by what of the code they reach, where atheris is installed (`pip install atheris`; it is no dependency). The
others, and all without it, change seeds at random. What fails is kept in tests/fuzz/found/; mend it with its input as a new seed.
"""

from __future__ import annotations

import argparse
import hashlib
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="in all, shared by the targets")
    parser.add_argument("--target", action="append", help="only this one; may be given several times")
    parser.add_argument("--led", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.led:
        return _led(asked.led, asked.seconds)

    from tests.fuzz.engine_targets import Engines
    from tests.fuzz.text_targets import TARGETS

    led = subprocess.run([sys.executable, "-c", "import atheris"], capture_output=True).returncode == 0
    engines = Engines()
    try:
        targets = TARGETS | engines.targets
        chosen = asked.target or list(targets)
        failed = 0
        for name in chosen:
            share = asked.seconds / len(chosen)
            if led and name in TARGETS:
                command = [sys.executable, __file__, "--led", name, "--seconds", str(share)]
                failed += subprocess.run(command, cwd=ROOT).returncode != 0
            else:
                failed += _changing_seeds(name, targets[name], share)
    finally:
        engines.close()
    print(f"{len(chosen)} targets, {failed} failed")
    return failed > 0


def _led(name: str, seconds: float) -> int:
    import atheris

    with atheris.instrument_imports(include=["sp_telemetry", "places", "quickjson", "wire", "tests.fuzz.text_targets"]):
        from tests.fuzz.text_targets import TARGETS
    from tests.fuzz.mutation import SEEDS

    FOUND.mkdir(exist_ok=True)
    atheris.Setup(
        [sys.argv[0], tempfile.mkdtemp(prefix="fuzz-"), str(SEEDS / name),  # the first folder is written to
         f"-max_total_time={max(int(seconds), 1)}", f"-artifact_prefix={FOUND}/{name}-", "-verbosity=0",
         "-print_final_stats=1", "-max_len=4096", "-timeout=10", "-reload=0"],
        TARGETS[name],
    )  # fmt: skip
    print(f"{name}: led by what it reaches, {seconds:.0f} s", flush=True)
    atheris.Fuzz()
    return 0


def _changing_seeds(name: str, target: Callable[[bytes], None], seconds: float) -> bool:
    from tests.fuzz.mutation import mutated, seeds

    known, chance, tries = seeds(name), random.Random(), 0
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
