"""telemetry-server/docs/query-examples.md: each query, run as printed, answers what the document shows.

PYTHONPATH=src:. python -m tests.e2e.test_query_examples     writes the answers into the document
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_telemetry.home import READER
from sp_telemetry.setup.replay import Recording, replay
from sp_telemetry.store.client import Client
from tests.conftest import ROOT, require
from tests.server import Server, server

pytestmark = pytest.mark.checkout
DOCUMENT = ROOT / "telemetry-server/docs/query-examples.md"
RECORDED = ROOT / "tests/recordings/book-2.1.330-http-protobuf"
#: a query, and the answer below it: a table, or a block of text where the query has a format of its own
EXAMPLE = re.compile(r"```sql\n(.*?)```\n(\n(?:\|[^\n]*\n)+|\n```text\n.*?```\n)?", re.DOTALL)


def recorded(started: Server) -> Client:
    """As telemetry_reader, a server that has stored the recording and brought its summaries up to date."""
    replay(Recording(RECORDED), "127.0.0.1", started.ports)
    agree = (
        "SELECT (SELECT countIf(event_type = 'api_request') FROM telemetry_events FINAL) AS n,"
        " (SELECT sum(requests) FROM session_summaries FINAL) = n AND (SELECT sum(requests) FROM usage_hourly FINAL) = n AND n > 0"
    )
    started.restart()  # an orderly end brings everything up to date
    client = Client(f"http://127.0.0.1:{started.ports['clickhouse']}", READER, started.home.secret(READER))
    assert client.query(agree).rows[0][1]
    return client


def answer(client: Client, sql: str) -> str:
    """As it stands in the document, with the blank line before it; empty where nothing is answered."""
    text = b"".join(client.stream(sql, "Markdown")).decode()
    if re.search(r"\bFORMAT \w+\s*$", sql):
        return f"\n```text\n{text}```\n"
    return "\n" + text if text.count("\n") > 2 else ""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("examples")) as started:
        recorded(started)
        yield started


@pytest.fixture
def client(started: Server) -> Client:
    return Client(f"http://127.0.0.1:{started.ports['clickhouse']}", READER, started.home.secret(READER))


def test_each_query_answers_what_the_document_shows(client: Client) -> None:
    examples = EXAMPLE.findall(DOCUMENT.read_text())
    assert len(examples) == DOCUMENT.read_text().count("```sql") >= 15
    assert {sql: answer(client, sql) for sql, _ in examples} == dict(examples)
    tables = ("telemetry_events", "session_summaries", "usage_hourly")
    assert all(any(table in sql for sql, _ in examples) for table in tables)


def test_the_line_that_says_how_to_ask_runs(client: Client) -> None:
    line = re.search(r'^    sp-telemetry sql --format markdown "(.*)"$', DOCUMENT.read_text(), re.M)[1]
    assert "| user_prompt |" in answer(client, line)


def test_the_lines_of_the_queries_readme_run(started: Server, tmp_path: Path) -> None:
    """Those for curl and for Python, in the folder and with the home that they name."""
    require(shutil.which("curl"), "curl is not installed")
    readme = (ROOT / "telemetry-server/queries/README.md").read_text()
    (tmp_path / ".local/share").mkdir(parents=True)
    (tmp_path / ".local/share/sp-telemetry").symlink_to(started.home.path)
    port = str(started.ports["clickhouse"])

    def block(title: str) -> str:
        section = readme.partition(f"## With {title}\n")[2].partition("\n## ")[0]
        return "\n".join(line[4:] for line in section.splitlines() if line.startswith("    ")).replace(
            "localhost:8123", f"localhost:{port}"
        )

    environ = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-euc", block("curl")], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "34-cost-reports" in done.stdout and "api_request\t55\n" in done.stdout, done.stdout + done.stderr
    python = block("Python").replace('host="localhost"', f'host="localhost", port={port}')
    queries = ROOT / "telemetry-server/queries"
    done = subprocess.run([sys.executable, "-c", python], cwd=queries, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "34-cost-reports" in done.stdout, done.stdout + done.stderr


def write() -> None:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as started:
        client = recorded(started)
        text = EXAMPLE.sub(lambda one: f"```sql\n{one[1]}```\n{answer(client, one[1])}", DOCUMENT.read_text())
        DOCUMENT.write_text(text)


if __name__ == "__main__":
    sys.exit(write())
