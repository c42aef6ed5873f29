"""A stand-in for the Messages API on loopback: it streams what a `Script` says, and keeps a log of what it answered."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.client.script import Failure, Reply, Request, Script, Usage


@dataclass
class Answered:
    """A line of the log: what was asked and how it was answered; `usage` is None for an error."""

    request_id: str
    session_id: str
    agent_id: str | None
    model: str
    kind: str
    status: int
    usage: dict[str, Any] | None
    at_ns: int
    observed: dict[str, Any] = field(default_factory=dict)


class MessagesApi:
    """The server; a context manager. `log` keeps each answer in order of time.

    `observe` is asked when a request arrives, before it is answered; what it returns goes into the log. It lets a test
    keep the truth of that moment (the branch checked out, say) beside what the client reports later.
    """

    def __init__(self, script: Script, port: int = 0, observe: Callable[[Request], dict[str, Any]] | None = None) -> None:
        self.script = script
        self.observe = observe or (lambda request: {})
        self.log: list[Answered] = []
        self._attempts: Counter[tuple[Any, ...]] = Counter()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        api = self

        class Handler(_Handler):
            server_api = api

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> MessagesApi:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def decide(self, body: dict[str, Any], headers: Any) -> tuple[str, Request, Reply | Failure]:
        """The answer due now, with a request id that is unique over all servers of a recording."""
        request = self.script.request(body, headers)
        answer = self.script.answer(request)
        with self._lock:
            number = next(self._numbers)
            place = (request.session_id, request.agent_id, request.prompt, request.step)
            attempt = self._attempts[place]
            self._attempts[place] += 1
        if isinstance(answer, Reply) and attempt < len(answer.failures):
            answer = answer.failures[attempt]
        return f"req_{time.time_ns():x}{number:04x}", request, answer

    def note(self, request_id: str, request: Request, status: int, usage: Usage | None) -> None:
        observed = self.observe(request)
        with self._lock:
            self.log.append(Answered(request_id, request.session_id, request.agent_id, request.model, request.kind,
                                     status, usage.wire() if usage else None, time.time_ns(), observed))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_api: MessagesApi

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._send(200, "application/json", b"")

    def do_GET(self) -> None:
        self._send(200, "application/json", b'{"data":[]}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        path = self.path.split("?")[0]
        if path.endswith("/count_tokens"):
            self._send(200, "application/json", json.dumps({"input_tokens": len(json.dumps(body)) // 4}).encode())
            return
        if not path.endswith("/v1/messages"):
            self._send(404, "application/json", b"{}")
            return
        api = self.server_api
        request_id, request, answer = api.decide(body, self.headers)
        if isinstance(answer, Failure):
            api.note(request_id, request, answer.status, None)
            error = {"type": "error", "error": {"type": answer.type, "message": answer.message}, "request_id": request_id}
            headers = {"request-id": request_id}
            if answer.retry_after is not None:
                headers["retry-after"] = answer.retry_after
            self._send(answer.status, "application/json", json.dumps(error).encode(), headers)
            return
        usage = answer.usage or api.script.usage(request, answer)
        api.note(request_id, request, 200, usage)
        time.sleep(answer.delay)
        message = _message(request_id, request.model, answer, usage)
        if body.get("stream"):
            data = b"".join(b"event: %s\ndata: %s\n\n" % (name.encode(), json.dumps(event).encode())
                            for name, event in _events(message))
            self._send(200, "text/event-stream", data, {"request-id": request_id})
        else:
            self._send(200, "application/json", json.dumps(message).encode(), {"request-id": request_id})

    def _send(self, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _message(request_id: str, model: str, reply: Reply, usage: Usage) -> dict[str, Any]:
    stem = request_id.removeprefix("req_")
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    content += [{"type": "tool_use", "id": f"toolu_{stem}{index:02d}", "name": tool.name, "input": tool.input}
                for index, tool in enumerate(reply.tools)]
    return {"id": f"msg_{stem}", "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": "tool_use" if reply.tools else "end_turn", "stop_sequence": None, "usage": usage.wire()}


def _events(message: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The stream as the API sends it: the first frame states a placeholder for the output, the last one the truth."""
    start = {**message, "content": [], "stop_reason": None, "usage": {**message["usage"], "output_tokens": 1}}
    events: list[tuple[str, dict[str, Any]]] = [("message_start", {"message": start})]
    for index, block in enumerate(message["content"]):
        if block["type"] == "text":
            empty, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        events += [("content_block_start", {"index": index, "content_block": empty}),
                   ("content_block_delta", {"index": index, "delta": delta}),
                   ("content_block_stop", {"index": index})]
    final = {"output_tokens": message["usage"]["output_tokens"]}
    events += [("message_delta", {"delta": {"stop_reason": message["stop_reason"], "stop_sequence": None}, "usage": final}),
               ("message_stop", {})]
    return [(name, {"type": name, **event}) for name, event in events]
