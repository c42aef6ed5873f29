"""Our tokens by day and model against ccusage's on the same transcripts, real and generated; each difference explained by its request.

What ccusage counts is written down here as a rule, and the rule must give exactly what the program prints. Then each line that the rule
counts and we don't is a request that we count once: it stands there again without a request id, or with a placeholder for its output.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench import transcripts
from tests.client import VERSIONS, ClaudeCode, MessagesApi, Reply, Script, ToolUse, executable
from tests.client.install import ClientUnavailable
from tests.client.install_ccusage import PACKAGES, ccusage
from tests.conftest import require
from tests.server import server

pytestmark = [pytest.mark.checkout, pytest.mark.needs("npm", "node")]
Tokens = tuple[int, int, int, int]  # input, output, cache reads, cache writes
Days = dict[tuple[str, str], Tokens]


def asked(version: str, configuration: Path) -> Days:
    """What the program says."""
    try:
        command = ccusage(version)
    except ClientUnavailable as reason:
        require(False, str(reason))
    environment = {"PATH": os.environ["PATH"], "HOME": str(configuration), "CLAUDE_CONFIG_DIR": str(configuration), "TZ": "UTC"}
    done = subprocess.run([*command, "--timezone", "UTC"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {
        (day.get("date") or day["period"], model["modelName"]): tuple(
            model[f"{name}Tokens"] for name in ("input", "output", "cacheRead", "cacheCreation")
        )
        for day in json.loads(done.stdout)["daily"]
        for model in day["modelBreakdowns"]
    }


def ours(configuration: Path, folder: Path) -> Days:
    """What stands in the store when all of it has been filled in."""
    with server(folder / "sp", CLAUDE_CONFIG_DIR=str(configuration), HOME=str(folder)) as store:
        done = store.command("backfill", timeout=120)
        assert done.returncode == 0, done.stderr
        rows = store.query("""
            SELECT toString(toDate(timestamp)), model,
                sum(input_tokens), sum(output_tokens), sum(cache_read_tokens), sum(cache_creation_tokens)
            FROM telemetry_events FINAL WHERE event_type = 'api_request' GROUP BY ALL""")
    return {(day, model): tuple(map(int, numbers)) for day, model, *numbers in rows}


def lines(configuration: Path) -> list[dict[str, Any]]:
    """The lines with a usage, in the order of ccusage: by the first time in each file."""
    files = []
    for file in sorted((configuration / "projects").rglob("*.jsonl")):
        read = []
        for line in file.read_text().splitlines():
            try:
                read.append(json.loads(line))
            except ValueError:  # cut
                continue
        first = min((line["timestamp"] for line in read if "timestamp" in line), default="")
        usages = [line for line in read if line.get("type") == "assistant" and "usage" in line["message"]]
        files.append((first, str(file), usages))
    return [
        line for _, _, usages in sorted(files, key=lambda each: each[:2]) for line in usages if line["message"]["model"] != "<synthetic>"
    ]


def tokens(line: dict[str, Any]) -> Tokens:
    return used(line["message"]["usage"])


def used(usage: dict[str, Any]) -> Tokens:
    return tuple(usage[f"{name}_tokens"] for name in ("input", "output", "cache_read_input", "cache_creation_input"))


def first_of_each(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """18.0.5: the first line of each message and request; a line that lacks one of the two always counts."""
    seen: set[tuple[str, str]] = set()
    counted = []
    for line in found:
        key = (line["message"].get("id"), line.get("requestId"))
        if all(key) and key in seen:
            continue
        seen.add(key)
        counted.append(line)
    return counted


def most_of_each(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """20.0.24: of the lines of a message and request (or, without one, of a line's own id) the one with the most tokens; what a
    side question repeats is the message that it repeats."""
    counted: list[dict[str, Any]] = []
    places: dict[tuple[str, str], int] = {}
    of_message: dict[str, list[int]] = defaultdict(list)
    for line in found:
        message, beside = line["message"]["id"], bool(line.get("isSidechain"))
        key = (message, line.get("requestId") or line["uuid"])
        place = places.get(key)
        if place is None:
            place = next((at for at in of_message[message] if beside or counted[at].get("isSidechain")), None)
        if place is None:
            places[key] = len(counted)
            of_message[message].append(len(counted))
            counted.append(line)
        elif bool(counted[place].get("isSidechain")) != beside:
            if not beside:
                counted[place] = line
        elif sum(tokens(line)) > sum(tokens(counted[place])):
            counted[place] = line
    return counted


RULES: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {"18.0.5": first_of_each, "20.0.24": most_of_each}


def by_day(counted: list[dict[str, Any]]) -> Days:
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for line in counted:
        for place, number in enumerate(tokens(line)):
            sums[line["timestamp"][:10], line["message"]["model"]][place] += number
    return {key: tuple(numbers) for key, numbers in sums.items()}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, transcripts.Truth, Days]:
    folder = tmp_path_factory.mktemp("generated")
    truth = transcripts.write(folder / "conf" / "projects", sessions=25, megabytes=6, requests=50, seed=7)
    assert truth.placeholders and all(truth.repeated[kind] for kind in ("replayed", "doubled", "cut", "synthetic", "copied"))
    return folder / "conf", truth, ours(folder / "conf", folder)


def test_of_generated_transcripts_we_count_what_was_billed(generated: tuple[Path, transcripts.Truth, Days]) -> None:
    _, truth, counted = generated
    assert counted == truth.by_day_and_model()


@pytest.mark.parametrize("version", PACKAGES)
def test_on_generated_transcripts_each_difference_is_a_request_with_its_reason(
    generated: tuple[Path, transcripts.Truth, Days], version: str
) -> None:
    configuration, truth, mine = generated
    said = asked(version, configuration)
    counted = RULES[version](lines(configuration))
    assert by_day(counted) == said

    billed = {request.message_id: request for request in truth.requests}
    times = Counter(line["message"]["id"] for line in counted)
    taken: dict[str, Tokens] = {}
    for line in counted:
        taken.setdefault(line["message"]["id"], tokens(line))
    reasons = {}
    for message, request in billed.items():
        if times[message] != 1:
            assert not request.request_id  # only where there is no request id
            reasons[message] = f"without a request id, counted {times[message]} times"
        elif taken[message] != request.tokens:
            assert taken[message] == (request.tokens[0], truth.placeholders[message], *request.tokens[2:])
            reasons[message] = "its first line, with a placeholder for the output"
    kinds = {reason.split(",")[0] for reason in reasons.values()}
    assert kinds == {"18.0.5": {"without a request id", "its first line"}, "20.0.24": {"without a request id"}}[version]
    differing = {key for key in mine.keys() | said.keys() if mine.get(key) != said.get(key)}
    assert differing <= {(f"{billed[message].at:%Y-%m-%d}", billed[message].model) for message in reasons}
    assert mine.keys() == said.keys()


@pytest.mark.parametrize("client", VERSIONS)
def test_on_the_real_clients_transcripts_all_agree(tmp_path: Path, client: str) -> None:
    try:
        binary = executable(client)
    except ClientUnavailable as reason:
        require(False, str(reason))
    (tmp_path / "work").mkdir()
    call = Reply("text before a call", ToolUse("Bash", command="true"), ToolUse("Bash", command="echo 2"))
    script = Script(cache="1h").on("first", call, subagent(), call, Reply("done")).on("look around", call, Reply("looked"))
    script.on("second", call, Reply("more"))
    with MessagesApi(script) as api:
        code = ClaudeCode(binary, tmp_path / "home", api.url)
        begun = code.run("first", cwd=tmp_path / "work")
        assert begun.returncode == 0
        assert code.run("second", cwd=tmp_path / "work", resume=begun.session_id, more=["--fork-session"]).returncode == 0
        billed = [used(answered.usage) for answered in api.log]
    mine = ours(code.config, tmp_path)
    assert [sum(numbers) for numbers in zip(*mine.values(), strict=True)] == [sum(numbers) for numbers in zip(*billed, strict=True)]
    for version in PACKAGES:
        assert asked(version, code.config) == mine, version


def subagent() -> Reply:
    return Reply("2", ToolUse("Agent", description="look", prompt="look around", subagent_type="general-purpose"))
