"""Random histories on the real engine, against a simple model (histories.py): three encodings, with attribution, summaries and merges in
between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Pipeline
from tests.server import log_request
from tests.store.histories import OnHandle, gaps, whole_histories
from tests.store.test_exactly_once import PATHS


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    opened = Engine(tmp_path_factory.mktemp("model"))
    with opened.handle() as handle:
        schema.migrate(handle)
        maintenance.apply_retention(handle, {"retention_events_days": 0, "retention_sessions_days": 0})
    yield opened
    opened.close()


class Embedded(OnHandle):
    def __init__(self, handle: Handle, pipeline: Pipeline) -> None:
        super().__init__(handle)
        self.pipeline = pipeline

    def send(self, path: int, events: list[dict[str, Any]]) -> None:
        PATHS[path % len(PATHS)](self.pipeline, self.handle, log_request(events))


def test_the_model_knows_what_is_missing():
    assert gaps([]) == (0, 0)
    assert gaps([0, 1, 2]) == (3, 0)
    assert gaps([2]) == (1, 2)
    assert gaps([0, 1, 3, 0, 1, 2, 3]) == (7, 1)
    assert gaps([0, 1, 2, 2**63]) == (4, 0)
    assert gaps([0, 2, 2, 1003]) == (4, 1 + 1000 + 2)
    assert gaps([0, 1999, 2000, 2**63, 2**63]) == (5, 1998)
    assert gaps([5000]) == (1, 5000)
    assert (gaps([0, 100_001]), gaps([0, 100_002])) == ((2, 100_000), (2, 0))
    assert gaps([0, *range(100_002, 100_103)]) == (102, 100_001)


def run(engine: Engine, examples: int, steps: int) -> None:
    chosen = whole_histories(examples, steps)
    with engine.handle() as handle:
        pipeline = Pipeline(handle)
        run_state_machine_as_test(lambda: Embedded(handle, pipeline), settings=chosen)


def test_pitfall_14_any_history_ends_in_what_a_simple_model_says(engine):
    run(engine, 10, 20)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_long_histories_end_in_what_a_simple_model_says(engine):
    run(engine, 150, 40)
