"""scripts/sp-telemetry, the real script, in a copy of the checkout whose path holds a space, with an empty HOME.

One test installs for real. Elsewhere the environment's maker is a stub on PATH: a `uv` that makes a small environment in no
time, or a Python that lacks something.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, require

pytestmark = pytest.mark.checkout

TOOLS = "sh cat chmod cmp cp cut date dirname env grep id ls mkdir mv readlink rm sed sleep tail touch uname"
PRINT_WHERE = "import os, sys\nprint('ran', sys.argv[1:], os.environ['PYTHONPATH'])\n"

# Makes an "environment" whose Python is a script around the real one, and counts how often it installed.
UV = """#!/bin/sh
for last in "$@"; do :; done
case "$1 $2" in
    'venv --quiet')
        mkdir -p "$last/bin"
        printf '#!/bin/sh\\nexec "{python}" "$@"\\n' >"$last/bin/python"
        chmod +x "$last/bin/python"
        ;;
    'pip install') {install} ;;
    *) exit 2 ;;
esac
"""


class Checkout:
    """A copy of what the launcher needs, a PATH that holds nothing but chosen tools, and an empty HOME."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.bin, self.home = folder / "bin", folder / "home"
        self.installs = folder / "installs"
        for made in (self.root, self.bin, self.home):
            made.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        for name in ("pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, self.root)
        main = self.root / "src" / "sp_telemetry" / "cli" / "main.py"
        main.parent.mkdir(parents=True)
        main.write_text(PRINT_WHERE)
        for tool in TOOLS.split():
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.environ = {"PATH": str(self.bin), "HOME": str(self.home)}

    @property
    def launcher(self) -> Path:
        return self.root / "scripts" / "sp-telemetry"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def stub(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def with_python(self) -> None:
        self.stub("python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')

    def with_uv(self, install: str = "") -> Checkout:
        self.with_python()
        self.stub("uv", UV.format(python=sys.executable, install=f'echo made >>"{self.installs}"; {install}'))
        return self

    def installed(self) -> int:
        return self.installs.read_text().count("made") if self.installs.exists() else 0

    def wait_until_installing(self) -> None:
        deadline = time.monotonic() + 20
        while not self.installed():
            assert time.monotonic() < deadline, "nothing was installed"
            time.sleep(0.01)

    def start(self, *arguments: str, launcher: Path | None = None, **environ: str | None) -> subprocess.Popen[str]:
        # A variable that is None is unset.
        env = {name: value for name, value in {**self.environ, **environ}.items() if value is not None}
        command = [str(launcher or self.launcher), *arguments]
        return subprocess.Popen(command, env=env, cwd=self.home, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *arguments: str, launcher: Path | None = None, **environ: str | None) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, launcher=launcher, **environ)
        out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def leftovers(self) -> list[str]:
        return sorted(file.name for file in self.root.iterdir() if file.name.startswith(".venv") and file.name != ".venv")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    require(os.name == "posix", "a POSIX shell is needed")
    return Checkout(tmp_path)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_makes_the_environment_once_and_passes_arguments_on(checkout: Checkout) -> None:
    checkout.with_uv()
    first = checkout.run("report", "two words")
    assert (first.returncode, first.stdout) == (0, f"ran ['report', 'two words'] {checkout.root}/src\n"), first.stderr
    assert "making the environment" in first.stderr
    second = checkout.run("report")
    assert (second.stdout, second.stderr) == (f"ran ['report'] {checkout.root}/src\n", "")
    assert checkout.installed() == 1
    assert checkout.leftovers() == [] and list(checkout.home.iterdir()) == []


def test_changed_lock_and_lost_python_rebuild(checkout: Checkout) -> None:
    checkout.with_uv().run()
    with (checkout.root / "requirements.lock").open("a") as lock:
        lock.write("# a new version\n")
    assert checkout.run().returncode == 0
    assert checkout.installed() == 2
    (checkout.venv / "bin" / "python").unlink()
    assert checkout.run().returncode == 0
    assert checkout.installed() == 3
    assert checkout.run().stderr == "" and checkout.leftovers() == []


def test_two_at_once_make_it_once(checkout: Checkout) -> None:
    checkout.with_uv("sleep 1")
    both = [checkout.start("x") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, f"ran ['x'] {checkout.root}/src\n"), err
    assert checkout.installed() == 1 and checkout.leftovers() == []


def test_killed_half_way_it_runs_again(checkout: Checkout) -> None:
    checkout.with_uv("sleep 2")
    process = checkout.start()
    checkout.wait_until_installing()
    process.kill()
    process.communicate()
    assert checkout.leftovers() and not checkout.venv.exists()
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    assert checkout.installed() == 2 and checkout.leftovers() == []


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="zombies can't be told apart without /proc")
def test_a_dead_owner_that_nobody_reaped_holds_nothing(checkout: Checkout) -> None:
    owner = subprocess.Popen(["true"])
    while Path(f"/proc/{owner.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    lock = checkout.root / ".venv.lock"
    lock.mkdir()
    (lock / "pid").write_text(str(owner.pid))
    done = checkout.with_uv().run()
    owner.wait()
    assert done.returncode == 0 and "waiting for it" not in done.stderr


def test_interrupted_it_leaves_nothing(checkout: Checkout) -> None:
    checkout.with_uv("exec sleep 30")
    process = checkout.start()
    checkout.wait_until_installing()
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 143
    assert not checkout.venv.exists() and checkout.leftovers() == []


def test_moved_linked_and_without_home(checkout: Checkout, tmp_path: Path) -> None:
    checkout.with_uv().run()
    checkout.root = checkout.root.rename(tmp_path / "moved elsewhere")
    link = tmp_path / "link"
    link.symlink_to(Path("moved elsewhere", "scripts", "sp-telemetry"))
    for home in (None, ""):
        done = checkout.run("x", launcher=link, HOME=home)
        assert (done.stdout, done.stderr) == (f"ran ['x'] {checkout.root}/src\n", "")
    assert checkout.installed() == 1


def test_callers_python_variables_do_not_reach_us(checkout: Checkout) -> None:
    checkout.with_uv().run()
    (checkout.home / "json.py").write_text("raise SystemExit('the working directory was imported')")
    (checkout.root / "src" / "sp_telemetry" / "cli" / "main.py").write_text("import json\nprint('clean')\n")
    done = checkout.run(PYTHONPATH=str(checkout.home), PYTHONHOME=str(checkout.home))
    assert (done.stdout, done.returncode) == ("clean\n", 0), done.stderr


def test_the_environment_goes_where_it_is_told(checkout: Checkout, tmp_path: Path) -> None:
    place = tmp_path / "another place" / "env"
    assert checkout.with_uv().run(SP_TELEMETRY_VENV=str(place)).returncode == 0
    assert (place / "requirements.lock").exists() and not checkout.venv.exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_checkout_uses_the_home_of_the_installation(checkout: Checkout) -> None:
    checkout.with_uv()
    checkout.root.chmod(0o555)
    try:
        assert checkout.run(SP_TELEMETRY_HOME=str(checkout.home / "sp")).returncode == 0
    finally:
        checkout.root.chmod(0o755)
    assert (checkout.home / "sp" / "venv" / "requirements.lock").exists()


def test_an_update_of_the_plugin_keeps_its_environment(checkout: Checkout, tmp_path: Path) -> None:
    checkout.with_uv()
    cache = tmp_path / "home" / ".claude" / "plugins" / "cache" / "sp-telemetry" / "sp-telemetry"
    cache.mkdir(parents=True)
    checkout.root = checkout.root.rename(cache / "0.1.0")
    home = str(tmp_path / "home" / "sp")
    assert checkout.run("x", SP_TELEMETRY_HOME=home).returncode == 0 and checkout.leftovers() == [] and not checkout.venv.exists()
    checkout.root = checkout.root.rename(cache / "0.2.0")
    done = checkout.run("x", SP_TELEMETRY_HOME=home)
    assert (done.stdout, done.stderr) == (f"ran ['x'] {checkout.root}/src\n", "") and checkout.installed() == 1


def test_an_environment_of_somebody_else_is_left_alone(checkout: Checkout) -> None:
    checkout.venv.mkdir()
    (checkout.venv / "precious").touch()
    done = checkout.with_uv().run()
    assert done.returncode == 16 and "was not made by this command" in last_line(done)
    assert (checkout.venv / "precious").exists()


def test_no_python_and_too_old_a_python(checkout: Checkout) -> None:
    done = checkout.run()
    assert (done.returncode, "found none" in last_line(done)) == (10, True), done.stderr
    checkout.stub("python3", "#!/bin/sh\necho 3.9.6 no venv /usr/bin/python3.9\n")
    checkout.stub("python3.13", "#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    done = checkout.run()
    assert done.returncode == 10
    assert "Python 3.11 to 3.14 is needed; found 3.9.6 (python3)." in last_line(done)
    assert checkout.leftovers() == []


def test_python_without_venv(checkout: Checkout) -> None:
    checkout.stub("python3", "#!/bin/sh\necho 3.12.3 fits no /usr/bin/python3.12\n")
    done = checkout.run()
    assert done.returncode == 11
    assert "Python 3.12.3 (/usr/bin/python3.12) lacks the module ensurepip" in last_line(done)
    assert "apt install python3.12-venv" in last_line(done)


def test_full_disk_is_named(checkout: Checkout) -> None:
    done = checkout.with_uv("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1").run()
    assert (done.returncode, "the disk is full" in last_line(done)) == (13, True), done.stderr
    assert not checkout.venv.exists() and checkout.leftovers() == []


def test_unknown_failure_shows_the_installers_last_lines(checkout: Checkout) -> None:
    done = checkout.with_uv("echo 'something odd' >&2; exit 3").run()
    assert done.returncode == 15
    assert "    something odd" in done.stderr and "could not be made" in last_line(done)


def test_no_network_with_pip(checkout: Checkout) -> None:
    checkout.with_python()
    done = checkout.run(PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="1", PIP_NO_CACHE_DIR="1")
    assert (done.returncode, "the package index can't be reached" in last_line(done)) == (12, True), done.stderr
    assert not checkout.venv.exists() and checkout.leftovers() == []


def test_no_network_with_uv(checkout: Checkout) -> None:
    uv = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    require(uv, "uv is not installed")
    checkout.with_python()
    (checkout.bin / "uv").symlink_to(uv)
    done = checkout.run(UV_DEFAULT_INDEX="http://127.0.0.1:9/simple", UV_HTTP_RETRIES="0", UV_NO_CACHE="1")
    assert (done.returncode, "the package index can't be reached" in last_line(done)) == (12, True), done.stderr


def test_warm_start_adds_little(checkout: Checkout) -> None:
    """Promised are 30 ms; asserted is what also holds on a busy machine: less than what Python takes. `-s` shows the figures."""
    checkout.with_uv().run()
    direct = [str(checkout.venv / "bin" / "python"), "-m", "sp_telemetry.cli.main"]
    environ = {**checkout.environ, "PYTHONPATH": str(checkout.root / "src"), "PYTHONSAFEPATH": "1", "PYTHONUTF8": "1"}

    def milliseconds(command: list[str]) -> float:
        began = time.perf_counter()
        subprocess.run(command, env=environ, check=True, capture_output=True)
        return (time.perf_counter() - began) * 1e3

    pairs = [(milliseconds([str(checkout.launcher)]), milliseconds(direct)) for _ in range(20)]
    launched, plain = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"launcher {launched:.1f} ms, python alone {plain:.1f} ms, added {launched - plain:.1f} ms (medians of 20)")
    assert launched - plain < plain


@pytest.mark.long
@pytest.mark.timeout(600)
def test_real_installation_runs_the_command_line(checkout: Checkout) -> None:
    """From nothing, with this machine's index and caches: the lock is complete, and the engine works without what it leaves out."""
    shutil.rmtree(checkout.root / "src")
    shutil.copytree(ROOT / "src", checkout.root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "telemetry-server", checkout.root / "telemetry-server")
    settings = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_")) or name.lower().endswith("_proxy")}
    cache = subprocess.run([sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True).stdout.strip()
    checkout.with_python()
    process = checkout.start("--help", **{"PIP_CACHE_DIR": cache, **settings})
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert "usage" in out.lower() and "environment ready" in err
    query = "import chdb, clickhouse_connect, sys; print(chdb.query('SELECT 42')); sys.exit('pandas' in sys.modules)"
    done = subprocess.run([checkout.venv / "bin" / "python", "-I", "-c", query], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("42", 0), done.stderr
    assert list(checkout.home.iterdir()) == []
