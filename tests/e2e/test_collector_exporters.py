"""Three exporters at once: what the real client says over 60 interactions reaches console, ClickHouse and Prometheus alike."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from sp_telemetry.home import WRITER
from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, Usage, executable
from tests.client.install import NEWEST, ClientUnavailable
from tests.collector.running import NO_POLICY, running
from tests.conftest import require
from tests.server import server, wait_for

pytestmark = [pytest.mark.needs("go", "node", "npm"), pytest.mark.timeout(1500)]
INTERACTIONS = 60
_RECORD = re.compile(r"^LogRecord #\d+$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^     -> ([\w.]+): \w+\((.*)\)$", re.MULTILINE)


def on_the_console(text: str) -> list[dict[str, str]]:
    """Attributes of each log record that the debug exporter printed."""
    return [dict(_ATTRIBUTE.findall(piece.partition("ResourceLog #")[0])) for piece in _RECORD.split(text)[1:]]


def talk(client: ClaudeCode, cwd: Path, env: dict[str, str], pause_s: float) -> float:
    """One process, `INTERACTIONS` prompts one after the other; what it says they cost."""
    arguments = [
        "-p",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--verbose",
        "--permission-mode",
        "bypassPermissions",
    ]
    process = subprocess.Popen(
        [client.executable, *arguments], cwd=cwd, env=client.environment(**env),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin and process.stdout
    try:
        for number in range(INTERACTIONS):
            prompt = f"{'with a tool' if number % 5 == 0 else 'just words'}, {number}"
            process.stdin.write(json.dumps({"type": "user", "message": {"role": "user", "content": prompt}}) + "\n")
            process.stdin.flush()
            time.sleep(pause_s)
            told = next(result for line in process.stdout if (result := json.loads(line)).get("type") == "result")
            assert told["is_error"] is False, told
        process.stdin.close()
        process.wait(60)
        return told["total_cost_usd"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("pause_s", [0, pytest.param(6, marks=pytest.mark.long)], ids=["at once", "over six minutes"])
def test_sixty_interactions_reach_console_clickhouse_and_prometheus_alike(tmp_path: Path, pause_s: float) -> None:
    try:
        binary = executable(NEWEST)
    except ClientUnavailable as reason:
        require(False, str(reason))
    usage = Usage(input=200, output=40)
    script = Script().on("with a tool", Reply("1", ToolUse("Bash", command="true"), usage=usage), Reply("done", usage=usage))
    script.on("just words", Reply("done", usage=usage))
    (tmp_path / "book").mkdir()
    chosen = {"COLLECTOR_EXPORTERS": "[clickhouse, debug]", "COLLECTOR_PROMETHEUS": "[nop, prometheus]"}
    with server(tmp_path / "home") as store, MessagesApi(script) as api:
        url = f"http://127.0.0.1:{store.ports['clickhouse']}"
        with running(tmp_path / "collector", url, store.home.secret(WRITER), policy=NO_POLICY, **chosen) as collector:
            client = ClaudeCode(binary, tmp_path / "user", api.url)
            with OtlpRecorder(grpc=False) as unused:
                env = unused.environment("grpc", traces=False) | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint("grpc")}
            printed = talk(client, tmp_path / "book", env, pause_s)
            assert wait_for(lambda: collector.metric("otelcol_exporter_queue_size") == 0, 60)

            records = on_the_console(collector.log.read_text())
            console = [record for record in records if record.get("event.name") == "api_request"]
            stored = store.query("SELECT event_type, count(), sum(cost_usd) FROM telemetry.telemetry_events FINAL GROUP BY 1")
            counted = {kind: (count, cost) for kind, count, cost in stored}
            prometheus = collector.metric("claude_code_cost_usage_USD_total", port="PROMETHEUS")
            tokens = collector.metric("claude_code_token_usage_tokens_total", port="PROMETHEUS")
            accepted = collector.metric("otelcol_receiver_accepted_log_records")

    requests = sum(answer.status == 200 for answer in api.log)
    assert requests >= INTERACTIONS * 6 // 5 and counted["user_prompt"][0] == INTERACTIONS
    assert len(records) == accepted == sum(count for count, _ in counted.values())
    assert {kind: count for kind, (count, _) in counted.items()} == {
        kind: sum(record.get("event.name") == kind for record in records) for kind in counted
    }
    assert len(console) == counted["api_request"][0] == requests
    costs = [sum(float(record["cost_usd"]) for record in console), counted["api_request"][1], prometheus]
    assert costs == pytest.approx([printed] * 3, abs=1e-6)
    spent = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
    assert tokens == sum(float(record[kind]) for record in console for kind in spent)
