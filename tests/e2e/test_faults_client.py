"""The server is down while Claude Code works: what the client throws away is counted, and stands under the reports."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, executable
from tests.client.install import NEWEST, ClientUnavailable
from tests.conftest import require
from tests.recordings.clean import empty_message
from tests.server import Server, server, wait_for

pytestmark = pytest.mark.needs("node", "npm", "git")


class Between:
    """Stands between the client and the server, keeps every body that the client sent, and knows which of them were acknowledged.
    While the server is down it breaks the connection, as the system would refuse it."""

    def __init__(self, to: Server) -> None:
        self.sent: list[bytes] = []
        self.acknowledged: list[bytes] = []
        between = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                logs = self.path == "/v1/logs"
                between.sent += [body] if logs else []
                try:
                    connection = HTTPConnection("127.0.0.1", to.ports["otlp_http"], timeout=30)
                    connection.request("POST", self.path, body, {"Content-Type": self.headers["content-type"]})
                    answer = connection.getresponse()
                    text = answer.read()
                except (OSError, HTTPException):
                    self.close_connection = True
                    return
                between.acknowledged += [body] if logs and answer.status == 200 else []
                self.send_response(answer.status)
                self.send_header("content-type", self.headers["content-type"])
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def event_numbers(bodies: list[bytes]) -> set[int]:
    """event.sequence of every event in these export requests."""
    found = set()
    for body in bodies:
        request = empty_message("logs")
        request.ParseFromString(body)
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                for record in scope.log_records:
                    [number] = [pair.value.int_value for pair in record.attributes if pair.key == "event.sequence"]
                    found.add(number)
    return found


class Conversation:
    """One process of the client that takes one prompt after the other."""

    def __init__(self, client: ClaudeCode, cwd: Path, env: dict[str, str]) -> None:
        arguments = ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
        self._process = subprocess.Popen(
            [client.executable, *arguments, "--permission-mode", "bypassPermissions"],
            cwd=cwd, env=client.environment(**env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def say(self, prompt: str) -> dict[str, Any]:
        """The result of this turn."""
        message = {"type": "user", "message": {"role": "user", "content": prompt}}
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            told = json.loads(line)
            if told.get("type") == "result":
                return told
        raise AssertionError("the client ended")

    def end(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


@contextmanager
def talking(folder: Path, to: str) -> Iterator[Conversation]:
    try:
        binary = executable(NEWEST)
    except ClientUnavailable as reason:
        require(False, str(reason))
    script = Script()
    for turn in ("one", "two", "three"):
        script.on(f"turn {turn}", *(Reply(str(n), ToolUse("Bash", command=f"echo {n}")) for n in range(3)), Reply("done"))
    (folder / "book").mkdir()
    with MessagesApi(script) as api:
        client = ClaudeCode(binary, folder / "home", api.url)
        with OtlpRecorder(grpc=False) as unused:
            env = unused.environment(traces=False) | {"OTEL_EXPORTER_OTLP_ENDPOINT": to, "OTEL_EXPORTER_OTLP_TIMEOUT": "1500"}
        conversation = Conversation(client, folder / "book", env)
        try:
            yield conversation
        finally:
            conversation.end()


def test_what_the_client_threw_away_while_the_server_was_down_stands_under_the_report(tmp_path):
    with server(tmp_path / "sp home") as started:
        between = Between(started)
        try:
            with talking(tmp_path, between.url) as conversation:
                session = conversation.say("turn one")["session_id"]
                assert wait_for(lambda: event_numbers(between.acknowledged) == event_numbers(between.sent) != set())
                started.down()
                before = len(between.sent)
                assert conversation.say("turn two")["session_id"] == session
                # it gives a batch up after a few tries; then another one is tried
                assert wait_for(lambda: len({*between.sent[before:]}) > 1, 45)
                time.sleep(2)
                down = len(between.sent)
                started.up()
                assert conversation.say("turn three")["session_id"] == session
                assert wait_for(lambda: max(event_numbers(between.acknowledged)) > max(event_numbers(between.sent[:down])), 30)
        finally:
            between.close()
        sent, arrived = event_numbers(between.sent), event_numbers(between.acknowledged)
        assert sent == set(range(max(sent) + 1)), "the client counts from 0 and leaves nothing out"
        missing = len(sent - arrived)
        assert missing > 0 and max(sent) in arrived
        rows = started.query(f"SELECT event_sequence FROM telemetry.telemetry_events FINAL WHERE session_id = '{session}'")
        assert sorted(number for [number] in rows) == sorted(arrived)
        told = started.command("report", "cost", "--session", session)
        assert told.returncode == 0, told.stderr
        text = " ".join(told.stdout.split())
        assert re.search(rf"gaps in event\.sequence: {missing} of {len(sent)} ·", text), text
