"""The privacy promise, tried on the real server process: secrets are planted in each place that OTLP has, and looked for in every byte that
there is. What the real client sends itself: test_planted_secrets_client.py.
"""

# ruff: noqa: E501 - a place is one line
from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest

from sp_telemetry.privacy import sql
from sp_telemetry.privacy.keys import KEYS
from sp_telemetry.privacy.patterns import Pattern
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine
from sp_telemetry.store.framing import rows_of
from sp_telemetry.store.journal import Journal
from sp_telemetry.store.pipeline import CONTEXT_MARK, STANDING, Lane, Pipeline
from sp_telemetry.store.standing_query import AVAILABLE
from tests.e2e.planting import REDACTABLE, SESSION, START, Planter, by_hand, in_transcripts, places
from tests.secrets_search import columns, files, search
from tests.server import JSON, PROTOBUF, Server, as_json, as_protobuf, context, log_request, server, wait_for
from tests.store.examples import example
from tests.transcripts import Configuration
from tests.unit.test_hooks import Session
from tests.unit.test_hooks_names import plant
from tests.unit.test_hooks_names import tokens as tokens_for_names


def tokens() -> dict[str, str]:
    """Names that are kept at every level, each with a token in it."""
    chance = random.Random(5)
    formats = {key.provider: key.regex for key in KEYS}
    kinds = {"branch": "GitHub", "feature": "GitLab", "chapter": "npm", "directory": "Slack", "part": "Stripe", "project": "Hugging Face"}
    kinds |= {"person": "Anthropic", "spec_directory": "Google", "worktree": "DigitalOcean", "step": "Databricks"}
    return {name: example(formats[provider], chance, more=20) for name, provider in kinds.items()}


