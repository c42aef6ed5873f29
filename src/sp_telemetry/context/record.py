"""The context record: what one session worked on from one moment on, in the form in which it is sent and stored.

Standard library only, Python 3.9, no import of a sibling: the hooks load this file by path. It is a named tuple and not a dataclass
because importing `dataclasses` takes twice as long as starting the interpreter, and a hook has to do both.

A record travels as an OTLP log record, so that it takes the same way as Claude Code's own telemetry, at least once; `record_id` is
unique across machines and makes it exactly once.
"""

import os
import time
from collections import namedtuple

EVENT = "sp_telemetry.context"
SERVICE = "sp-telemetry-context"

_DEFAULTS = (
    ("session_id", ""), ("at_ns", 0), ("project", ""), ("branch", ""), ("feature", ""), ("chapter", ""), ("part", ""), ("step", ""),
    ("person", ""), ("directory", ""), ("spec_directory", ""), ("worktree", ""), ("feature_source", ""), ("chapter_source", ""),
    ("confidence", 0.0), ("hook", ""), ("record_id", ""),
)  # fmt: skip
FIELDS = tuple(name for name, _ in _DEFAULTS)
_NOT_CONTEXT = frozenset(("at_ns", "hook", "record_id", "confidence"))


class ContextRecord(namedtuple("ContextRecord", FIELDS, defaults=[value for _, value in _DEFAULTS])):
    """One record. Immutable; `_replace(step="plan")` makes another. `directory` and `spec_directory` are relative to the repository."""

    __slots__ = ()

    def same_context(self, other) -> bool:
        """Whether both say the same: all but the moment, the hook, the id and the confidence."""
        return isinstance(other, ContextRecord) and self.key() == other.key()

    def key(self) -> tuple:
        """What has to differ for a record to be worth writing."""
        return tuple(value for name, value in self._asdict().items() if name not in _NOT_CONTEXT)

    def as_dict(self) -> dict:
        return self._asdict()

    @classmethod
    def from_dict(cls, values: dict):
        """The record of a dict, as a state or spool file keeps it. Unknown names are left out: a newer version may have written it."""
        return cls(**{name: values[name] for name in FIELDS if name in values})


def new_id() -> str:
    """A random UUID (version 4) in hex; made here, for `import uuid` costs a hook 4 ms."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return raw.hex()


def make(session_id, hook, repository, decision, *, clean, project="", person="", at_ns=0) -> ContextRecord:
    """A record of now from what `gitfiles.read` and `rules.decide` found.

    `clean` makes a name one that may be kept: `rules.clean`, or the hooks' redaction. Passed in, as no sibling is imported.
    """
    matched = [found.confidence for found in (decision.feature, decision.chapter, decision.part, decision.step) if found.value]
    return ContextRecord(
        session_id=session_id,
        at_ns=at_ns or time.time_ns(),
        project=clean(project or repository.project),
        branch=clean(repository.branch),
        feature=clean(decision.feature.value),
        chapter=clean(decision.chapter.value),
        part=clean(decision.part.value),
        step=clean(decision.step.value),
        person=person,
        directory=clean(repository.directory),
        spec_directory=clean(decision.spec_directory.value),
        worktree=clean(repository.worktree),
        feature_source=decision.feature.source,
        chapter_source=decision.chapter.source,
        confidence=min(matched) if matched else 0.0,
        hook=hook,
        record_id=new_id(),
    )


def to_otlp_json(records) -> bytes:
    """An OTLP/JSON ExportLogsServiceRequest of these records, for `/v1/logs`."""
    import json  # only where a record is sent, which is when the context changed

    logs = [
        {"timeUnixNano": str(record.at_ns), "body": {"stringValue": EVENT}, "attributes": _attributes(record)} for record in records
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": SERVICE}}]}
    request = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {"name": EVENT}, "logRecords": logs}]}]}
    return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _attributes(record):
    named = [("event.name", EVENT), ("session.id", record.session_id)]
    named += [("context." + name, value) for name, value in record.as_dict().items() if name not in ("session_id", "at_ns")]
    return [{"key": key, "value": {"doubleValue" if isinstance(value, (int, float)) else "stringValue": value}} for key, value in named]
