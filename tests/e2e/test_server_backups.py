"""telemetry-server/scripts on a real server: a backup that restores into every table, and no half-made one."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from sp_telemetry.setup import service
from tests.conftest import ROOT
from tests.e2e.shell import Shell, running
from tests.server import JSON, Server, as_json, log_request, server, wait_for

__all__ = ["running"]  # a fixture
pytestmark = [pytest.mark.checkout, pytest.mark.needs("curl")]
LATER = "00000000-0000-4000-8000-000000000001"
# Made from events, also anew at a start: with another version, and sums of floats in another order.
DERIVED = dict.fromkeys(("session_summaries", "usage_hourly"), "* EXCEPT (version) REPLACE (round(cost_usd, 9) AS cost_usd)")


def contents(of: Server, database: str = "telemetry", columns: Mapping[str, str] = MappingProxyType({})) -> dict[str, list]:
    """table -> [rows, hash of all of them], of every table that holds data but the one whose rows nobody is shown."""
    sql = f"SELECT name FROM system.tables WHERE database = '{database}' AND engine LIKE '%MergeTree' AND name != 'installation'"
    return {
        name: of.query(f"SELECT count(), sum(sipHash64(formatRow('JSONEachRow', {columns.get(name, '*')}))) FROM {database}.{name}")[0]
        for (name,) in of.query(sql)
    }


def salt(home: Path) -> str:
    """Of a store that no server has."""
    code = "import sys, chdb; print(chdb.connect(sys.argv[1]).query('SELECT salt FROM telemetry.installation').bytes().decode())"
    done = subprocess.run([sys.executable, "-c", code, str(home / "store")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().strip('"')


def backed_up(started: Server, shell: Shell, *arguments: str) -> tuple[dict, dict[str, list]]:
    """A backup of a moment in which nothing changed: what backup-data.sh says, and the contents of that moment."""
    for _ in range(10):
        before = contents(started)
        made = shell.json("backup-data.sh", *arguments)
        if contents(started) == before:
            return made, before
        time.sleep(1)
    raise AssertionError("the store does not come to rest")


@pytest.fixture(scope="module")
def made(running, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list]]:
    started, shell = running
    assert wait_for(lambda: started.query("SELECT count() FROM telemetry.session_summaries")[0][0] > 8, 60)
    told, held = backed_up(started, shell, "--to", str(tmp_path_factory.mktemp("elsewhere") / "b"))
    assert set(told) == {"name", "path", "files", "kib", "rows", "removed"}
    return Path(told["path"]), held


def test_a_backup_is_whole_and_its_owners(made) -> None:
    path, held = made
    empty = {name for name, (rows, _) in held.items() if rows == 0}
    assert len(held) >= 18 and not empty & {"telemetry_events", "telemetry_metrics", "telemetry_spans", "session_context", "usage_hourly"}
    assert not empty & {"session_summaries", "transcript_copies", "transcript_files", "session_audits", "audit_findings", "model_prices"}
    for file in [path, path.with_suffix(".sha256"), *path.rglob("*")]:
        assert file.stat().st_mode & 0o077 == 0, file
    named = {line.split("  ")[1] for line in path.with_suffix(".sha256").read_text().splitlines()}
    assert named == {str(file.relative_to(path.parent)) for file in path.rglob("*") if file.is_file()}
    assert not [left for left in path.parent.iterdir() if "partial" in left.name]


@pytest.mark.timeout(300)
def test_drill_every_table_comes_back(made, tmp_path: Path) -> None:
    """Into an empty home, beside and in place: the same rows in every table, and the salt."""
    path, held = made
    assert "telemetry_events" in held
    with server(tmp_path / "home") as fresh:
        shell = Shell(fresh, tmp_path / "bin")
        assert shell("restore-data.sh", path, "--beside").returncode == 0
        assert contents(fresh, "telemetry_restored") == held
        assert fresh.query("SELECT count() FROM telemetry.telemetry_events") == [[0]]
        expected = contents(fresh, "telemetry_restored", DERIVED)

        told = shell.json("restore-data.sh", str(path))
        fresh.running = service.running(fresh.home)  # it was restarted
        assert told["database"] == "telemetry" and set(told["tables"]) == {*held, "installation"} and told["tables"]["installation"] == 1
        now = contents(fresh, columns=DERIVED)
        for name in ("server_runs", "schema_migrations", "privacy_history", "model_prices"):  # the start has written rows of its own
            assert now.pop(name)[0] >= expected.pop(name)[0]
        assert now == expected
        assert fresh.query("SELECT count() FROM system.databases WHERE name = 'telemetry_restored'") == [[0]]
        report = fresh.command("report", "cost", "--by", "feature", "--from", "2026-01-01")
        assert report.returncode == 0 and "018-cost-reports" in report.stdout

        # Not empty any more: an event arrives, and is gone with --replace, but for the backup of before.
        replay_one(fresh)
        assert shell("restore-data.sh", path).returncode == 1
        assert fresh.query(f"SELECT count() FROM telemetry.telemetry_events WHERE session_id = '{LATER}'") == [[1]]
        replaced = shell.json("restore-data.sh", str(path), "--replace")
        fresh.running = service.running(fresh.home)
        assert contents(fresh)["telemetry_events"] == held["telemetry_events"]
        kept = fresh.home.backups / replaced["before"]
        assert shell("restore-data.sh", kept.name, "--beside").returncode == 0
        assert fresh.query(f"SELECT count() FROM telemetry_restored.telemetry_events WHERE session_id = '{LATER}'") == [[1]]
    restored = salt(tmp_path / "home")
    assert re.fullmatch("[0-9a-f]{32}", restored) and restored.encode() in b"".join(
        file.read_bytes() for file in path.glob("data/telemetry/installation/*/data.bin")
    )


@pytest.mark.timeout(300)
def test_what_is_acknowledged_while_a_restore_gets_ready_is_kept(made, tmp_path: Path) -> None:
    """After what is there was backed up, and before its place is taken: a large backup is brought there for minutes."""
    path, held = made
    with server(tmp_path / "home") as fresh:
        shell = Shell(fresh, tmp_path / "bin")
        replay_one(fresh)
        body = tmp_path / "one"
        body.write_bytes(as_json(one_of(LATER, 2)))
        url, send = f"http://127.0.0.1:{fresh.ports['otlp_http']}/v1/logs", tmp_path / "bin" / "cp"
        content = f"-H 'Content-Type: application/json' --data-binary '@{body}' {url}"
        send.write_text(f'#!/bin/sh\nsleep 1.1; curl -sf {content} >/dev/null || exit 9; sleep 1.1\nexec {shutil.which("cp")} "$@"\n')
        send.chmod(0o755)
        replaced = shell("restore-data.sh", path, "--replace")
        assert replaced.returncode == 0, replaced.stderr
        fresh.running = service.running(fresh.home)
        stored = fresh.query("SELECT event_sequence FROM telemetry.telemetry_events WHERE session_id = {of:String}", of=LATER)
        assert stored == [[2]] and contents(fresh)["telemetry_events"][0] == held["telemetry_events"][0] + 1


def one_of(session: str, number: int) -> dict:
    at = time.time_ns() - 3_000_000_000
    return log_request([{"name": "api_request", "time_ns": at, "session.id": session, "event.sequence": number, "cost_usd": 1.0}])


def replay_one(to: Server) -> None:
    to.stored("logs", as_json(one_of(LATER, 1)), JSON)
    time.sleep(2)  # what arrives in the second in which a restore begins stays, as it should


def test_a_backup_that_is_damaged_or_unfinished_is_refused(running, made, tmp_path: Path) -> None:
    _, shell = running
    path, _ = made
    for damage in ("byte", "missing", "more", "unfinished"):
        copy = tmp_path / damage / path.name
        shutil.copytree(path, copy)
        shutil.copy(path.with_suffix(".sha256"), copy.with_suffix(".sha256"))
        assert shell("restore-data.sh", copy, "--check").returncode == 0
        file = max(copy.glob("data/telemetry/telemetry_events/*/*.bin"), key=lambda one: one.stat().st_size)
        if damage == "byte":
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        elif damage == "missing":
            file.unlink()
        elif damage == "more":
            file.with_name("another.bin").write_bytes(b"")
        else:
            copy.with_suffix(".sha256").unlink()
        for how in ("--check", "--beside", "--replace"):
            refused = shell("restore-data.sh", copy, how)
            assert refused.returncode == 1 and refused.stdout == "" and str(copy) in refused.stderr, (damage, how, refused)
    assert shell("restore-data.sh", "no-such-backup").returncode == 2


def test_so_many_are_kept(running, tmp_path: Path) -> None:
    _, shell = running
    for _ in range(3):
        told = shell.json("backup-data.sh", "--to", tmp_path, "--keep", "2")
        time.sleep(1.01)  # names are seconds
    assert shell("backup-data.sh", "--to", tmp_path, "--name", "of-mine").returncode == 0
    listed = [one["name"] for one in shell.json("backup-data.sh", "--to", str(tmp_path), "--list")["backups"]]
    assert len(listed) == 3 and listed[0] == "of-mine" and listed[-1] == told["name"] and len(told["removed"]) == 1
    assert {entry.name.removesuffix(".sha256") for entry in tmp_path.iterdir()} == set(listed)
    assert shell("backup-data.sh", "--to", tmp_path, "--keep", "few").returncode == 2


TROUBLES = (ROOT / "telemetry-server/docs/troubleshooting.md").read_text()


def alike(text: str) -> list[str]:
    """The lines of `text` without what differs from machine to machine."""
    text = re.sub(r"held by .* \(pid \d+\)|telemetry-\d{8}T\d{6}Z", "…", text)
    return re.sub(r"\d+", "0", text).splitlines()


def test_the_troubles_of_the_document_look_as_it_shows(running, made, tmp_path: Path) -> None:
    started, shell = running
    for name in ("telemetry_user", "telemetry_reader"):
        (tmp_path / name).write_text("made up here\n")
    shutil.copytree(made[0], started.home.backups / made[0].name)
    shutil.copy(made[0].with_suffix(".sha256"), started.home.backups)
    held = str(started.ports["clickhouse"])
    done = {
        "verify-setup.sh --backend compose": shell("verify-setup.sh", "--backend", "compose", DOCKER_HOST=f"unix://{tmp_path}/none.sock"),
        "verify-setup.sh": shell("verify-setup.sh", "--home", tmp_path / "another", SP_TELEMETRY_CLICKHOUSE_PORT=held),
        "test-connection.sh": shell("test-connection.sh", "--secrets", tmp_path),
        "restore-data.sh telemetry-20261123T120000Z": shell("restore-data.sh", made[0].name),
    }
    shown = dict(re.findall(r"^\$ telemetry-server/scripts/(.*)\n((?:(?!```).*\n)*)", TROUBLES, re.M))
    assert set(shown) == set(done)
    for command, text in shown.items():
        said = done[command].stdout + done[command].stderr
        assert done[command].returncode == 1
        if command == "verify-setup.sh --backend compose" and "There is no docker on PATH" in said:
            continue  # the document says so in words
        assert [line for line in alike(text) if line not in alike(said)] == [], said


def killed_in_mid_backup(running, folder: Path, times: int) -> None:
    """The script with all that it started, or every other time the server."""
    started, shell = running
    moments = random.Random(20261123)
    ended = 0
    for turn in range(times):
        process = shell.start("backup-data.sh", "--to", str(folder), "--name", f"turn-{turn}")
        time.sleep(moments.uniform(0.02, 0.9))
        ended += process.poll() is not None
        if turn % 2:
            os.kill(started.running.pid, signal.SIGKILL)
            assert wait_for(lambda: not service.is_held(started.home))
        elif process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        started.up()
        listed = [one["name"] for one in shell.json("backup-data.sh", "--to", str(folder), "--list")["backups"]]
        assert (f"turn-{turn}" in listed) <= (process.returncode in (0, -signal.SIGKILL))
        for name in listed:
            assert shell("restore-data.sh", folder / name, "--check").returncode == 0
        named = {entry.name.removesuffix(".sha256") for entry in folder.glob("*.sha256")}
        assert {name for name in named if not name.startswith(".partial-")} == set(listed)
    assert ended < times, "none was killed in its middle"
    assert shell("backup-data.sh", "--to", folder, "--name", "last").returncode == 0
    for place in (folder, started.home.backups):
        assert [entry.name for entry in place.iterdir() if "partial" in entry.name or entry.name == ".lock"] == []
    assert shell("restore-data.sh", folder / "last", "--check").returncode == 0


def test_killed_in_mid_backup(running, tmp_path: Path) -> None:
    killed_in_mid_backup(running, tmp_path, 6)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_killed_in_mid_backup_many_times(running, tmp_path: Path) -> None:
    killed_in_mid_backup(running, tmp_path, 60)
