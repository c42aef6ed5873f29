"""The two images of the stack, made here because none can be pulled: the collector's as upstream makes it, and a STAND-IN for ClickHouse's.

Each carries the name that the compose file asks for, so that file runs unchanged. The stand-in's lower layer (Python, its libraries,
what the package needs) is made from this machine's own files and kept; the package itself lies on top and is always that under test.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sp_telemetry
from sp_telemetry import resources
from tests.docker.engine import Engine, EngineUnavailable

STAND_IN = "sp-telemetry.stand-in"  # the label of the image that is one
BASE = "sp-telemetry/stand-in-base"
HERE = Path(__file__).parent
FALLOCATE = Path("/usr/bin/fallocate")
PACKAGES = Path("/usr/lib/stand-in-packages")
# What the tests need and a server does not.
LEFT_OUT = re.compile(
    r"(_?pytest|hypothesis|ruff|uv|pip|setuptools|hatchling|opentelemetry|pygments|mypy)\b.*|.*\.dist-info"
    r"|__pycache__|test|idlelib|lib2to3|ensurepip"
)
COMMANDS = (  # of busybox
    "sh", "cat", "chown", "chmod", "mkdir", "cp", "mv", "rm", "sha256sum", "install", "printf",
    "wget", "id", "ls", "stat", "sleep", "tr", "cut", "test", "env", "tar",
)  # fmt: skip


def names() -> dict[str, str]:
    """service -> image, as .env.template pins them."""
    template = (resources.path("telemetry-server/.env.template")).read_text()
    found = dict(re.findall(r"^(CLICKHOUSE|COLLECTOR)_IMAGE=(\S+)$", template, re.M))
    return {"clickhouse": found["CLICKHOUSE"], "collector": found["COLLECTOR"]}


def make(engine: Engine) -> None:
    """Both images, tagged. Raises EngineUnavailable where one can't be made."""
    named = names()
    _collector(engine, named["collector"])
    _stand_in(engine, named["clickhouse"])
    bases = engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}", BASE).stdout.split()
    if old := [base for base in bases if base != f"{BASE}:{_base_key()}"]:  # 700 MB each
        engine.docker("rmi", "--force", *old, check=False)


def _collector(engine: Engine, name: str) -> None:
    from tests.collector import build

    try:
        binary = build.collector()
    except Exception as error:  # its own "unavailable"
        raise EngineUnavailable(str(error)) from None
    key = hashlib.sha256(binary.read_bytes()).hexdigest()
    if _has(engine, name, key):
        return
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(binary, Path(folder, "otelcol-contrib"))
        certificates = Path("/etc/ssl/certs/ca-certificates.crt")
        Path(folder, "ca-certificates.crt").write_bytes(certificates.read_bytes() if certificates.exists() else b"")
        Path(folder, "Dockerfile").write_text(f"""\
FROM scratch
LABEL sp-telemetry.key={key}
USER 10001:10001
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --chmod=755 otelcol-contrib /otelcol-contrib
ENTRYPOINT ["/otelcol-contrib"]
CMD ["--config", "/etc/otelcol-contrib/config.yaml"]
EXPOSE 4317 4318 55678 55679
""".replace("COPY --chmod=755", "COPY"))  # fmt: skip
        Path(folder, "otelcol-contrib").chmod(0o755)
        engine.docker("build", "--quiet", "--tag", name, folder)


def _stand_in(engine: Engine, name: str) -> None:
    base = f"{BASE}:{_base_key()}"
    if engine.docker("image", "inspect", base, check=False).returncode:
        with _piped_tar(_base_files()) as stream:
            # fmt: off
            engine.docker("import", "--change", f"LABEL {STAND_IN}=true", "--change", "ENV PATH=/bin PYTHONDONTWRITEBYTECODE=1",
                          "-", base, stdin=stream, timeout=600)
            # fmt: on
    with tempfile.TemporaryDirectory() as folder:
        package = Path(sp_telemetry.__file__).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, Path(folder, "app/src/sp_telemetry"), ignore=ignored)
        if not (package / "data").is_dir():
            shutil.copytree(resources.path("telemetry-server"), Path(folder, "app/telemetry-server"), ignore=ignored)
        shutil.copy(HERE / "standin.py", Path(folder, "app/standin.py"))
        key = _tree_key(Path(folder, "app"))
        if _has(engine, name, key):
            return
        paths = f"/app/src:{PACKAGES}"
        # 101 is the user that ClickHouse's image has, and /var/lib/clickhouse is open to any, as there.
        Path(folder, "Dockerfile").write_text(f"""\
FROM {base}
LABEL sp-telemetry.key={key}
ENV PYTHONPATH={paths}
COPY app /app
VOLUME /var/lib/clickhouse
EXPOSE 9000 8123 9009
ENTRYPOINT ["{_python()}", "/app/standin.py"]
""")
        engine.docker("build", "--quiet", "--tag", name, folder, timeout=300)


