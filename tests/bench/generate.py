"""Data to measure with: OTLP requests like the client's, and millions of stored rows.

`Requests` takes the log records of the recordings (tests/recordings) apart once, with the protobuf library, and after that only
copies bytes and writes new ones over what must differ in every event: session, sequence, time, prompt, request, tool call, message,
cost. The mix of event types is that of long sessions; the recordings' own is of short ones, in which each start weighs too much.

`fill` writes rows straight into telemetry_events by SQL, for questions about stores that are large.

    python tests/bench/generate.py            what the requests look like
"""

from __future__ import annotations

import random
import re
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
CLIENTS = ("book-2.1.330-http-protobuf", "book-2.1.197-http-protobuf")
MIX = {  # of 100 events in a long session
    "tool_decision": 20,
    "tool_result": 20,
    "api_request": 19,
    "assistant_response": 12,
    "user_prompt": 7,
    "hook_execution_start": 7,
    "hook_execution_complete": 7,
    "hook_registered": 2,
    "skill_activated": 2,
    "plugin_loaded": 1,
    "subagent_completed": 1,
    "api_error": 2,
}
FIRST, LAST = 128, 16383  # event.sequence: the numbers that take two bytes
SESSION = "00000000-0000-4000-8000-00000000feed"  # the widths that are patched
PROMPT = "00000000-0000-4000-8000-0000000000bb"
MESSAGE = "00000000-0000-4000-8000-0000000000cc"
REQUEST = "req_" + "0" * 20
TOOL = "toolu_" + "0" * 20
STAMP = "2000-01-01T00:00:00.000Z"
SEQUENCE, NANOS, COST = 12345, 0x0102030405060708, 0.0123456789
EVENTS_A_PROMPT = 25
STEP_NS = 40_000_000  # between events of a session


@dataclass(frozen=True)
class Template:
    """A log record, as a field of ScopeLogs, and where in it what stands."""

    name: str
    bytes: bytes
    places: dict[str, tuple[int, ...]]


