"""What the engine makes once in its life, made before somebody waits for it.

It compiles the policy's patterns and parts of statements where they are first needed. The first events of a server's life waited a
second for that, two or three on a busy machine; and a client that ends waits for two seconds until its last events are taken.
"""

from __future__ import annotations

from sp_telemetry.store.framing import field
from sp_telemetry.store.memory import release
from sp_telemetry.store.pipeline import Pipeline
from sp_telemetry.store.standing_query import AVAILABLE

# What brings the statements to all that they have: a name that may be a person's, an error's text, words that they know and don't.
RESOURCE = {"enduser.id": "a person", "service.name": "a"}
ATTRIBUTES = {"event.name": "a", "session.id": "a", "model": "a", "error": "an error", "tool_name": "a"}


def warm(pipeline: Pipeline) -> None:
    """Type a record that nobody sent, forget it, and give back the memory that only this took. Raises QueryFailed and OSError."""
    if not AVAILABLE:
        return
    pipeline.typed([request(RESOURCE, ATTRIBUTES)])
    with pipeline.engine.handle() as handle:
        release(handle)


def request(resource: dict[str, str], attributes: dict[str, str]) -> bytes:
    """An ExportLogsServiceRequest with one record."""
    record = b"".join(field(6, _attribute(*each)) for each in attributes.items())
    return field(1, field(1, b"".join(field(1, _attribute(*each)) for each in resource.items())) + field(2, field(2, record)))


def _attribute(key: str, value: str) -> bytes:
    return field(1, key.encode()) + field(2, field(1, value.encode()))
