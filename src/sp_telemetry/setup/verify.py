"""The proof: one event over the real OTLP path, read back through the ClickHouse interface as a report reads.

It is sent as Claude Code sends (OTLP/HTTP, protobuf) under an event name of ours and without a session, so that no report counts it.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, replace

from sp_telemetry import __version__
from sp_telemetry.errors import ServerUnreachable, SpTelemetryError
from sp_telemetry.home import Home
from sp_telemetry.setup import listeners
from sp_telemetry.setup.environment import PERSON
from sp_telemetry.store.client import connect

EVENT = "sp_telemetry.setup_check"
SEND_S = 10
READ_S = 45 # a collector that met a store without tables tries again after a while


@dataclass(frozen=True)
class Proof:
    """An event that was read back: under whose name, and how long sending and reading took."""

    event_id: str
    person: str
    sent_s: float
    read_s: float


def send_and_read_back(home: Home, endpoint: str, person: str) -> Proof:
    """Send one event to `endpoint` and read it from the store. Raises with the reason where that fails."""
    event_id, begun = str(uuid.uuid4()), time.monotonic()
    request = urllib.request.Request(
        f"{endpoint}/v1/logs", export_request(event_id, person, time.time_ns()), {"Content-Type": "application/x-protobuf"}
    )
    try:
        with listeners.ask(request, SEND_S):
            sent = time.monotonic()
    except urllib.error.HTTPError as error:
        what = f"{endpoint} refused the test event: HTTP {error.code}."
        raise SpTelemetryError(what, "`sp-telemetry doctor` says who answers there.") from None
    except OSError as error:
        raise ServerUnreachable(f"Nobody takes events at {endpoint} ({error}).", "`sp-telemetry up` starts the server.") from None
    settings = home.settings()
    client = connect(home, replace(settings, values={**settings.values, "url": ""}))  # our own server, whatever reports ask
    while True:
        answer = client.query(
            "SELECT user_id FROM telemetry.telemetry_events WHERE event_type = {event:String} AND prompt_id = {id:String} LIMIT 1",
            {"event": EVENT, "id": event_id},
        )
        if answer.rows:
            return Proof(event_id, answer.rows[0][0], sent - begun, time.monotonic() - sent)
        if time.monotonic() - sent > READ_S:
            raise SpTelemetryError(
                f"{endpoint} took the test event, and {client.address} does not have it.",
                "Does another program answer at one of these ports? `sp-telemetry doctor` says who.",
            )
        time.sleep(0.05)


def export_request(event_id: str, person: str, at_ns: int) -> bytes:
    """An ExportLogsServiceRequest with one record, as protobuf."""
    resource = _message(1, _attribute("service.name", "sp-telemetry-setup") + _attribute("service.version", __version__))
    named = {"event.name": EVENT, "prompt.id": event_id} | ({PERSON: person} if person else {})
    attributes = b"".join(_message(6, _pair(*one)) for one in named.items())
    record = b"\x09" + at_ns.to_bytes(8, "little") + _message(5, _text(1, EVENT)) + attributes
    scope = _message(1, _text(1, "sp_telemetry.setup"))
    return _message(1, resource + _message(2, scope + _message(2, record)))


def _attribute(key: str, value: str) -> bytes:
    return _message(1, _pair(key, value))


def _pair(key: str, value: str) -> bytes:
    return _text(1, key) + _message(2, _text(1, value))


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, body: bytes) -> bytes:
    size, length = bytearray(), len(body)
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    size.append(length)
    return bytes((field << 3 | 2,)) + bytes(size) + body
