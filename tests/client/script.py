"""The model's side of a session, written down in advance: prompts, and the replies to each.

Which reply is due is read from the conversation that the client sends (how many assistant messages follow the prompt),
so nothing is remembered between requests: resumed sessions and subagents work without more, and a retried request gets
the same place again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Usage:
    """What the API says a reply used; the client computes its cost from exactly this."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)  # what else stands in the API's usage: speed, inference_geo, …

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
            **self.more,
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


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content if block.get("type") == "text")
