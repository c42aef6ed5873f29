"""OTLP over HTTP: POST /v1/logs, /v1/metrics, /v1/traces, protobuf and JSON, gzip, with or without a content length.

Answers as the OTLP specification wants them: 200 with Export*ServiceResponse when committed, 400 for what can never be stored, 429
(too much waits) or 503 (the store can't) with Retry-After for what may be sent again; each error with a google.rpc.Status in the
request's encoding.
"""

from __future__ import annotations

import json

from aiohttp import web

from sp_telemetry.serve import listener, trouble
from sp_telemetry.serve.bodies import Bodies
from sp_telemetry.serve.commit import Busy, Rejected, Unavailable
from sp_telemetry.serve.intake import Intake
from sp_telemetry.store.pipeline import SIGNALS

PROTOBUF, JSON = "application/x-protobuf", "application/json"
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNAVAILABLE = 3, 8, 14  # google.rpc.Code
BODY_S = 30  # for a request's body to arrive
BODIES = 4  # of the largest size may be under way at once


def application(intake: Intake, max_request_bytes: int) -> web.Application:
    """The OTLP/HTTP endpoints over `intake`. Larger requests than `max_request_bytes`, decompressed, get 413."""

    def endpoint(signal: str):
        async def export(request: web.Request) -> web.Response:
            encoding = {PROTOBUF: "protobuf", JSON: "json"}.get(request.content_type)
            if encoding is None:
                allowed = f"{request.content_type!r} is not an OTLP content type; send {PROTOBUF} or {JSON}"
                return _failure(415, INVALID_ARGUMENT, allowed, JSON)
            try:
                with bodies.share() as share:
                    body = await share.read(request, max_request_bytes, BODY_S)
            except Busy as error:
                return _failure(429, RESOURCE_EXHAUSTED, str(error), request.content_type, error.retry_after_s)
            except TimeoutError:  # 408 would be true, and the sender would throw its events away, also where it is us who were slow
                response = _unavailable(f"the body didn't arrive within {BODY_S} s", request.content_type)
                response.force_close()
                return response
            except web.HTTPRequestEntityTooLarge:
                return _failure(413, INVALID_ARGUMENT, f"the request is larger than {max_request_bytes} bytes", request.content_type)
            except web.HTTPException:
                raise
            except Exception as error:  # a body that is not what its Content-Encoding says
                if memory := trouble.of_memory(error):
                    intake.note_refusal(why := Unavailable(trouble.of_error(memory)))
                    return _unavailable(why, request.content_type)
                return _failure(400, INVALID_ARGUMENT, f"the body can't be read: {listener.kind(error)}", request.content_type)
            if encoding == "json" and not body.strip():
                return _failure(400, INVALID_ARGUMENT, "the body is empty; an OTLP/JSON request is at least {}", JSON)
            try:
                await intake.store(signal, encoding, body)
            except Rejected as error:
                return _failure(400, INVALID_ARGUMENT, str(error), request.content_type)
            except Busy as error:
                if isinstance(error, Unavailable):
                    return _unavailable(error, request.content_type)
                return _failure(429, RESOURCE_EXHAUSTED, str(error), request.content_type, error.retry_after_s)
            return web.Response(body=b"" if encoding == "protobuf" else b"{}", content_type=request.content_type)

        return export

    bodies = Bodies(BODIES * max_request_bytes)
    app = web.Application()
    for signal in SIGNALS:
        app.router.add_post(f"/v1/{signal}", endpoint(signal))
    return app


def _unavailable(why: Unavailable | str, content_type: str) -> web.Response:
    return _failure(503, UNAVAILABLE, str(why), content_type, Unavailable.retry_after_s)


def _failure(status: int, code: int, message: str, content_type: str, retry_after_s: int = 0) -> web.Response:
    if content_type == PROTOBUF:
        body = rpc_status(code, message)
    else:
        body, content_type = json.dumps({"code": code, "message": message}).encode(), JSON
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else None
    return web.Response(status=status, body=body, content_type=content_type, headers=headers)


def rpc_status(code: int, message: str) -> bytes:
    """google.rpc.Status{code = 1, message = 2} as protobuf. `message` is cut so that its length fits two bytes."""
    text = message.encode()[:16000]
    return bytes((0x08, code, 0x12, len(text) & 0x7F | 0x80, len(text) >> 7)) + text
