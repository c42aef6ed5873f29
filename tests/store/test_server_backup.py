"""What backup-data.sh and restore-data.sh say to a server, by the grants that its telemetry_user has, under its own configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sp_telemetry import resources
from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import READER, WRITER
from sp_telemetry.serve.clickhouse_statement import COPIES
from sp_telemetry.store import schema, server
from tests.store import test_server_access as access

BACKUP = "BACKUP DATABASE telemetry{} TO Disk('backups', 'telemetry-20261123T120000Z')"
RESTORE = "RESTORE DATABASE telemetry AS telemetry_restored FROM Disk('backups', 'telemetry-20261123T120000Z')"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for `configured`, whose backups may lie in backups/ in place of a container's /backups."""
    write = access.write

    def beside(place: Path, as_user: str) -> Path:
        written = write(place, as_user)
        file = place / "config.d" / "telemetry.xml"
        text = file.read_text()
        assert "<path>/backups/</path>" in text
        file.write_text(text.replace("<path>/backups/", f"<path>{tmp_path}/backups/"))
        return written

    monkeypatch.setattr(access, "write", beside)
    return tmp_path


def test_a_server_of_ours_is_backed_up_and_restored_by_telemetry_user(folder: Path) -> None:
    with access.configured(folder, as_user=WRITER) as handle:
        schema.migrate(handle)
        server.make_upkeep(handle)
        handle.run("INSERT INTO telemetry.telemetry_events (event_type, session_id, timestamp) SELECT 'api_request', 'kept', now64(9)")
        names = "SELECT name FROM system.tables WHERE database = '{}' AND engine {} '%MergeTree' ORDER BY name"
        views = handle.query(names.format("telemetry", "NOT LIKE")).decode().split()
        tables = handle.query(names.format("telemetry", "LIKE")).decode().split()
        backup = BACKUP.format(" EXCEPT TABLES " + ", ".join(f"telemetry.{name}" for name in views))
        assert b"BACKUP_CREATED" in handle.query(backup)
        handle.run("INSERT INTO telemetry.telemetry_events (event_type, session_id, timestamp) SELECT 'api_request', 'later', now64(9)")
        said = [RESTORE, *(f"EXCHANGE TABLES telemetry.{name} AND telemetry_restored.{name}" for name in tables)]
        for statement in said:
            handle.query(statement)
            if statement == RESTORE:  # which restore-data.sh holds against the collector's
                restored = handle.query("SELECT salt FROM telemetry_restored.installation")
                assert restored == handle.query("SELECT salt FROM telemetry.installation") != b""
        assert handle.query(names.format("telemetry_restored", "LIKE")).decode().split() == tables
        assert handle.query("SELECT session_id FROM telemetry.telemetry_events").decode().split() == ["kept"]
        handle.run("INSERT INTO telemetry.telemetry_events SELECT * FROM telemetry_restored.telemetry_events WHERE session_id = 'later'")
        handle.run("RENAME TABLE telemetry.privacy_history TO telemetry_restored.of_a_newer_version")
        handle.run("RENAME TABLE telemetry_restored.privacy_history TO telemetry.privacy_history")
        handle.run("DROP DATABASE IF EXISTS telemetry_restored SYNC")
        assert handle.query("SELECT session_id FROM telemetry.telemetry_events ORDER BY 1").decode().split() == ["kept", "later"]
        # Nothing more is let through by the embedded server than this.
        for statement in [backup, *said, "DROP DATABASE IF EXISTS telemetry_restored SYNC"]:
            canonical = handle.query(f"SELECT formatQuerySingleLine('{statement.replace(chr(39), chr(92) + chr(39))}')", "TSVRaw").decode()
            assert COPIES.fullmatch(canonical.strip()), canonical


def test_the_reader_may_do_none_of_it(folder: Path) -> None:
    with access.configured(folder) as handle:
        schema.migrate(handle)
        handle.query(BACKUP.format(""))
    with access.configured(folder, as_user=READER) as handle:
        for statement in (BACKUP.format("").replace("T12", "T13"), RESTORE, "DROP DATABASE telemetry"):
            with pytest.raises(QueryFailed, match=r"Not enough privileges|readonly"):
                handle.query(statement)


def test_the_scripts_say_no_other_statements_than_these() -> None:
    scripts = [resources.path(f"telemetry-server/scripts/{name}-data.sh").read_text() for name in ("backup", "restore")]
    said = {match for text in scripts for match in re.findall(r'ask telemetry_user "((?:BACKUP|RESTORE|EXCHANGE|DROP)[^"]*)"', text)}
    assert said == {
        "BACKUP DATABASE telemetry$without TO Disk('backups', '$part')",
        "RESTORE DATABASE telemetry AS telemetry_restored FROM Disk('backups', '$engine_name')",
        "EXCHANGE TABLES telemetry.$table AND telemetry_restored.$table",
        "DROP DATABASE IF EXISTS telemetry_restored SYNC",
        "DROP DATABASE telemetry_restored SYNC",
    }
