"""A disk that is full while something large is under way: a migration, a backup, a restore, an audit, a backfill. Each says so, leaves
nothing half-made, and goes on when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sp_telemetry.setup import service
from sp_telemetry.setup.replay import Recording, replay
from tests.conftest import ROOT
from tests.e2e.faults import OLD_STORE, event, health, numbers, request
from tests.e2e.rooms import InRoom, Room, fill, room, small_disk
from tests.server import wait_for

__all__ = ["room"]  # a fixture
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces of Linux"),
    pytest.mark.needs("unshare", "nsenter", "mount", "curl"),
    pytest.mark.timeout(300),
]
SCRIPTS = ROOT / "telemetry-server/scripts"
RECORDED = ROOT / "tests/recordings/book-2.1.330-http-protobuf"


def leave(of: InRoom, kib: int) -> Path:
    """Fill the disk of the home but for `kib`. The file to remove for room."""
    ballast = of.home.path.parent / "ballast"
    fill(ballast)
    os.truncate(ballast, max(ballast.stat().st_size - (kib << 10), 0))
    return ballast


def test_a_migration_without_room_says_so_and_goes_on_with_room(room: Room, tmp_path: Path) -> None:
    """With next to none the engine wrote empty definitions of tables, with which nothing could open the store any more."""
    with small_disk(room, tmp_path / "small", 64) as placed:
        placed.home.make()
        subprocess.run([*room.enter, sys.executable, "-c", OLD_STORE, placed.folder / "store", "2000"], check=True)
        for kib in (0, 8, 24, 1030, 1300, 2000):
            ballast = leave(placed, kib)
            told = placed.command("up")
            ballast.unlink()
            assert told.returncode == 1 and " is full." in told.stderr and "DB::Exception" not in told.stderr, (kib, told)
        placed.up()
        assert numbers(placed) == [*range(2000)]
        applied = [name for (name,) in placed.query("SELECT name FROM telemetry.schema_migrations FINAL WHERE name LIKE '0%' ORDER BY 1")]
        assert applied == sorted(file.name for file in (ROOT / "telemetry-server/clickhouse/schema").iterdir())


class Scripts:
    """telemetry-server/scripts within a room. `blind`: whatever they ask about the room on a disk, there is much."""

    def __init__(self, of: InRoom, folder: Path) -> None:
        self.of, self.folder = of, folder
        for name in ("bin", "blind"):
            (folder / name).mkdir()
        for file, text in (
            ("bin/sp-telemetry", f'exec "{sys.executable}" -m sp_telemetry.cli.main "$@"'),
            ("blind/df", "printf 'disk\\na 9 9 99999999 9 /\\n'"),
        ):
            (folder / file).write_text(f"#!/bin/sh\n{text}\n")
            (folder / file).chmod(0o755)

    def __call__(self, name: str, *arguments: object, blind: bool = False) -> subprocess.CompletedProcess:
        path = ":".join([*([str(self.folder / "blind")] if blind else []), str(self.folder / "bin"), os.environ["PATH"]])
        return subprocess.run(
            [*self.of.room.enter, SCRIPTS / name, *map(str, arguments)],
            env={**self.of.environ, "SP_TELEMETRY_HOME": str(self.of.folder), "PATH": path},
            capture_output=True, text=True, timeout=100,
        )  # fmt: skip


@pytest.mark.checkout
def test_a_backup_and_a_restore_without_room_leave_nothing_half_made(room: Room, tmp_path: Path) -> None:
    """The engine cuts a backup's files short where a disk is full, and says that it was made. Of a restored database with definitions that
    are cut short no server could start any more."""
    with small_disk(room, tmp_path / "small", 128) as placed:
        script = Scripts(placed, tmp_path)
        placed.up()
        placed.stored("logs", request(event(1)))
        random = "SELECT now64(9) - number, 'x', 's', number, 'otlp', randomPrintableASCII(400) FROM numbers(30000)"
        placed.run(f"INSERT INTO telemetry.telemetry_events (timestamp, event_type, session_id, event_sequence, source, branch) {random}")
        elsewhere, backups = tmp_path / "elsewhere", placed.home.path / "backups"
        full = "The disk of the store is full"
        for kib, blind, why in ((4000, False, "4000 KiB free"), (4000, True, "The backup is not whole"), (100, True, full)):
            for to in ((), ("--to", elsewhere)):
                ballast = leave(placed, kib)
                told = script("backup-data.sh", *to, blind=blind)
                ballast.unlink()
                assert told.returncode == 1 and why in told.stderr and (not blind or "Make room" in told.stderr), told
                assert [*backups.iterdir()] == [] and (not to or [*elsewhere.iterdir()] == []), told
        assert script("backup-data.sh", "--to", elsewhere, "--name", "whole").returncode == 0
        held = placed.query("SELECT count(), sum(cityHash64(branch)) FROM telemetry.telemetry_events FINAL")
        brought = "The backup can't be brought to"
        for kib, blind, why in ((4000, False, "4000 KiB free"), (4000, True, brought), (14000, True, full), (16000, True, full)):
            ballast = leave(placed, kib)
            told = script("restore-data.sh", elsewhere / "whole", "--beside", blind=blind)
            ballast.unlink()
            assert told.returncode == 1 and why in told.stderr and ("run this again" in told.stderr or why == brought), told
            assert [*backups.iterdir()] == []
            assert placed.query("SELECT name FROM system.databases WHERE name LIKE 'telemetry%'") == [["telemetry"]]
        placed.restart()
        assert placed.query("SELECT count(), sum(cityHash64(branch)) FROM telemetry.telemetry_events FINAL") == held
        told = script("restore-data.sh", elsewhere / "whole", "--replace")
        assert told.returncode == 0, told
        placed.running = service.running(placed.home)
        assert placed.query("SELECT count(), sum(cityHash64(branch)) FROM telemetry.telemetry_events FINAL") == held
        # one that an engine had cut short before this was looked at
        cut = max((file for file in (elsewhere / "whole").rglob("*.bin")), key=lambda file: file.stat().st_size)
        os.truncate(cut, 100)
        sums = subprocess.run("find whole -type f | xargs sha256sum", shell=True, cwd=elsewhere, capture_output=True, check=True).stdout
        (elsewhere / "whole.sha256").write_bytes(sums)
        told = script("restore-data.sh", elsewhere / "whole", "--check")
        assert told.returncode == 1 and "is not whole: files of it were cut short" in told.stderr


def test_an_audit_and_a_backfill_without_room_say_so_and_are_whole_with_room(room: Room, tmp_path: Path) -> None:
    (tmp_path / "claude").mkdir()
    (tmp_path / "claude" / "projects").symlink_to(RECORDED / "transcripts")
    with small_disk(room, tmp_path / "small", 64) as placed:
        placed.environ |= {"CLAUDE_CONFIG_DIR": str(tmp_path / "claude"), "HOME": str(tmp_path)}
        placed.up()
        kept = numbers(placed)
        for command in ("backfill", "audit"):
            for kib in (0, 300, 900, 1100):
                ballast = leave(placed, kib)
                told = placed.command(command, "--since", "500w")
                ballast.unlink()
                assert told.returncode in (1, 5) and "ake room" in told.stderr and "DB::Exception" not in told.stderr, (kib, told)
                assert "Traceback" not in told.stderr and not [*(placed.home.path / "secrets").glob(".*")]
            assert numbers(placed) == kept
            if command == "backfill":
                assert json.loads(placed.command("backfill", "--since", "500w", "--json").stdout)["filled"]["requests"] == 55
                kept = numbers(placed)
                assert len(kept) == 55
        replay(Recording(RECORDED), "127.0.0.1", placed.ports)
        told = json.loads(placed.command("audit", "--since", "500w", "--json", "--grace", "0").stdout)
        assert (told["both"], told["missing"]) == (55, 0)
        assert wait_for(lambda: health(placed)[0] == 200)
