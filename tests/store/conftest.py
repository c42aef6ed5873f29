"""A store of its own for a test, or a server that the tests of a file share, with transcripts for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from tests.server import Server, server
from tests.transcripts import Configuration, identifier


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[Handle]:
    engine = Engine(tmp_path / "store")
    with engine.handle() as opened:
        schema.migrate(opened, salt="0" * 32)
        maintenance.apply_retention(opened, {"retention_events_days": 0, "retention_sessions_days": 0})
        yield opened
    engine.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("running")) as started:
        yield started


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path)


@pytest.fixture
def session(request: pytest.FixtureRequest) -> str:
    """One for each test of those that share a store."""
    return identifier(request.node.nodeid)
