"""OTLP over gRPC. Messages pass through as bytes; the engine decodes them like those of HTTP."""

from __future__ import annotations

import grpc
import grpc.aio

from sp_telemetry.errors import StoreBusy
from sp_telemetry.serve.intake import Busy, Intake, Rejected

SERVICES = {
    "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
    "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
}
EXPORTED = b""  # an Export*ServiceResponse without partial_success


class _Services(grpc.GenericRpcHandler):
    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        _, service, method = call.method.split("/")
        if method != "Export" or service not in SERVICES:
            return None  # answered with UNIMPLEMENTED
        signal = SERVICES[service]

        async def export(body: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                await self._intake.store(signal, "protobuf", body)
            except Rejected as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Busy as error:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", str(error.retry_after_s * 1000)),))
                await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            return EXPORTED

        return grpc.unary_unary_rpc_method_handler(export)


async def start(intake: Intake, address: str, port: int, max_request_bytes: int) -> tuple[grpc.aio.Server, int]:
    """Listen on `address`:`port` (0: any) and return the server and its port. Raises StoreBusy when the port is taken."""
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.so_reuseport", 0),  # a second server must fail, not share the port
        )
    )
    server.add_generic_rpc_handlers((_Services(intake),))
    try:
        bound = server.add_insecure_port(f"{address}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise StoreBusy(f"Port {port} of {address} can't be listened on.")
    await server.start()
    return server, bound
