"""What the real client tells of its account's subscription, and what a report of the real server says of it.

The account is made up: a file of credentials that no server has issued. The model is a stub, and where the client looks for its own
servers there is a proxy that nobody listens at, so nothing leaves loopback.
"""

from __future__ import annotations

import json
import mmap
import re
import time
from pathlib import Path

import pytest

from sp_telemetry.privacy.vocabulary import WORDS
from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, executable
from tests.client.install import NEWEST, OLDEST, ClientUnavailable
from tests.conftest import require
from tests.server import server

pytestmark = pytest.mark.needs("npm")

WITHOUT_KEY = {"ANTHROPIC_API_KEY": "", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}


def program(version: str) -> Path:
    try:
        return executable(version)
    except ClientUnavailable as reason:
        require(False, str(reason))
        raise


def sign_in(client: ClaudeCode, plan: str, seat_tier: str | None) -> None:
    in_a_month = int(time.time() * 1000) + 30 * 86_400_000
    tokens = {"accessToken": "made-up", "refreshToken": "made-up", "expiresAt": in_a_month}
    tokens |= {"scopes": ["user:inference"], "subscriptionType": plan}
    (client.config / ".credentials.json").write_text(json.dumps({"claudeAiOauth": tokens}))
    state = client.config / ".claude.json"
    account = {"accountUuid": "11111111-1111-4111-8111-111111111111", "emailAddress": "ada@example.org", "seatTier": seat_tier}
    state.write_text(json.dumps(json.loads(state.read_text()) | {"oauthAccount": account}))


def test_pitfall_21_the_real_client_tells_of_its_plan_and_the_report_says_so(tmp_path: Path) -> None:
    accounts = {  # version, plan, tier of its seat -> what each event says
        (NEWEST, "max", None): ["max", ""],
        (NEWEST, "team", "team_tier_1"): ["team", "premium"],
        (NEWEST, "enterprise", "enterprise_usage_based"): ["enterprise", "usage_based"],
        (NEWEST, "", None): ["", ""],  # a key of the API
        (OLDEST, "max", None): ["", ""],
    }
    told, not_paid = [], 0.0
    with MessagesApi(Script().on("go on", Reply("done"))) as api, OtlpRecorder(grpc=False) as otlp, server(tmp_path / "sp") as store:
        for number, ((version, plan, seat_tier), words) in enumerate(accounts.items()):
            client = ClaudeCode(program(version), tmp_path / str(number), api.url)
            if plan:
                sign_in(client, plan, seat_tier)
            done = client.run("go on", cwd=tmp_path, env=otlp.environment(traces=False, **(WITHOUT_KEY if plan else {})))
            assert done.returncode == 0, done.stdout + done.stderr
            told.append([done.session_id, *words])
            not_paid += done.result["total_cost_usd"] * (words[0] in ("max", "team"))
        for request in otlp.of("logs"):
            store.stored("logs", request.body)
        assert store.query("SELECT DISTINCT session_id, plan, seat_type FROM telemetry.telemetry_events ORDER BY 1") == sorted(told)
        facts = json.loads(store.command("report", "cost", "--json").stdout)["coverage"]
        table = " ".join(store.command("report", "cost").stdout.split())
    assert not_paid > 0 and (facts["under_plan"], facts["plans"]) == (pytest.approx(not_paid), ["max", "team"])
    assert f"· ${not_paid:.2f} of it under a plan (max, team), at list prices ·" in table


def test_pitfall_21_every_plan_and_seat_that_the_client_can_tell_of_is_a_word_that_we_know() -> None:
    with program(NEWEST).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        plans = re.findall(rb'new Set\(\["pro","max",([^\]]*)\]\)', content)
        seats = re.findall(rb'\["(?:team|enterprise)_[a-z_0-9]+",("[a-z_]+")\]', content)
    assert b'"team","enterprise"' in plans and len(set(seats)) == 4
    assert {word.decode() for word in re.findall(b"[a-z_]+", b" ".join(plans + seats))} - WORDS == set()
