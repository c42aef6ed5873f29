"""Recorded sessions of the real client, sent again as the client sent them: same bytes, same protocol.

A recording is a folder: `recording.json` lists its export requests, each a file of its own, and `context.logs.json` is what the hooks
told about it (tests/recordings/README.md in the sources).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sp_telemetry.errors import SpTelemetryError

GRPC_METHODS = {
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
}
TIMEOUT_S = 30
AT_ONCE = 8


@dataclass(frozen=True)
class Recording:
    folder: Path

    @cached_property
    def about(self) -> dict[str, Any]:
        return json.loads((self.folder / "recording.json").read_text("utf-8"))

    @property
    def sessions(self) -> list[str]:
        return [session["session_id"] for session in self.about["sessions"]]

    def requests(self) -> list[tuple[str, str, bytes]]:
        """(signal, content type, body) of each request: first the context records, then the client's exports in order."""
        context = [("logs", "application/json", (self.folder / "context.logs.json").read_bytes())]
        return context + [(r["signal"], r["content_type"], (self.folder / r["file"]).read_bytes()) for r in self.about["requests"]]


def replay(recording: Recording, address: str, ports: Mapping[str, int], sent: Callable[[int, int], None] = lambda done, of: None) -> None:
    """Send `recording` to the server at `address`, whose ports are `ports`; `sent` is told after each request. All must be accepted.

    The context records go first and alone, the exports several at a time, as from several sessions.
    """
    import httpx

    context, *exports = recording.requests()
    with httpx.Client(base_url=f"http://{address}:{ports['otlp_http']}", timeout=TIMEOUT_S, trust_env=False) as http:

        def send(request: tuple[str, str, bytes]) -> None:
            signal, content_type, body = request
            if content_type == "application/grpc":
                _send_grpc(f"{address}:{ports['otlp_grpc']}", signal, body)
                return
            answer = http.post(f"/v1/{signal}", content=body, headers={"Content-Type": content_type})
            if answer.status_code != 200:
                raise SpTelemetryError(f"{recording.folder.name}: a request was answered with {answer.status_code}: {answer.text[:300]}")

        send(context)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done, _ in enumerate(pool.map(send, exports), start=2):
                sent(done, len(exports) + 1)


def _send_grpc(address: str, signal: str, body: bytes) -> None:
    import grpc

    with grpc.insecure_channel(address) as channel:
        channel.unary_unary(GRPC_METHODS[signal])(body, timeout=TIMEOUT_S)
