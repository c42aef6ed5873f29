"""The two lock files: `make` writes them again (needs uv), `check` proves that they fit pyproject.toml.

    python scripts/lib/locks.py make [--upgrade]
    python scripts/lib/locks.py check

requirements.lock is what runs, requirements-test.lock is that and the `test` group at the same versions. Both name every
package with its hashes and are installed with `--no-deps`, by uv or pip, on any platform and any Python that pyproject allows.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
RUNTIME, TEST = ROOT / "requirements.lock", ROOT / "requirements-test.lock"

# chdb-core declares them and imports them only for data frames and Arrow tables, which nothing here asks for. They are twice
# the size of everything else. This is why the locks are installed with --no-deps.
LEFT_OUT = ("numpy", "pandas", "pyarrow", "python-dateutil", "six")

HEAD = """\
# Written by `python scripts/lib/locks.py make`; see there. Install with: pip install --no-deps --require-hashes -r {name}
"""


def make(*options: str) -> None:
    compile_lock(RUNTIME, *options)
    compile_lock(TEST, "--group", "test", "--constraint", RUNTIME.name, *options)


def compile_lock(lock: Path, *options: str) -> None:
    left_out = [word for name in LEFT_OUT for word in ("--no-emit-package", name)]
    command = ["uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"]
    command += ["--only-binary", ":all:", "--quiet", "--output-file", lock.name, *left_out, *options]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    text = lock.read_text()
    # uv ends with a list of what was left out; LEFT_OUT above says it, with the reason.
    text = text.split("\n# The following packages were excluded")[0].rstrip() + "\n"
    lock.write_text(HEAD.format(name=lock.name) + text)


def pins(lock: Path) -> dict[str, tuple[str, str]]:
    """Package -> (version, marker), as the lock names them."""
    found = {}
    for name, version, marker in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.*?))? \\$", lock.read_text(), re.MULTILINE):
        found[canonicalize_name(name)] = (version, marker)
    return found


def check() -> list[str]:
    """What is wrong with the locks, one sentence each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = project["project"]["dependencies"]
    runtime, test = pins(RUNTIME), pins(TEST)
    wrong = []
    for lock, wanted in ((RUNTIME, declared), (TEST, declared + project["dependency-groups"]["test"])):
        found = pins(lock)
        for requirement in map(Requirement, wanted):
            version, _ = found.get(canonicalize_name(requirement.name), ("", ""))
            if not version:
                wrong.append(f"{lock.name} lacks {requirement.name}.")
            elif not requirement.specifier.contains(version):
                wrong.append(f"{lock.name} has {requirement.name} {version}; pyproject.toml wants {requirement.specifier}.")
        for name in found.keys() & set(LEFT_OUT):
            wrong.append(f"{lock.name} has {name}, which is to be left out.")
        body = [line for line in lock.read_text().splitlines() if line.lstrip()[:1] != "#"]
        if any("://" in line or line.startswith("-") for line in body):
            wrong.append(f"{lock.name} names an index, an address or an option; a lock holds versions and hashes only.")
        if any("==" in line and not line.endswith(" \\") for line in body):
            wrong.append(f"{lock.name} has a package without hashes.")
    wrong += [f"{name} differs between the two locks." for name in runtime if test.get(name) != runtime[name]]
    return [f"{sentence} Run `python scripts/lib/locks.py make`." for sentence in wrong]


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(*sys.argv[2:])
    elif sys.argv[1:] != ["check"]:
        sys.exit(__doc__)
    problems = check()
    print(*problems, sep="\n", end="\n" if problems else "")
    sys.exit(bool(problems))