def _has(engine: Engine, name: str, key: str) -> bool:
    found = engine.docker("image", "inspect", "--format", '{{index .Config.Labels "sp-telemetry.key"}}', name, check=False)
    return found.stdout.strip() == key


def _python() -> Path:
    return Path(sys.executable).resolve()


def _site_packages() -> list[Path]:
    return [Path(path) for path in dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])]


def _base_key() -> str:
    """Changes with what the base is made of: this file, the interpreter, the packages that are installed."""
    said = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode() + str(_python()).encode())
    for folder in _site_packages():
        said.update("\n".join(sorted(entry.name for entry in folder.iterdir())).encode())
    return said.hexdigest()[:16]


def _tree_key(folder: Path) -> str:
    said = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        said.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return said.hexdigest()


def _base_files() -> Iterator[tuple[Path, Path]]:
    """(file of this machine, its place in the image) of all that the stand-in needs: Python and what it loads under their own paths,
    packages in PACKAGES, for the environment may lie where a container has another file system (/tmp)."""
    standard = Path(sysconfig.get_path("stdlib"))
    found = [(file, file) for file in (_python(), *_below(standard, without=("site-packages",)))]
    for folder in _site_packages():
        found.extend((file, PACKAGES / file.relative_to(folder)) for file in _below(folder))
    yield from found
    binaries = [FALLOCATE, *(file for file, _ in found if file == _python() or ".so" in file.suffixes or file.name.endswith(".so"))]
    yield from ((library, library) for library in _libraries(binaries))


def _below(folder: Path, without: tuple[str, ...] = ()) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in without and not LEFT_OUT.fullmatch(name)]
        for name in files:
            if not name.endswith((".pyc", ".a", ".exe")):
                yield Path(place, name)


def _libraries(binaries: Iterable[Path]) -> Iterator[Path]:
    """What the loader loads for them, the loader too."""
    seen: set[str] = set()
    said = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True).stdout
    for line in said.splitlines():
        for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", line):
            if path not in seen:
                seen.add(path)
                yield Path(path)


@contextmanager
def _piped_tar(files: Iterable[tuple[Path, Path]]) -> Iterator[io.BufferedReader]:
    """A file with the base's tar, at its beginning."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise EngineUnavailable("busybox not found (Debian: busybox-static), which the stand-in's image has for a shell")
    with tempfile.TemporaryFile() as out:
        with tarfile.open(fileobj=out, mode="w", dereference=True) as tar:
            written: set[str] = set()
            for file, place in files:
                name = os.path.normpath(place).lstrip("/")  # the loader says a/../b
                if name not in written:
                    written.add(name)
                    tar.add(file, name, recursive=False)
            tar.add(busybox, "bin/busybox")
            tar.add(FALLOCATE, FALLOCATE.relative_to("/"))  # of util-linux, as in ClickHouse's image
            for command in COMMANDS:
                link = tarfile.TarInfo(f"bin/{command}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
            for folder, mode, owner in (("tmp", 0o1777, 0), ("var/lib/clickhouse", 0o777, 101), ("etc/clickhouse-server", 0o755, 0)):
                made = tarfile.TarInfo(folder)
                made.type, made.mode, made.uid, made.gid = tarfile.DIRTYPE, mode, owner, owner
                tar.addfile(made)
            groups = b"root:x:0:\nclickhouse:x:101:\n"
            users = b"root:x:0:0:root:/:/bin/sh\nclickhouse:x:101:101::/var/lib/clickhouse:/bin/sh\n"
            for name, text in (("etc/passwd", users), ("etc/group", groups)):
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text))
        out.seek(0)
        yield out