class Requests:
    """ExportLogsServiceRequests of `events` events each, all of one session. `run` tells the sessions of one run from all others."""

    def __init__(self, events: int, sessions: int, run: int, seed: int = 1) -> None:
        self._events, self._sessions, self._run = events, sessions, run
        self._random = random.Random(seed)
        self._clients = [_client(name) for name in CLIENTS]

    def session(self, number: int) -> str:
        return f"{self._run:08x}-0000-4000-8000-{number:012x}"

    def prefix(self) -> str:
        return f"{self._run:08x}-"

    def make(self, requests: int) -> list[bytes]:
        """So many requests, each another one; sessions take turns. Raises ValueError when the sessions' numbers run out."""
        if requests * self._events > self._sessions * (LAST - FIRST + 1):
            raise ValueError(f"{self._sessions} sessions have no numbers for {requests * self._events} events")
        blocks = [self._block(client) for client in self._clients for _ in range(max(4, 256 // self._events))]
        sequences = [FIRST] * self._sessions
        begun = time.time_ns()
        made = []
        for number in range(requests):
            session = number % self._sessions
            block, records = blocks[(session + number // self._sessions) % len(blocks)]
            body = bytearray(block)
            self._patch(body, records, session, sequences[session], begun)
            sequences[session] += self._events
            made.append(bytes(body))
        return made

    def _block(self, client: tuple[bytes, bytes, dict[str, list[Template]]]) -> tuple[bytes, list[tuple[int, Template]]]:
        resource, scope, templates = client
        names = self._random.choices(
            [name for name in MIX if name in templates], [MIX[name] for name in MIX if name in templates], k=self._events
        )
        chosen = [self._random.choice(templates[name]) for name in names]
        inner = scope + b"".join(template.bytes for template in chosen)
        scope_logs = b"\x12" + varint(len(inner)) + inner
        block = b"\x0a" + varint(len(resource) + len(scope_logs)) + resource + scope_logs
        at = len(block) - len(inner) + len(scope)
        records = []
        for template in chosen:
            records.append((at, template))
            at += len(template.bytes)
        return block, records

    def _patch(self, body: bytearray, records: list[tuple[int, Template]], session: int, sequence: int, begun: int) -> None:
        identity = self.session(session).encode()
        for number, (start, template) in enumerate(records, sequence):
            unique = f"{self._run & 0xFFFFF:05x}{session & 0xFFFFFFF:07x}{number:08x}".encode()
            at_ns = begun + (number - LAST) * STEP_NS + session
            values = {
                "session": identity,
                "sequence": bytes((number & 0x7F | 0x80, number >> 7)),
                "time": struct.pack("<Q", at_ns),
                "prompt": b"%s-%s-4000-8000-%012x" % (identity[:8], identity[-4:], number // EVENTS_A_PROMPT),
                "message": b"%s-%s-4000-8001-%012x" % (identity[:8], identity[-4:], number),
                "request": unique,
                "tool": unique,
                "cost": struct.pack("<d", 0.001 + (number * 7919 % 9973) / 31337),
            }
            for kind, places in template.places.items():
                value = values[kind]
                for place in places:
                    body[start + place : start + place + len(value)] = value


def _client(name: str) -> tuple[bytes, bytes, dict[str, list[Template]]]:
    """Resource and scope of a recording as fields, and its records by event."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    templates: dict[str, list[Template]] = {}
    resource = scope = b""
    for file in sorted((RECORDINGS / name).glob("*.logs.pb")):
        for by_resource in ExportLogsServiceRequest.FromString(file.read_bytes()).resource_logs:
            text = by_resource.resource.SerializeToString()
            resource = b"\x0a" + varint(len(text)) + text
            for by_scope in by_resource.scope_logs:
                text = by_scope.scope.SerializeToString()
                scope = b"\x0a" + varint(len(text)) + text
                for record in by_scope.log_records:
                    event = next(a.value.string_value for a in record.attributes if a.key == "event.name")
                    templates.setdefault(event, []).append(_template(event, record))
    return resource, scope, {event: found[:24] for event, found in templates.items()}


def _template(name: str, record) -> Template:
    record.time_unix_nano = record.observed_time_unix_nano = NANOS
    for attribute in record.attributes:
        value = attribute.value
        match attribute.key:
            case "session.id":
                value.string_value = SESSION
            case "prompt.id":
                value.string_value = PROMPT
            case "message.uuid":
                value.string_value = MESSAGE
            case "request_id":
                value.string_value = REQUEST
            case "tool_use_id":
                value.string_value = TOOL
            case "event.timestamp":
                value.string_value = STAMP
            case "event.sequence":
                value.int_value = SEQUENCE
            case "cost_usd":
                value.double_value = COST
    text = record.SerializeToString()
    text = b"\x12" + varint(len(text)) + text
    marks = {
        "session": SESSION.encode(),
        "sequence": b"event.sequence\x12\x03\x18" + varint(SEQUENCE),
        "time": struct.pack("<Q", NANOS),
        "prompt": PROMPT.encode(),
        "message": MESSAGE.encode(),
        "request": REQUEST.encode(),
        "tool": TOOL.encode(),
        "cost": struct.pack("<d", COST),
    }
    skipped = {"sequence": len(marks["sequence"]) - 2, "request": len("req_"), "tool": len("toolu_")}
    places = {
        kind: tuple(match.start() + skipped.get(kind, 0) for match in re.finditer(re.escape(mark), text, re.DOTALL))
        for kind, mark in marks.items()
    }
    return Template(name, text, {kind: found for kind, found in places.items() if found})


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# --- stored rows ---------------------------------------------------------------------------------------------------------------------

DAYS, SESSIONS, EVENTS_A_SESSION = 90, 20_000, 500
TYPES = "['tool_decision','tool_result','assistant_response','user_prompt','hook_execution_start','hook_execution_complete','api_error']"

# A session is what its number makes it: its user, feature and moment; its chapter changes every 125 events. Rows are made session by
# session in the order of time, as they would have come. {first}, {count}: sessions; {events}: of each; {sessions}: of all.
FILL = f"""
INSERT INTO telemetry.telemetry_events
    (timestamp, event_type, session_id, event_id, received_at, version, source, event_sequence, prompt_id, message_uuid, trace_id,
    span_id,
     user_id, installation_id, user_email_hash, organization_id, service_name, service_version, entrypoint, terminal_type, os_type,
     host_arch,
     project, branch, feature, chapter_context, part, workflow_step, context_source, context_confidence, context_at,
     model, cost_usd, input_tokens, output_tokens, token_count, cache_read_tokens, cache_creation_tokens, cache_creation_1h_tokens,
     duration_ms, ttft_ms, request_id, query_source, speed, effort, attempt, api_error_code, error_type, prompt_length, prompt_hash,
     response_length, tool_name, tool_use_id, success, decision, decision_source, tool_input_bytes, tool_result_bytes, attributes)
WITH
    toUInt64({{first:UInt64}} + intDiv(number, {{events:UInt64}})) AS session,
    number % {{events:UInt64}} AS sequence,
    sipHash64(session) AS s,
    sipHash64(session, sequence) AS r,
    sipHash64(r) AS r2,
    if(r % 100 < 15, 'api_request', {TYPES}[1 + multiIf(r2 % 1000 < 560, r2 % 2, r2 % 1000 < 720, 2, r2 % 1000 < 820, 3,
    r2 % 1000 < 990, 4 + r2 % 2, 6)]) AS type,
    type = 'api_request' AS is_request,
    type IN ('tool_decision', 'tool_result') AS is_tool,
    -- a session lasts about two hours, on a working day between 7 and 21 o'clock
    toStartOfDay(now('UTC') - toIntervalSecond({{days:UInt64}} * 86400)) AS origin,
    toUInt64(session * {{days:UInt64}} / {{sessions:UInt64}}) AS day,
    toDateTime64(origin + toIntervalSecond(day * 86400 + 25200 + s % 43200), 9,
    'UTC') + toIntervalNanosecond((sequence * 14400 + r % 14400) * 1000000) AS at,
    12 AS users, 40 AS features, 60 AS chapters,
    s % users AS u, intDiv(s, users) % features AS f, (intDiv(s, 480) + intDiv(sequence, 125)) % chapters AS c,
    s % 50 = 0 AS unattributed
SELECT
    at, type, concat(lower(leftPad(hex(session), 8, '0')), '-b000-4000-8000-', lower(leftPad(hex(s % 281474976710656), 12, '0'))), r,
    at + toIntervalSecond(3), 4000000000000000000 - toUInt64(toUnixTimestamp64Nano(at)), 'otlp', sequence,
    concat(lower(leftPad(hex(session), 8, '0')), '-b001-4000-8000-', lower(leftPad(hex(intDiv(sequence, 25)), 12, '0'))),
    if(type = 'user_prompt', toString(generateUUIDv4(number)), ''), '', '',
    concat('user', toString(u)), lower(hex(SHA256(toString(u)))), lower(hex(SHA256(concat('mail', toString(u))))), 'organization',
    'claude-code',
    ['2.1.330', '2.1.328', '2.1.197'][1 + s % 3], 'cli', ['iTerm.app', 'vscode', 'xterm-256color'][1 + u % 3], ['darwin',
    'linux'][1 + u % 2], 'arm64',
    'book', if(unattributed, 'main', concat(leftPad(toString(f), 3, '0'), '-feature-of-the-book')),
    if(unattributed, '', concat(leftPad(toString(f), 3, '0'), '-feature-of-the-book')), if(unattributed, '',
    concat(leftPad(toString(c), 2, '0'), '-some-chapter')),
    concat(leftPad(toString(intDiv(c, 6)), 2, '0'), '-part'), ['specify', 'plan', 'tasks', 'implement', 'validate',
    ''][1 + intDiv(sequence, 60) % 6],
    if(unattributed, '', 'feature:branch chapter:files'), 0.9, at - toIntervalMinute(sequence % 60),
    if(is_request, ['claude-opus-4-8', 'claude-sonnet-5', 'claude-haiku-4-5', 'claude-opus-4-7', 'claude-sonnet-4-6',
    'claude-fable-1'][1 + intDiv(r2, 7) % 6], ''),
    -- as the price list has it; the sixth model is not in the list, and one request in forty was reported at half as much again
    is_request * if(r % 40 = 7, 1.5, 1) * [5, 2, 1, 5, 3, 7][1 + intDiv(r2, 7) % 6]
        * (r2 % 6000 + 5 * (100 + r % 1900) + 0.1 * (20000 + r2 % 150000) + 2 * (r % 5000)) / 1000000,
    is_request * (r2 % 6000), is_request * (100 + r % 1900),
    is_request * (r2 % 6000 + 100 + r % 1900),
    is_request * (20000 + r2 % 150000), is_request * (r % 5000), is_request * (r % 5000),
    (is_request OR is_tool) * (200 + r2 % 20000), is_request * (300 + r % 2000), if(is_request OR type = 'api_error', concat('req_',
    lower(hex(r2)), 'bench'), ''),
    if(is_request, ['repl_main_thread', 'agent:builtin:general-purpose', 'compact'][1 + (r % 20 = 0) + (r % 200 = 0)], ''),
    if(is_request, 'normal', ''),
    if(is_request, 'high', ''), (is_request OR type = 'api_error') * 1, if(type = 'api_error', ['429', '529', '500'][1 + r % 3], ''),
    multiIf(type = 'api_error', ['rate_limit', 'overloaded', 'server_error'][1 + r % 3], type = 'tool_result' AND r % 12 = 0,
    'ShellError', ''),
    if(type = 'user_prompt', 20 + r % 2000, 0), if(type = 'user_prompt', lower(hex(SHA256(toString(r)))), ''),
    if(type = 'assistant_response', r % 4000, 0),
    if(is_tool, ['Bash', 'Read', 'Edit', 'Write', 'Grep', 'Glob', 'Task', 'WebFetch', 'TodoWrite'][1 + r2 % 9], ''),
    if(is_tool, concat('toolu_', lower(hex(r2)), 'bench'), ''), if(type = 'tool_result', r % 12 != 0, NULL),
    if(type = 'tool_decision', if(r % 40 = 0, 'reject', 'accept'), ''),
    if(type = 'tool_decision', 'config', ''), is_tool * (r % 4000), (type = 'tool_result') * (r2 % 20000),
    if(startsWith(type, 'hook'), map('hook_event', 'PostToolUse', 'hook_name', 'PostToolUse:Edit', 'num_hooks', '1'),
    map('anthropic.provider', 'firstParty'))
FROM numbers_mt({{count:UInt64}} * {{events:UInt64}})
"""


def fill(server, rows: int, told=lambda done, of: None) -> None:
    """`rows` rows over 90 days into telemetry_events of a running server: 15 % api_request, 500 events a session, 12 users, 40 features,
    60 chapters, 6 models. Parts are merged afterwards, as they would have been in 90 days."""
    sessions = max(1, rows // EVENTS_A_SESSION)
    a_time = max(1, min(1000, sessions // 20))
    for first in range(0, sessions, a_time):
        asked = {"first": first, "count": min(a_time, sessions - first), "events": EVENTS_A_SESSION, "sessions": sessions, "days": DAYS}
        server.ask(FILL, asked)
        told(first + asked["count"], sessions)
    server.ask("OPTIMIZE TABLE telemetry.telemetry_events FINAL")


def sizes(bodies: list[bytes], events: int) -> Iterator[str]:
    total = sum(map(len, bodies))
    each = total / len(bodies)
    yield f"{len(bodies)} requests of {events} events, {each:.0f} bytes each, {each / events:.0f} bytes an event"


if __name__ == "__main__":
    for events in (1, 10, 100, 1000):
        requests = Requests(events, 64, run=1)
        begun = time.perf_counter()
        bodies = requests.make(max(20, 20000 // events))
        spent = time.perf_counter() - begun
        print(*sizes(bodies, events), f"{len(bodies) * events / spent:,.0f} events/s made")
