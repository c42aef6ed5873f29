"""Which session goes on with which: forks, and what was begun by /clear. The statement is telemetry-server/transcripts/links.sql."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from sp_telemetry.store.client import Client, Statements
from sp_telemetry.store.schema import run_file
from sp_telemetry.transcripts.reading import Read


def link(client: Client) -> None:
    """Find all links anew (session_links). Raises ServerUnreachable, QueryFailed."""
    run_file(Statements(client), "transcripts/links.sql")


@contextlib.contextmanager
def linking(client: Client, read: Read) -> Iterator[None]:
    """Beside what runs in the block, `link`, if reading brought something new; done when the block ends."""
    with ThreadPoolExecutor(1) as beside:
        linked = beside.submit(link, client) if read.changed else None
        yield
        if linked:
            linked.result()
