"""OTLP over gRPC. Messages pass through as bytes; the engine decodes them like those of HTTP."""

from __future__ import annotations

import grpc
import grpc.aio

from sp_telemetry.errors import StoreBusy
from sp_telemetry.serve import peer
from sp_telemetry.serve.intake import Busy, Intake, Rejected
from sp_telemetry.serve.listener import STRANGER

SERVICES = {
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
}
EXPORTED = b""  # an Export*ServiceResponse without partial_success


class _Services(grpc.GenericRpcHandler):
    def __init__(self, intake: Intake, own: peer.Address | None) -> None:
        self._intake = intake
        self._own = own

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        _, service, method = call.method.split("/")
        if method != "Export" or service not in SERVICES:
            return None  # answered with UNIMPLEMENTED
        signal = SERVICES[service]

        async def export(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
            if self._own and _stranger(context.peer(), self._own):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, STRANGER.decode().strip())
            try:
                await self._intake.store(signal, "protobuf", body)
            except Rejected as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Busy as error:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(error.retry_after_s * 1000)),))
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            return EXPORTED

        return grpc.unary_unary_rpc_method_handler(export)


def _stranger(name: str, own: peer.Address) -> bool:
    """`name` is as gRPC has it: ipv4:127.0.0.1:1234."""
    family, _, end = name.partition(":")
    host, _, port = end.rpartition(":")
    return family == "ipv4" and peer.stranger((host, int(port)), own if own[0] != "0.0.0.0" else (host, own[1]))


async def start(intake: Intake, address: str, port: int, max_request_bytes: int, other_users: bool = False) -> tuple[grpc.aio.Server, int]:
    """Listen on `address`:`port` (0: any) and return the server and its port. Raises StoreBusy when the port is taken."""
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.so_reuseport", 0),  # a second server must fail, not share the port
            ("grpc.max_concurrent_streams", 32),  # a connection; the others wait, which costs no memory
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.max_connection_idle_ms", 600_000),
        )
    )
    try:
        bound = server.add_insecure_port(f"{address}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise StoreBusy(f"Port {port} of {address} can't be listened on.")
    server.add_generic_rpc_handlers((_Services(intake, None if other_users else (address, bound)),))
    await server.start()
    return server, bound
