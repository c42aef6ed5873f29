"""A stand-in for the Messages API on loopback: the model's side of a session, written down in advance.

A `Script` holds, for each prompt, the list of replies the model gives to it, one per request. Which one is due is read
from the conversation that the client sends (how many assistant messages follow the prompt), so the server needs no
memory of a session, resumed sessions and subagents work without more, and a retried request gets the same place again.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable


@dataclass(frozen=True)
class Usage:
    """What the API says a reply used; the client computes its cost from exactly this."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0

    def wire(self) -> dict[str, Any]:
        return {
            "input_tokens": self.input,
            "output_tokens": self.output,
            "cache_read_input_tokens": self.cache_read,
            "cache_creation_input_tokens": self.cache_write_5m + self.cache_write_1h,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.cache_write_5m,
                "ephemeral_1h_input_tokens": self.cache_write_1h,
            },
            "service_tier": "standard",
        }


@dataclass(frozen=True)
class ToolUse:
    """A call the model makes: `ToolUse("Read", file_path="/home/author/book/…")`."""

    name: str
    input: dict[str, Any]

    def __init__(self, name: str, **input: Any) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "input", input)


@dataclass(frozen=True)
class Failure:
    """An HTTP error; it answers one attempt, the client's retry gets what the script has next."""

    status: int
    message: str = "Overloaded"
    retry_after: str | None = "0"

    @property
    def type(self) -> str:
        known = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
        return known.get(self.status, "api_error")


@dataclass(frozen=True)
class Reply:
    """One answer: text, then tool calls. `usage` None means plausible numbers grown from the conversation.

    `failures` are answered first, one for each attempt; `delay` is the time the model takes to think.
    """

    text: str = ""
    tools: tuple[ToolUse, ...] = ()
    usage: Usage | None = None
    failures: tuple[Failure, ...] = ()
    delay: float = 0.02

    def __init__(self, text: str = "", *tools: ToolUse, usage: Usage | None = None,
                 failures: tuple[Failure, ...] = (), delay: float = 0.02) -> None:
        for name, value in (("text", text), ("tools", tools), ("usage", usage), ("failures", failures), ("delay", delay)):
            object.__setattr__(self, name, value)


@dataclass
class Request:
    """A request as the script sees it. `kind` is main, subagent or auxiliary (titles, summaries: no tools offered)."""

    session_id: str
    agent_id: str | None
    model: str
    kind: str
    prompt: str
    step: int
    tool_results: list[dict[str, Any]]
    body: dict[str, Any] = field(repr=False)


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


class Script:
    """Prompts and the replies to each. The last message that holds a known prompt decides."""

    def __init__(self, cache: str = "5m") -> None:
        self.cache = cache  # which kind of cache write the default usage states: "5m" or "1h"
        self._replies: dict[str, tuple[Reply | Failure, ...]] = {}
        self._decide: Callable[[Request], Reply | Failure | None] | None = None

    def on(self, prompt: str, *replies: Reply | Failure) -> Script:
        """When a user message holds `prompt`: these replies, one per request of that turn."""
        self._replies[prompt] = replies
        return self

    def otherwise(self, decide: Callable[[Request], Reply | Failure | None]) -> Script:
        """For what no prompt decides (titles, compaction): a function of the request."""
        self._decide = decide
        return self

    def request(self, body: dict[str, Any], headers: Any) -> Request:
        """Reads the conversation: which prompt is under way, and how far."""
        messages = body.get("messages", [])
        prompt, start = "", len(messages)
        for index in range(len(messages) - 1, -1, -1):
            if messages[index]["role"] == "user":
                text = _text(messages[index]["content"])
                # Prompts that were never answered stand together in one message; the last of them is under way.
                prompt = max(self._replies, key=text.rfind, default="")
                prompt = prompt if prompt in text else ""
                if prompt:
                    start = index
                    break
        after = messages[start + 1:]
        agent = headers.get("x-claude-code-agent-id")
        return Request(
            session_id=headers.get("x-claude-code-session-id", ""),
            agent_id=agent,
            model=body.get("model", ""),
            kind="subagent" if agent else "main" if body.get("tools") else "auxiliary",
            prompt=prompt,
            step=sum(message["role"] == "assistant" for message in after),
            tool_results=[block for message in after if isinstance(message["content"], list)
                          for block in message["content"] if block.get("type") == "tool_result"],
            body=body,
        )

    def answer(self, request: Request) -> Reply | Failure:
        replies = self._replies.get(request.prompt, ())
        if request.step < len(replies):
            return replies[request.step]
        decided = self._decide(request) if self._decide else None
        return decided or Reply("Done.")

    def usage(self, request: Request, reply: Reply) -> Usage:
        """Numbers as a real session has them: a large prefix written once, then read, and a little more each time."""
        said = len(reply.text) + sum(len(json.dumps(tool.input)) + 40 for tool in reply.tools)
        sizes = [len(json.dumps(message)) // 4 for message in request.body.get("messages", [])]
        prefix = 18_400 if request.kind == "main" else 9_300 if request.kind == "subagent" else 0
        written = sum(sizes[-2:]) + 120
        read = prefix + sum(sizes[:-2]) if len(sizes) > 2 else 0
        if prefix and not read:
            written += prefix
        if not prefix:
            return Usage(input=sum(sizes) + 300, output=max(8, said // 4))
        kind = {"cache_write_1h": written} if self.cache == "1h" else {"cache_write_5m": written}
        return Usage(input=4, output=max(8, said // 4), cache_read=read, **kind)


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


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content if block.get("type") == "text")


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
