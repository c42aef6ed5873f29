"""What all tests share: needs that a machine may not meet, the long forms, and which engine and package are under test."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
# The folder of the installed wheel, when that is under test (scripts/test --wheel).
WHEEL = os.environ.get("SP_TELEMETRY_TEST_WHEEL")

if not WHEEL:  # pytest may have been called by itself. Children that tests start need the path too, workers of xdist have only that.
    sources = str(ROOT / "src")
    if sources not in sys.path:
        sys.path.insert(0, sources)
    if sources not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sources, os.environ.get("PYTHONPATH")]))


# The same examples at each run of CI, so that its verdict is of the change; elsewhere new ones each time.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI") == "true":
    hypothesis.settings.load_profile("ci")


def require(condition: object, reason: str) -> None:
    """Skip this test with `reason` unless `condition`. With CI=true it fails: there, everything must have run."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI=true, so this may not be skipped)", pytrace=False)
    pytest.skip(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the long forms of tests")


def pytest_report_header() -> list[str]:
    try:
        engine = version("chdb-core")
    except PackageNotFoundError:
        engine = "none on this platform"
    import sp_telemetry

    package = Path(sp_telemetry.__file__).parent
    if WHEEL and not package.is_relative_to(WHEEL):
        pytest.exit(f"the wheel is to be tested, but sp_telemetry comes from {package}", returncode=4)
    return [f"engine: chdb-core {engine}; under test: {'the wheel' if WHEEL else 'the sources'}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        # Deselected, not skipped: nothing is lacking here.
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        missing = [command for command in marker.args if not shutil.which(command)]
        require(not missing, f"{', '.join(missing)} not found")
