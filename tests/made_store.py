"""A store that has its tables and views and nothing else, to copy: making them takes the engine more than a second, a copy 30 ms.

What a start would do is done already, so a server over the copy starts as it does over any store of this version. Tests of the first start
itself (set-up, demo, migrations, kills) don't come by here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.store import schema

MAKE = """
import secrets, sys
from pathlib import Path
from sp_telemetry.privacy import sql
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine
salt = ""
while len({salt[at : at + 3] for at in range(30)}) < 30:  # nothing that compression would take apart: tests look for it in files
    salt = secrets.token_hex(16)
engine = Engine(Path(sys.argv[1]))
with engine.handle() as handle:
    schema.migrate(handle, privacy=sql.render(Policy()), salt=salt)
engine.close()
"""


@cache
def _made() -> Path:
    """The one of this version of the schema, policy and engine, made by whichever test comes first."""
    texts = [file.read_text() for file in sorted(schema.folder().rglob("*.sql"))]
    of = hashlib.sha256("\0".join([sql.render(Policy()), version("chdb-core"), MAKE, *texts]).encode()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"sp-telemetry-tests-store-{os.getuid()}-{of}"
    if not place.exists():
        draft = Path(tempfile.mkdtemp(dir=place.parent))
        subprocess.run([sys.executable, "-c", MAKE, str(draft / "store")], check=True, timeout=120)
        (draft / "store").chmod(0o700)
        try:
            (draft / "store").rename(place)
        except OSError:  # another worker was faster
            shutil.rmtree(draft / "store")
        draft.rmdir()
    return place


def copy_to(store: Path) -> None:
    """Into `store`, which is there and empty."""
    shutil.copytree(_made(), store, symlinks=True, dirs_exist_ok=True)
