"""Words that the real client has for what it does, against ours: at level `strict` a word that we lack is a hash in every report."""

from __future__ import annotations

import mmap
import re

import pytest

from sp_telemetry import resources
from sp_telemetry.privacy.vocabulary import WORDS
from tests.client import VERSIONS, executable
from tests.client.install import ClientUnavailable
from tests.conftest import require

pytestmark = pytest.mark.needs("npm")


@pytest.mark.parametrize("version", VERSIONS)
def test_pitfall_16_what_a_request_is_for_is_a_word_that_we_know(version: str) -> None:
    """A web search's request was for `other-7735abdf`: a recording has only what its session did, the program has all."""
    try:
        program = executable(version)
    except ClientUnavailable as reason:
        require(False, str(reason))
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        purposes = {found.decode() for found in re.findall(rb'querySource:"([A-Za-z_]+)"', content)}
    assert {"sdk", "compact", "web_search_tool"} <= purposes
    assert purposes - WORDS == set()
    known = set(re.findall(r"'([a-z_]+)'", resources.path("telemetry-server/queries/audit.sql").read_text("utf-8")))
    assert purposes - known == set(), "an audit calls them of an unknown kind"
