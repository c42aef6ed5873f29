"""What an installation's own rules say of an attribute holds for what transcripts say of it, and for rows that are filled in from them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry.privacy import own
from sp_telemetry.privacy.keys import KEYS
from sp_telemetry.store import privacy, tightening
from sp_telemetry.store.engine import Engine
from sp_telemetry.transcripts import backfill, files
from tests import secrets_search
from tests.client.script import Usage
from tests.server import JSON, Server, as_json, log_request, server
from tests.store.audited import DAY, NOW, Request, Session, performed
from tests.store.examples import example
from tests.transcripts import SECRET, START, Configuration, answer, identifier, prompt

AGENT = "a182b7b8cfcd07463"
NAMED = ("model", "speed", "app.entrypoint", "service.version", "service.name", "enduser.id", "vcs.repository.name", "vcs.ref.head.name",
         "stop_reason", "agent_id")  # fmt: skip
COUNTED = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "cache_creation_1h_tokens", "cost_usd")
#: What an event and a row that was filled in have in common.
ALIKE = ("model, speed, entrypoint, service_version, service_name, attributes['agent_id'], input_tokens, output_tokens, token_count,"
         " cache_read_tokens, cache_creation_tokens, cache_creation_1h_tokens")  # fmt: skip

COPIED = "model, speed, entrypoint, service_version, branch, project, stop_reason"


def _rules(folder: Path, treatment: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "[attributes]\n" + "".join(f'"{name}" = "{treatment}"\n' for name in (*NAMED, *COUNTED))
    (folder / own.NAME).write_text(text)


def _session(of: str) -> tuple[Session, list]:
    """Two equal requests, of which telemetry has the first; and their lines."""
    usage = Usage(input=4, output=30, cache_read=5, cache_write_1h=6)
    requests = [Request(f"{of[:8]}{n}", NOW - 2 * DAY + n, usage, in_telemetry=n == 0, number=n) for n in range(2)]
    said = {"agentId": AGENT, "isSidechain": True, "version": "2.1.330", "entrypoint": "cli"}
    lines = [answer(of, each.name, each.at, usage.wire() | {"speed": "fast"}, **said) for each in requests]
    return Session(of, requests), lines


def _send(running: Server, session: Session) -> None:
    said = {"speed": "fast", "app.entrypoint": "cli", "agent_id": AGENT, "cache_creation_1h_tokens": 6}
    resource = {"service.name": "claude-code", "service.version": "2.1.330", "vcs.repository.name": "book", "enduser.id": "Ada"}
    running.stored("logs", as_json(log_request([event | said for event in session.events()], resource)), JSON)


@pytest.mark.parametrize("treatment", ["drop", "hash"])
def test_own_rules_of_attributes_hold_for_transcripts_as_for_events(tmp_path, treatment):
    of, configuration = identifier(treatment), Configuration(tmp_path / "claude")
    session, lines = _session(of)
    configuration.session(of, lines)
    _rules(tmp_path / "home", treatment)
    with server(tmp_path / "home") as running:
        _send(running, session)
        done = performed(running, configuration, session=of)
        assert (done.count("both"), done.differing, done.missing) == (1, 0, 1)
        assert backfill.fill(running.client, files.machine(SECRET), 0, "Ada").requests == 1
        assert backfill.missing(running.client, files.machine(SECRET), 0).requests == 0
        event, filled = running.query(f"SELECT source, {ALIKE} FROM telemetry.telemetry_events FINAL ORDER BY source")
        assert (event.pop(0), filled.pop(0)) == ("otlp", "transcript")
        if treatment == "hash":  # of what is not read from a transcript nothing is kept then, for only views have the salt
            for place in (4, 5):
                assert (event[place][:5], filled[place]) == ("hash-", "")
                event[place] = ""
        assert event == filled
        [[*said, who, cost]] = running.query(
            "SELECT project, branch, user_id, cost_usd FROM telemetry.telemetry_events FINAL WHERE source = 'transcript'"
        )
        [kept] = running.query(f"SELECT DISTINCT {COPIED} FROM telemetry.transcript_copies")
        for each in (*said, *kept):
            assert each == "" if treatment == "drop" else each.startswith("hash-"), (said, kept)
        assert "Ada" not in who and cost == 0
        assert running.query("SELECT max(input_tokens + output_tokens + cache_read_tokens) FROM telemetry.transcript_copies") == [[0]]


PROVIDERS = ("Anthropic", "OpenAI", "AWS", "Google", "Hugging Face", "Databricks")


def _planted(configuration: Configuration, home: Path) -> dict[str, str]:
    """Transcripts with a secret in whatever a transcript says: where it was planted -> the secret. A provider's prefix is none.
    `home`: where the directories are that they say are in /home/planted-person."""
    chance, secrets = random.Random(7), {}

    def plant(place: str, text: str = "") -> str:
        text = text or "zebra" + "".join(chance.choices("bcdfghjklmnpqrstvwxz0123456789", k=20))
        secrets[place] = text[-max(10, len(text) // 2) :]
        return text

    for provider in PROVIDERS:
        [regex] = [key.regex for key in KEYS if key.provider == provider]
        of, at = identifier(provider), START

        def key(place: str, provider: str = provider, regex: str = regex) -> str:
            while not (made := example(regex, chance, more=20).strip("-_.=+/")).isascii() or "/" in made:
                pass
            return plant(f"{provider}: {place}", made)

        book = home / f"book of {provider}"
        for each in (".claude", ".git/objects", ".git/refs"):
            (book / each).mkdir(parents=True)
        (book / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
        (book / ".claude" / "telemetry.toml").write_text(f'project = "{key("project")}"\n')
        said: dict[str, Any] = {"cwd": f"/home/planted-person/{book.name}", "gitBranch": f"017-{key('branch')}"}
        said["slug"] = plant(f"{provider}: slug")
        usage = {"input_tokens": 4, "output_tokens": 30, "speed": key("speed"), "service_tier": key("tier"), "inference_geo": key("geo")}
        named = {name: key(name) for name in ("version", "entrypoint", "message_id", "request_id", "stop_reason")}
        wrote = answer(of, "", at + 1, usage, text=plant(f"{provider}: answer"), model=f"claude-{key('model')}", **named, **said)
        wrote["message"]["content"].append({"type": "tool_use", "name": "Bash", "input": {"command": f"export KEY={key('command')}"}})
        lines: list[dict[str, Any]] = [
            {"type": "summary", "summary": plant(f"{provider}: summary"), "leafUuid": identifier(of)},
            {"type": "custom-title", "customTitle": plant(f"{provider}: title"), "sessionId": of},
            prompt(of, "p", at, text=f"{plant(f'{provider}: prompt')} {key('prompt with a key')}", **said),
            wrote,
            answer(of, of[:8], at + 2, agentId=key("agent"), **said | {"cwd": f"/home/planted-person/{key('cwd')}/book"}),
        ]  # fmt: skip
        configuration.session(of, lines, project=f"-home-planted-person-book-{provider}")
    return secrets | {"home": "planted-person"}


@pytest.mark.parametrize("level", ["strict", "full"])
def test_no_secret_of_a_transcript_is_in_the_store_after_a_backfill(tmp_path, monkeypatch, level):
    """Neither in what was read nor in the rows that were filled in from it, nor in any file; whatever the directory's own settings say."""
    configuration, folder = Configuration(tmp_path / "claude"), tmp_path / "home"
    monkeypatch.setenv("HOME", str(tmp_path / "planted-person"))
    secrets = _planted(configuration, tmp_path / "planted-person")
    with server(folder, SP_TELEMETRY_PRIVACY_LEVEL=level) as running:
        configuration.bring(running.client)
        assert backfill.fill(running.client, files.machine(SECRET), 0, "Ada").requests == 2 * len(PROVIDERS)
        rows = running.query("SELECT user_id, branch, feature, project FROM telemetry.telemetry_events FINAL WHERE source = 'transcript'")
        assert ["Ada", *3 * ["<anthropic-key>"]] in [[each.removeprefix("017-") for each in row] for row in rows]  # what it was for is kept
        assert len(rows) == 2 * len(PROVIDERS)
    found = secrets_search.search(secrets, [*secrets_search.columns(folder / "store"), *secrets_search.files(folder)])
    assert found == []


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", '"model" = "hash"'), ("claude-sonnet-4-5[1m]", '"model" = "hash"'),
        ("arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0", ""),
        ("arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/x1y2z3", ""),
    ],
)  # fmt: skip
def test_a_hashed_model_is_no_other_model(tmp_path, said, rule):
    """A provider's name for it is in events alone, and of two hashes nobody knows whether they are of one model's names."""
    of, configuration = identifier(said), Configuration(tmp_path / "claude")
    session, lines = _session(of)
    for line in lines:
        line["message"]["model"] = "claude-sonnet-4-5-20250929"
    configuration.session(of, lines[:1])
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / own.NAME).write_text(f"[attributes]\n{rule}\n")
    with server(tmp_path / "home") as running:
        events = [event | {"model": said, "cache_creation_1h_tokens": 6} for event in session.events()]
        running.stored("logs", as_json(log_request(events, {})), JSON)
        done = performed(running, configuration, session=of)
    assert (done.count("both"), done.differing, done.clean) == (1, 0, True)