def send_by_hand(to: Server, plant: Planter, transcripts: Configuration) -> dict[str, str]:
    """Everything above, in both encodings, with secrets in headers, paths and transcripts too. Returns what was planted."""
    made = by_hand(plant)
    in_transcripts(plant, transcripts)
    for signal, of in (("logs", "resourceLogs"), ("metrics", "resourceMetrics"), ("traces", "resourceSpans")):
        every = [one for which, request, _ in made if which == signal for one in request[of]]
        whole = [one for which, request, protobuf in made if which == signal and protobuf for one in request[of]]
        to.stored(signal, as_json({of: every}), JSON)
        to.stored(signal, as_protobuf({of: whole}, signal))
    names = tokens()
    records = [context(SESSION, START, **{name: f"017-{token}-x" for name, token in names.items()})]
    records.append({"name": "api_request", "time_ns": START + 10**9, "session.id": SESSION, "vcs.ref.head.name": f"017-{names['branch']}-x",
                    "enduser.id": names["person"], "vcs.repository.name": f"book-{names['project']}", "model": f"claude-{names['part']}"})  # fmt: skip
    to.stored("logs", as_json(log_request(records)), JSON)
    # Where requests are refused, what was wrong with them is told to the sender and to nobody else.
    headers = {"Authorization": f"Bearer {plant('header')}", "X_Secret": plant("header 2"), "User_Agent": plant("user agent")}
    to.post("logs", as_json(log_request([{"name": "api_request", "time_ns": START, "prompt": plant("with headers")}])), JSON, **headers)
    to.post("logs", f'{{"resourceLogs": [{{"{plant("broken JSON")}": '.encode(), JSON)
    to.post("logs", b"\xff\xff" + plant("broken protobuf").encode(), PROTOBUF)
    to.post("logs", plant("broken gzip").encode(), PROTOBUF, Content_Encoding="gzip")
    to.post(plant("path").replace(" ", "%20"), b"{}", JSON)
    to.get("health", "/" + plant("health path").replace(" ", "%20"))
    to.get("metrics", "/metrics?" + plant("metrics query").replace(" ", "%20"))
    to.get("clickhouse", "/?query=SELECT%201&user=x&password=" + re.sub(r"[^A-Za-z0-9]", "", plant.secrets["path"]))
    return plant.secrets | {f"token in {name}": token[-max(10, len(token) // 2) :] for name, token in names.items()}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("level", ["strict", "standard", "full"])
def test_what_is_sent_by_hand_is_nowhere(tmp_path, level):
    """At `strict` no word of it is; at every level nothing is that the patterns know, and no token in a name that is kept."""
    with server(tmp_path / "home", SP_TELEMETRY_PRIVACY_LEVEL=level) as running:
        chance, transcripts = random.Random(level), Configuration(tmp_path / "claude")
        secrets = send_by_hand(running, Planter(redactable=True, chance=chance), transcripts)
        assert len(secrets) > 1000
        if level == "strict":
            secrets = {f"{place} (key)": secret for place, secret in secrets.items()} | send_by_hand(running, Planter(False, chance), transcripts)
            assert len(secrets) > 3000
        running.restart()  # and what a start, an end and upkeep leave
        stored = running.query("SELECT count(), countIf(notEmpty(branch)) FROM telemetry.telemetry_events")
        assert stored[0][0] > 100 and stored[0][1] > 0, "nothing was stored, so nothing was shown"
        everywhere = places(running, transcripts.folder)
        told = dict(everywhere)
        filled_in = b"\n10 requests of 2 sessions filled in" if level == "strict" else b"\n5 requests of 1 session filled in"
        assert b"claude-sonnet-4-5-<" in told["audit --json"] and filled_in in told["backfill"], "of transcripts nothing was told"
        assert search(secrets, everywhere) == []


@pytest.mark.checkout
@pytest.mark.needs("sh", "git")
def test_names_that_the_hooks_saw_are_nowhere(tmp_path):
    """Tokens in names of branches, directories, chapters and files: neither in what the hooks keep while the server is down, nor in what
    becomes of it when it is there again."""
    session = Session(tmp_path, tmp_path, more={"SP_TELEMETRY_CLICKHOUSE_PORT": "0"})
    with server(session.home) as running:
        running.down()
        keys = tokens_for_names(4)
        secrets = {key: secret for first in (0, 5, 10) for key, secret in plant(session, keys[first : first + 5]).items()}
        assert len(session.spooled()) > 10 and search(secrets, files(session.home, session.data)) == []
        running.up()
        session.port = running.ports["otlp_http"]
        session.start()
        assert wait_for(lambda: not list((session.home / "spool").glob("*.json*"))), "nothing was sent"
        stored = running.query(
            "SELECT count(), countIf(branch LIKE '017-%<%'), countIf(chapter LIKE '33-%<%') FROM telemetry.session_context"
        )
        assert min(stored[0]) > 2, "nothing was stored, so nothing was shown"
        assert search(secrets, [*places(running, tmp_path / "none"), *files(session.data)]) == []


class Loosened(Policy):
    """`strict`, but for one attribute."""

    attribute = ""

    @property
    def treatments(self) -> dict[str, str]:
        return super().treatments | {self.attribute: "text"}


class Patchy(Policy):
    """One of the three, but for one pattern."""

    missing = ""

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        return tuple(pattern for pattern in super().patterns if pattern.name != self.missing)


def found_under(policy: Policy, plant: Planter, store: Path) -> set[str]:
    """The places whose secrets the search above would see: the same requests, through the same statements, under `policy`."""
    engine = Engine(store)
    with engine.handle() as handle:
        schema.migrate(handle, privacy=sql.render(policy))
        made = by_hand(plant)
        for signal, of in (("logs", "resourceLogs"), ("metrics", "resourceMetrics"), ("traces", "resourceSpans")):
            body = as_json({of: [one for which, request, _ in made if which == signal for one in request[of]]})
            Pipeline(handle).store(Lane(signal, "json"), [body])
    engine.close()
    return {place for place, _, _ in search(plant.secrets, columns(store))}


@pytest.mark.parametrize(
    ("attribute", "kept_of"), [("prompt", "api_error resource metric span"), ("error", "api_error resource span"), ("command_name", "api_error resource")]
)
def test_a_policy_with_one_attribute_loosened_is_found_out(tmp_path, attribute, kept_of):
    """One text too many is kept of whatever has a place for it: events, their resource, metrics, spans."""
    policy = type("Loosened", (Loosened,), {"attribute": attribute})("strict")
    found = found_under(policy, Planter(redactable=False, chance=random.Random(attribute)), tmp_path / "store")
    assert {f"{of}: {attribute}" for of in kept_of.split()} <= found
    assert {place.rpartition(": ")[2] for place in found} <= {attribute, "attribute of an unknown event"}  # which is a prompt


@pytest.mark.parametrize(("level", "missing", "like"), [("standard", "iban", "«DE89370400440532013000»"), ("full", "openai-key", "OpenAI")])
def test_a_policy_without_one_pattern_is_found_out(tmp_path, level, missing, like):
    """What only that pattern knows is found, and nothing else is."""
    policy = type("Patchy", (Patchy,), {"missing": missing})(level)
    plant = Planter(redactable=True, chance=random.Random(missing))
    found = found_under(policy, plant, tmp_path / "store")
    planted = zip(plant.secrets, itertools.cycle([*REDACTABLE, *(key.provider for key in KEYS)]))
    assert any(place.startswith("error ") for place in found) and found <= {place for place, what in planted if what == like}


@pytest.mark.skipif(not AVAILABLE, reason="events wait in the journal where a standing query types them: on Linux")
@pytest.mark.parametrize("attribute", ["", "prompt"])
def test_what_waits_in_the_journal_is_what_the_policy_leaves(tmp_path, attribute):
    """As a server that is killed leaves it. Under a policy that keeps one text too many the search would see it."""
    policy = type("Loosened", (Loosened,), {"attribute": attribute})("strict") if attribute else Policy("strict")
    engine = Engine(tmp_path / "store")
    plant = Planter(redactable=False, chance=random.Random(attribute))
    with engine.handle() as handle:
        schema.migrate(handle, privacy=sql.render(policy))
        bodies = [as_protobuf({"resourceLogs": [one]}) for signal, request, _ in by_hand(plant) if signal == "logs" for one in request["resourceLogs"]]
        pipeline, journal = Pipeline(handle), Journal(tmp_path / "journal")
        waiting = sum(pipeline.store(STANDING, [body], journal=journal) for body in bodies if CONTEXT_MARK not in body)
        assert waiting == sum(map(rows_of, journal.blocks)) > 10
    engine.close()
    found = {name.rpartition(": ")[2] for name, _, _ in search(plant.secrets, files(tmp_path / "journal"))}
    assert found == ({attribute, "attribute of an unknown event"} if attribute else set())
