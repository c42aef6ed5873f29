"""Secrets that tests plant, and the search for them: each in every form that a store could have it in, in everything that lies about.

A mark is a text that occurs nowhere else. It is looked for as it is, in base64 (at each of the three alignments), in hex, encoded for a
URL and for JSON, and in pieces: its beginning, its middle and its end, each long enough to be no accident.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

PIECE = 10


def forms(secret: str) -> dict[str, bytes]:
    """Name of the form -> the bytes to look for."""
    raw = secret.encode()
    found = {"as it is": raw, "in lower case": secret.lower().encode(), "in upper case": secret.upper().encode()}
    for alignment in range(3):
        encoded = base64.b64encode(b"\0" * alignment + raw + b"\0" * 3)
        found[f"base64+{alignment}"] = encoded[4 if alignment else 0 : (alignment + len(raw)) // 3 * 4]
        found[f"base64url+{alignment}"] = found[f"base64+{alignment}"].replace(b"+", b"-").replace(b"/", b"_")
    found |= {"hex": raw.hex().encode(), "HEX": raw.hex().upper().encode(), "reversed": raw[::-1]}
    found["URL"] = quote(secret, safe="").encode()
    found["URL, all"] = "".join(f"%{byte:02X}" for byte in raw).encode()
    found["JSON"] = json.dumps(secret)[1:-1].encode()
    found["JSON twice"] = json.dumps(json.dumps(secret)[1:-1])[1:-1].encode()
    found["JSON, all"] = "".join(f"\\u{ord(letter):04x}" for letter in secret).encode()
    if len(raw) >= 2 * PIECE:
        middle = (len(raw) - PIECE) // 2
        found |= {"its beginning": raw[:PIECE], "its middle": raw[middle : middle + PIECE], "its end": raw[-PIECE:]}
    return found


def search(secrets: Mapping[str, str], places: Iterable[tuple[str, bytes]]) -> list[tuple[str, str, str]]:
    """(place where it was planted, form, place where it was found) for each finding. By grep, for these are ten thousands of needles."""
    wanted: dict[bytes, list[tuple[str, str]]] = {}
    for name, secret in secrets.items():
        for form, data in forms(secret).items():
            wanted.setdefault(data, []).append((name, form))
    assert all(len(data) >= 8 and b"\n" not in data and b"\0" not in data for data in wanted), "too short to be no accident"
    names = []
    with tempfile.TemporaryDirectory() as folder:
        needles, hay = Path(folder) / "needles", Path(folder) / "hay"
        needles.write_bytes(b"\n".join(wanted) + b"\n")
        hay.mkdir()
        for number, (place, data) in enumerate(places):
            names.append(place)
            (hay / str(number)).write_bytes(data)
        command = ["grep", "-raoFf", needles, "--null", "."]
        done = subprocess.run(command, cwd=hay, capture_output=True, env={"LC_ALL": "C", "PATH": os.environ["PATH"]})
    assert done.returncode in (0, 1) and names, done.stderr.decode()
    hits = {tuple(line.split(b"\0", 1)) for line in done.stdout.split(b"\n") if line}
    found = [(name, form, names[int(file[2:])]) for file, hit in hits for name, form in wanted[hit]]
    return found


def files(*folders: Path) -> Iterator[tuple[str, bytes]]:
    """Each file under the folders, as it lies on the disk; and its path, which is a text too. A store that is at work removes parts while
    they are read: what came in their place is read then."""
    for folder in folders:
        seen: set[str] = set()
        while new := sorted(set(_paths(folder)) - seen):
            seen.update(new)
            for path in new:
                place = os.path.relpath(path, folder)
                yield f"name of {os.path.basename(path)}", place.encode()
                with contextlib.suppress(FileNotFoundError):
                    if os.path.isfile(path) and not os.path.islink(path):
                        data = Path(path).read_bytes()
                        yield place, data


def _paths(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):  # which goes on where a folder is gone, and Path.rglob does not
        yield from (os.path.join(parent, name) for name in (*folders, *names))


_DUMP = """
import sys
from pathlib import Path
from sp_telemetry.store.engine import Engine
engine = Engine(Path(sys.argv[1]))
with engine.handle() as handle:
    tables = handle.query(
        "SELECT concat('`', database, '`.`', name, '`') FROM system.tables WHERE engine NOT IN ('Null', 'MaterializedView')"
        " AND (database NOT IN ('system', 'information_schema', 'INFORMATION_SCHEMA')"
        " OR match(name, '_log$|^(errors|warnings|mutations|parts_columns|functions|settings|processes|detached_parts)$'))"
    ).decode().split("\\n")[:-1]
    for table in tables:
        print("==", table, flush=True)
        sys.stdout.buffer.write(handle.query(f"SELECT * FROM {table} SETTINGS final = 0", "TSVRaw"))
        sys.stdout.flush()
engine.close()
"""


def columns(store: Path) -> list[tuple[str, bytes]]:
    """Every column of every table of a store that nobody holds, decompressed: copies that merges have yet to remove too, and what
    the engine remembers about itself. In a process of its own, for an engine can be opened once in a process."""
    done = subprocess.run([sys.executable, "-c", _DUMP, str(store)], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    tables = done.stdout.split(b"== `")[1:]
    assert any(table.startswith(b"telemetry`.`telemetry_events`") for table in tables)
    return [(table.partition(b"\n")[0].decode(), table) for table in tables]
