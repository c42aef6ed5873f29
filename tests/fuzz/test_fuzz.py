"""Each parser with inputs that nobody thought of, for a few seconds; tests/fuzz/run.py does it for as long as one likes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import WHEEL
from tests.fuzz.engine_targets import NAMES, Engines
from tests.fuzz.mutation import mutated, seeds

pytestmark = pytest.mark.checkout
if not WHEEL:
    from tests.fuzz.text_targets import TARGETS
else:
    TARGETS = {}


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    opened = Engines()
    yield opened
    opened.close()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_of_text(name: str) -> None:
    """What was found once is not found again."""
    for data in seeds(name):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_text(name: str, data: st.DataObject) -> None:
    TARGETS[name](_made(name, data))


@pytest.mark.parametrize("name", NAMES)
def test_seeds_of_the_engine(engines: Engines, name: str) -> None:
    for data in seeds(name):
        engines.targets[name](data)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_engine(engines: Engines, name: str, data: st.DataObject) -> None:
    for _ in range(8 if name in ("statement", "native", "own_prices", "own_patterns") else 1):  # these take a tenth of the time
        engines.targets[name](_made(name, data))


def _made(name: str, data: st.DataObject) -> bytes:
    known = seeds(name)
    if data.draw(st.integers(0, 9)) == 0:
        return data.draw(st.binary(max_size=200))
    return mutated(data.draw(st.sampled_from(known)), known, random.Random(data.draw(st.integers(0, 2**64))))
