"""OTLP over gRPC. Messages pass through as bytes; the engine decodes them like those of HTTP.

A call has one message each way. To gRPC it is one of which the client could send several: so it is told of a call before its message has
come, and reads that when there is room (`messages.py`).
"""

from __future__ import annotations

import grpc
import grpc.aio

from sp_telemetry.errors import StoreBusy
from sp_telemetry.serve import peer
from sp_telemetry.serve.commit import Busy, Rejected, Unavailable
from sp_telemetry.serve.intake import Intake
from sp_telemetry.serve.listener import STRANGER
from sp_telemetry.serve.messages import MESSAGE_S, Messages

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
        self._messages = Messages()

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        _, service, method = call.method.split("/")
        if method != "Export" or service not in SERVICES:
            return None  # answered with UNIMPLEMENTED
        signal = SERVICES[service]

        async def export(_: object, context: grpc.aio.ServicerContext) -> bytes:
            if self._own and _stranger(context.peer(), self._own):
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, STRANGER.decode().strip())
            try:
                body = await self._messages.read(context.read)
                if body is grpc.aio.EOF:  # or it was one that gRPC refuses, and has answered itself
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message")
                await self._intake.store(signal, "protobuf", body)
            except Rejected as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except Busy as error:
                await _come_again(context, str(error), error.retry_after_s)
            except TimeoutError:
                await _come_again(context, f"the message came too slowly, or not within {MESSAGE_S:.0f} s", Unavailable.retry_after_s)
            return EXPORTED

        return grpc.stream_unary_rpc_method_handler(export)


async def _come_again(context: grpc.aio.ServicerContext, why: str, after_s: int) -> None:
    context.set_trailing_metadata((("grpc-retry-pushback-ms", str(after_s * 1000)),))
    await context.abort(grpc.StatusCode.UNAVAILABLE, why)


def _stranger(name: str, own: peer.Address) -> bool:
    """`name` is as gRPC has it: ipv4:127.0.0.1:1234. Of other families nothing tells who it is."""
    family, _, end = name.partition(":")
    host, _, port = end.rpartition(":")
    return family != "ipv4" or peer.stranger((host, int(port)), own if own[0] != "0.0.0.0" else (host, own[1]))


async def start(intake: Intake, address: str, port: int, max_request_bytes: int, other_users: bool = False) -> tuple[grpc.aio.Server, int]:
    """Listen on `address`:`port` (0: any) and return the server and its port. Raises StoreBusy when the port is taken."""
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.so_reuseport", 0),  # a second server must fail, not share the port
            ("grpc.max_concurrent_streams", 32),  # a connection; the others wait, which costs no memory
            ("grpc.http2.bdp_probe", 0),  # or a stream's first window grows to many MB
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
