"""An OTLP receiver that keeps what it was sent, byte for byte.

It answers as a real one does (an empty success message of the right type), over HTTP in both encodings and over gRPC,
so the client neither retries nor complains. gRPC is served with handlers of raw bytes: no generated service is needed,
and the body kept is the body sent. Compression and chunking are undone; nothing else is touched.
"""

from __future__ import annotations

import gzip
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SIGNALS = ("logs", "metrics", "traces")
_SERVICES = {
    "logs": "opentelemetry.proto.collector.logs.v1.LogsService",
    "metrics": "opentelemetry.proto.collector.metrics.v1.MetricsService",
    "traces": "opentelemetry.proto.collector.trace.v1.TraceService",
}


@dataclass(frozen=True)
class Recorded:
    """One export request, in order of arrival."""

    signal: str
    content_type: str
    body: bytes = field(repr=False)
    received_at: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def extension(self) -> str:
        return "json" if "json" in self.content_type else "pb"


class OtlpRecorder:
    """Listens on two free loopback ports (HTTP, gRPC); a context manager. `requests` is what arrived."""

    def __init__(self, grpc: bool = True) -> None:
        self.requests: list[Recorded] = []
        self._lock = threading.Lock()
        recorder = self

        class Handler(_Handler):
            recorder_ = recorder

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.http_url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._grpc, port = _grpc_server(self) if grpc else (None, 0)
        self.grpc_url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> OtlpRecorder:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        if self._grpc:
            self._grpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        if self._grpc:
            self._grpc.stop(1).wait()

    def keep(self, signal: str, content_type: str, body: bytes, headers: dict[str, str]) -> None:
        with self._lock:
            self.requests.append(Recorded(signal, content_type, body, time.time_ns(), headers))

    def of(self, signal: str) -> list[Recorded]:
        """The requests of one signal: logs, metrics or traces."""
        return [request for request in self.requests if request.signal == signal]

    def environment(self, protocol: str = "http/protobuf", *, traces: bool = True, **switches: str) -> dict[str, str]:
        """What makes a client export here, quickly, and wait up to two seconds (more is not taken) for its last exports."""
        values = {
            "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_LOGS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.grpc_url if protocol == "grpc" else self.http_url,
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",
            "OTEL_LOGS_EXPORT_INTERVAL": "500",
            "OTEL_TRACES_EXPORT_INTERVAL": "1000",
            "CLAUDE_CODE_OTEL_FLUSH_TIMEOUT_MS": "20000",
            "CLAUDE_CODE_OTEL_SHUTDOWN_TIMEOUT_MS": "20000",
        }
        if traces:
            values |= {"CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1", "OTEL_TRACES_EXPORTER": "otlp"}
        return values | switches


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    recorder_: OtlpRecorder

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        signal = self.path.rstrip("/").rsplit("/", 1)[-1]
        body = _decompressed(self._body(), self.headers.get("content-encoding", ""))
        kind = self.headers.get("content-type", "").split(";")[0].strip()
        known = signal in SIGNALS and kind in ("application/x-protobuf", "application/json")
        if known:
            self.recorder_.keep(signal, kind, body, {name.lower(): value for name, value in self.headers.items()})
        answer = b"{}" if kind == "application/json" else b""
        self.send_response(200 if known else 404 if signal not in SIGNALS else 415)
        self.send_header("content-type", kind or "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _body(self) -> bytes:
        # Versions 2.1.191 to 2.1.211 send chunks and no length.
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    return body


def _grpc_server(recorder: OtlpRecorder) -> tuple[Any, int]:
    import grpc

    def handler(signal: str) -> Any:
        def export(body: bytes, context: Any) -> bytes:
            headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            recorder.keep(signal, "application/grpc", body, headers)
            return b""

        return grpc.method_handlers_generic_handler(
            _SERVICES[signal], {"Export": grpc.unary_unary_rpc_method_handler(export)}
        )

    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", 64 << 20)])
    server.add_generic_rpc_handlers(tuple(handler(signal) for signal in SIGNALS))
    return server, server.add_insecure_port("127.0.0.1:0")
