"""A store of its own for a test. Files that share one among their tests have their own fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[Handle]:
    engine = Engine(tmp_path / "store")
    with engine.handle() as opened:
        schema.migrate(opened, salt="0" * 32)
        maintenance.apply_retention(opened, {"retention_events_days": 0, "retention_sessions_days": 0})
        yield opened
    engine.close()
