"""How ClickHouse answers over HTTP: status, headers, errors, encodings. Pure."""

from __future__ import annotations

import json
import re
import time
import zlib
from dataclasses import dataclass

from aiohttp import web

from sp_telemetry.errors import QueryFailed
from sp_telemetry.serve.clickhouse_request import Asked, refuse
from sp_telemetry.store.engine import Work

# ClickHouse's own mapping of error codes to HTTP statuses; everything else is a 500.
_STATUS = {
    **dict.fromkeys((192, 193, 497, 516, 512), 403),
    194: 401,
    **dict.fromkeys((6, 25, 26, 27, 36, 38, 41, 44, 53, 62, 72, 8, 15, 117, 167, 168, 203, 321, 427, 441, 456, 457, 675, 676, 72, 69), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 63, 73, 78, 81, 113, 115, 511, 55), 404),
    48: 501,
    **dict.fromkeys((76, 209, 439), 503),
    159: 408,
    381: 411,
    298: 413,
    # Not ClickHouse's, which says 500: what a statement's own types and values don't allow is no fault of ours.
    **dict.fromkeys((42, 43, 59, 70, 130, 131, 153, 376, 386, 467, 691), 400),
}
_OF_A_PARAMETER = re.compile(r" for query parameter '\w+'")  # of which the same is true, whatever its code
_CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "NDJSON": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
    "Markdown": "text/markdown; charset=UTF-8",
    "PNG": "image/png",
}
BINARY = ("Native", "RowBinary", "Parquet", "Arrow", "ORC", "Avro", "MsgPack", "Protobuf", "BSON", "Npy", "RawBLOB", "Buffers")


@dataclass
class Reply:
    """What is said in the headers of each answer, and known before there is one."""

    host: str
    started: int
    query_id: str = ""
    format: str = ""

    def headers(self, work: Work | None = None) -> dict[str, str]:
        headers = {"X-ClickHouse-Server-Display-Name": self.host, "Connection": "Keep-Alive", "Keep-Alive": "timeout=30"}
        if self.query_id:
            headers["X-ClickHouse-Query-Id"] = self.query_id
        if self.format:
            headers["X-ClickHouse-Format"] = self.format
            headers["X-ClickHouse-Timezone"] = TIMEZONE
        work = work or Work()
        headers["X-ClickHouse-Summary"] = json.dumps(
            {
                "read_rows": str(work.read_rows),
                "read_bytes": str(work.read_bytes),
                "written_rows": str(work.written_rows),
                "written_bytes": str(work.written_bytes),
                "total_rows_to_read": "0",
                "result_rows": str(work.result_rows),
                "result_bytes": "0",
                "elapsed_ns": str(time.perf_counter_ns() - self.started),
            },
            separators=(",", ":"),
        )
        return headers


TIMEZONE = "UTC"


def content_type(format: str) -> str:
    """The Content-Type that ClickHouse sends for a format."""
    if format in _CONTENT_TYPES:
        return _CONTENT_TYPES[format]
    if format.startswith(BINARY):
        return "application/octet-stream"
    if format.startswith("JSON"):
        lines = "EachRow" in format or format == "JSONLines"
        return "application/x-ndjson; charset=UTF-8" if lines else "application/json; charset=UTF-8"
    if format.startswith("CSV"):
        return _CONTENT_TYPES["CSVWithNames"]
    if format.startswith(("TabSeparated", "TSV")):
        return _CONTENT_TYPES["TSV"]
    return "text/plain; charset=UTF-8"


def whole(reply: Reply, body: bytes, work: Work, asked: Asked) -> web.Response:
    headers = reply.headers(work) | {"Content-Type": content_type(reply.format)}
    if asked.gzip and body:
        packer = zlib.compressobj(3, zlib.DEFLATED, 31)
        body = packer.compress(body) + packer.flush()
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=body, headers=headers)


def beginning(reply: Reply, work: Work, asked: Asked, tag: str) -> web.StreamResponse:
    headers = reply.headers(work) | {"Content-Type": content_type(reply.format), "X-ClickHouse-Exception-Tag": tag}
    if asked.gzip:
        headers["Content-Encoding"] = "gzip"
    return web.StreamResponse(headers=headers)


def failure(reply: Reply, error: QueryFailed, status: int | None = None) -> web.Response:
    headers = reply.headers() | {"X-ClickHouse-Exception-Code": str(error.code), "Content-Type": "text/plain; charset=UTF-8"}
    status = status or (400 if _OF_A_PARAMETER.search(str(error)) else _STATUS.get(error.code, 500))
    if error.code == 516:
        headers["WWW-Authenticate"] = 'Basic realm="ClickHouse server HTTP API"'
    return web.Response(status=status, text=str(error) + "\n", headers=headers)


def late_failure(error: QueryFailed, tag: str) -> bytes:
    message = str(error).encode()
    return b"\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n" % (tag.encode(), message, len(message) + 1, tag.encode())


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """A request's body without the encodings that aiohttp leaves on it. Raises QueryFailed beyond `limit`, however small it came."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity", "gzip", "deflate"):  # aiohttp has undone these
        return body
    if encoding == "lz4":
        import lz4.frame

        opener = lz4.frame.LZ4FrameDecompressor()
    elif encoding == "zstd":
        from backports import zstd

        if body[:4] != b"\x28\xb5\x2f\xfd":  # aiohttp undoes it where it can
            return body
        opener = zstd.ZstdDecompressor()
    else:
        raise refuse(36, "BAD_ARGUMENTS", f"Unknown compression method: {encoding[:30]}")
    pieces, size = [], 0
    data = body
    while True:
        piece = opener.decompress(data, max_length=1 << 20)
        data = b""
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise refuse(298, "QUERY_IS_TOO_LARGE", f"A request may have {limit} bytes")
        if opener.eof or (not piece and opener.needs_input):
            return b"".join(pieces)