def test_what_transcripts_said_before_comes_down_to_own_rules(tmp_path):
    of, configuration = identifier("before"), Configuration(tmp_path / "claude")
    configuration.session(of, _session(of)[1])
    with server(tmp_path / "home") as running:
        configuration.bring(running.client)
    _rules(tmp_path / "home", "drop")
    policy = own.asked(tmp_path / "home", "strict")
    engine = Engine(tmp_path / "home" / "store")
    with engine.handle() as handle:
        privacy.enforce(handle, policy)
        assert tightening.tighten(handle, policy)["transcript_copies"] == 2
        assert not any(tightening.pending(handle, policy).values())
        left = handle.query(f"SELECT DISTINCT {COPIED}, input_tokens FROM telemetry.transcript_copies FINAL")
    engine.close()
    assert left == b"\t" * 7 + b"0\n"


@pytest.mark.parametrize(("speed", "source"), [("standard", b"computed"), ("fast", b"unpriced")])
def test_what_was_filled_in_is_at_the_policy_and_goes_on_to_say_how_its_cost_is_known(tmp_path, speed, source):
    of, configuration = identifier(speed), Configuration(tmp_path / "claude")
    lines = _session(of)[1]
    for line in lines:
        line["message"]["usage"]["speed"] = speed
    configuration.session(of, lines)
    with server(tmp_path / "home") as running:
        configuration.bring(running.client)
        backfill.fill(running.client, files.machine(SECRET), 0, "Ada")
    policy = own.asked(tmp_path / "home", "strict")
    engine = Engine(tmp_path / "home" / "store")
    with engine.handle() as handle:
        assert not any(tightening.pending(handle, policy).values())
        handle.run("INSERT INTO telemetry.telemetry_events SELECT * REPLACE (version + 1 AS version, 'a/b' AS terminal_type)"
                   " FROM telemetry.telemetry_events FINAL")  # fmt: skip
        assert tightening.tighten(handle, policy)["telemetry_events"]
        said = handle.query("SELECT attributes['cost_source'], count() FROM telemetry.telemetry_events FINAL GROUP BY 1")
    engine.close()
    assert said == source + b"\t2\n"
