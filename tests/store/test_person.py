"""A person's name is stored as it was chosen, an e-mail address too; a secret in it is not, and nothing else keeps an address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sp_telemetry.setup.identity import checked, keepable
from sp_telemetry.store import schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, as_protobuf, context, log_request

START = 1_790_000_000 * 10**9
ADDRESS = "ada+books@mail.lovelace.example.org"
NAMES = {
    ADDRESS: ADDRESS,
    "Ada Lovelace": "Ada Lovelace",
    "Ада": "Ада",
    f"Ada <{ADDRESS}>": "Ada <<email>>",
    f"x, {ADDRESS}": "x, <email>",
    "sk-ant-api03-abcdef0123456789@example.org": "<anthropic-key>@example.org",
    "https://deploy:hunter2@example.org": "https://<credentials>@example.org",
    f"{ADDRESS}\n": "<email> ",
}


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    engine = Engine(tmp_path_factory.mktemp("persons"))
    with engine.handle() as opened:
        schema.migrate(opened)
        yield opened
    engine.close()


@pytest.fixture(scope="module")
def pipeline(handle: Handle) -> Pipeline:
    return Pipeline(handle)


def session(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


@pytest.mark.parametrize("encoding", ["json", "protobuf"])
def test_pitfall_28_a_chosen_name_is_kept_and_a_secret_in_it_is_not(handle: Handle, pipeline: Pipeline, encoding: str) -> None:
    encoded = as_json if encoding == "json" else as_protobuf
    base = 100 if encoding == "json" else 200
    requests = []
    for number, name in enumerate(NAMES, start=base):
        told = context(session(number), START, person=name)
        requests.append(log_request([told, {"name": "api_request", "time_ns": START + 1, "session.id": session(number)}], {}))
        resource = {"enduser.id": name, "vcs.repository.name": ADDRESS}
        requests.append(log_request([{"name": "api_request", "time_ns": START, "session.id": session(number + 50)}], resource))
    pipeline.store(Lane("logs", encoding), [encoded(request) for request in requests])
    found = handle.query("SELECT session_id, user_id, project FROM telemetry.telemetry_events FINAL", "TSVRaw").decode()
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in found.splitlines()}
    for number, kept in enumerate(NAMES.values(), start=base):
        assert rows[session(number)][0] == kept
        assert rows[session(number + 50)] == [kept, "<email>"]


def test_set_up_offers_and_refuses_by_the_same_rule() -> None:
    for name, kept in NAMES.items():
        assert keepable(name) == (name if name == kept else checked(name.strip()) if name.strip() == ADDRESS else "")
