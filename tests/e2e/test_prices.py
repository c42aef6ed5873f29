"""Our price list against the real client: what it reports for every model, tier and kind of cache write is what we compute."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sp_telemetry import resources
from sp_telemetry.transcripts import files, reading
from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, Usage, executable
from tests.client.install import NEWEST, OLDEST, ClientUnavailable
from tests.conftest import require
from tests.server import server

pytestmark = pytest.mark.needs("npm")

LIST = list(csv.DictReader(resources.path("telemetry-server/prices/anthropic.csv").read_text().splitlines()))
#: where a date belongs to the name that the API knows
DATED = {
    "claude-3-5-haiku": "20241022", "claude-3-5-sonnet": "20241022", "claude-3-7-sonnet": "20250219", "claude-sonnet-4": "20250514",
    "claude-sonnet-4-5": "20250929", "claude-haiku-4-5": "20251001", "claude-opus-4": "20250514", "claude-opus-4-1": "20250805",
    "claude-opus-4-5": "20251101",
}  # fmt: skip
#: the client no longer knows them, or knows them under the other name
NOT_SENT = {"claude-3-opus", "claude-sonnet-4-0", "claude-opus-4-0"}
MODELS = sorted({row["model"] for row in LIST} - NOT_SENT)
#: what costs more and the client does not know: prompts over 200,000 tokens with two models, where inference ran in its old version
CLIENT_LEAVES_OUT = {("claude-sonnet-4", "long"), ("claude-sonnet-4-5", "long"), (OLDEST, "in the US")}
OF_2_1_197 = ("claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-4-8")
SHORT = ("claude-haiku-5-5", "claude-sonnet-5-5", "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5-5", "claude-fable-5-2")

USAGES = {
    "standard": Usage(input=1_003, output=107, cache_read=5_009, cache_write_5m=311, cache_write_1h=701),
    "for 5 minutes": Usage(input=11, output=13, cache_read=17, cache_write_5m=1_019),
    "at the limit": Usage(input=20_000, output=1_009, cache_read=70_000, cache_write_5m=10_000),
    "fast": Usage(input=1_013, output=509, cache_read=9_007, cache_write_5m=211, cache_write_1h=101, more={"speed": "fast"}),
    "in the US": Usage(input=1_009, output=211, cache_read=3_001, cache_write_1h=907, more={"inference_geo": "us"}),
    "searches": Usage(input=307, output=401, more={"server_tool_use": {"web_search_requests": 3}}),
    # the last: behind a prompt as long as the model can take, the client would compact first
    "long": Usage(input=30_011, output=2_003, cache_read=200_003, cache_write_5m=20_011, cache_write_1h=10_007),
}


SECRET = "made up for this test"


def run(version: str, model: str, usages: list[Usage], folder: Path) -> list[bytes]:
    """`model` answers with `usages`, a request each. Returns what the client exports; its transcripts are below `folder`."""
    *calls, last = [Reply("so", ToolUse("Bash", command="true"), usage=usage) for usage in usages]
    script = Script().on("go on", *calls, Reply("done", usage=last.usage))
    with MessagesApi(script) as api, OtlpRecorder(grpc=False) as otlp:
        client = ClaudeCode(executable(version), folder / "home", api.url)
        done = client.run("go on", cwd=folder, model=model, env=otlp.environment(traces=False, CLAUDE_CODE_DISABLE_LEGACY_MODEL_REMAP="1"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert [answered.model for answered in api.log] == [model] * len(usages)
        return [request.body for request in otlp.of("logs")]


def compare(version: str, models: list[str], folder: Path) -> None:
    """Every request's cost: as the client reported it, computed from its event, computed from its line in the transcript."""
    try:
        executable(version)
    except ClientUnavailable as reason:
        require(False, str(reason))
    tiers = {model: {row["tier"] for row in LIST if row["model"] == model} for model in models}
    asked = {model: [name for name in USAGES if name != "fast" or "fast" in tiers[model]] for model in models}
    full = {model: f"{model}-{DATED[model]}" if model in DATED else model for model in models}
    with ThreadPoolExecutor(2) as pool:
        jobs = []
        for model in models:
            (folder / model).mkdir()
            jobs.append(pool.submit(run, version, full[model], [USAGES[name] for name in asked[model]], folder / model))
        bodies = [body for job in jobs for body in job.result()]
    configurations = ",".join(str(folder / model / "home" / ".claude") for model in models)
    with server(folder / "sp") as store:
        for body in bodies:
            store.stored("logs", body)
        transcripts = files.find({"CLAUDE_CONFIG_DIR": configurations, "HOME": str(folder)}, SECRET)
        assert len(transcripts.files) == len(models)
        reading.bring(store.client, transcripts, SECRET)
        rows = store.query("""
            SELECT c.model, c.price_tier, c.reported_usd, c.computed_usd, t.computed_usd
            FROM telemetry.request_costs AS c INNER JOIN telemetry.transcript_costs AS t ON c.request_id = t.request_id
            ORDER BY c.model, c.event_sequence""")
    seen = [(model, name) for model in sorted(asked, key=full.__getitem__) for name in asked[model]]
    assert [row[0] for row in rows] == [full[model] for model, _ in seen]
    expected = [name if name in tiers[model] else "standard" for model, name in seen]
    assert [row[1] for row in rows] == expected
    differing = {key for key, (_, _, reported, *computed) in zip(seen, rows, strict=True)
                 if any(each is None or abs(each - reported) > 1e-9 for each in computed)}  # fmt: skip
    assert differing == {
        (model, name) for model, name in seen if (model, name) in CLIENT_LEAVES_OUT or (version, name) in CLIENT_LEAVES_OUT
    }


def test_pitfall_18_what_the_newest_client_reports_is_what_we_compute(tmp_path: Path) -> None:
    compare(NEWEST, list(SHORT), tmp_path)


def test_pitfall_18_what_the_oldest_client_reports_is_what_we_compute(tmp_path: Path) -> None:
    compare(OLDEST, list(OF_2_1_197), tmp_path)


@pytest.mark.long
def test_every_model_of_the_list(tmp_path: Path) -> None:
    compare(NEWEST, MODELS, tmp_path)
