"""The schema's life on the real engine: from blank, from every earlier shape with rows in it, twice, changed, half-done."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sp_telemetry.errors import QueryFailed, UsageError
from sp_telemetry.store import maintenance, schema
from sp_telemetry.store.engine import Engine, Handle
from sp_telemetry.store.pipeline import Lane, Pipeline
from tests.server import as_json, context, log_request

ORIGINAL = schema.folder()
MIGRATIONS = [file.name for file in sorted((ORIGINAL / "schema").glob("*.sql"))]
SESSION = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(scope="module")
def handle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    """One engine for all of these tests, for a process may have only one; each test begins by emptying it."""
    folder = tmp_path_factory.mktemp("schema")
    (folder / "backups").mkdir()
    engine = Engine(folder / "store", folder / "engine", folder / "backups")
    with engine.handle() as opened:
        yield opened
    engine.close()


@pytest.fixture
def blank(handle: Handle) -> Handle:
    handle.run("DROP DATABASE IF EXISTS telemetry SYNC")
    return handle


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped .sql files that a test may change."""
    folder = tmp_path / "clickhouse"
    shutil.copytree(ORIGINAL, folder)
    monkeypatch.setattr(schema, "folder", lambda: folder)
    return folder


def shape(handle: Handle) -> dict[str, str]:
    """Every table and view with the statement that makes it."""
    rows = handle.query("SELECT name, create_table_query FROM system.tables WHERE database = 'telemetry' ORDER BY name", "TSVRaw").decode()
    return dict(row.split("\t", 1) for row in rows.splitlines() if "\t" in row)


def values(handle: Handle, sql: str) -> list[str]:
    return handle.query(sql).decode().splitlines()


def store(handle: Handle, number: int) -> None:
    told = {"name": "api_request", "time_ns": time.time_ns(), "session.id": SESSION, "event.sequence": number, "cost_usd": 1.5}
    request = log_request([context(SESSION, time.time_ns() - 10**9, feature="017-a"), told])
    Pipeline(handle).store(Lane("logs", "json"), [as_json(request)])


COUNT = "SELECT count() FROM telemetry.telemetry_events WHERE session_id = '{}'"


def looked_through(handle: Handle) -> dict[str, str]:
    """Of how many parts the filters leave how many, for a session that is in none."""
    plan = handle.query(f"EXPLAIN indexes = 1 {COUNT.format('another')}", "TabSeparatedRaw").decode()
    return dict(re.findall(r"Name: (\w+)\n.*\n\s*Parts: (\d+/\d+)", plan))


def two_parts(handle: Handle) -> None:
    """Of which the key alone can't tell that `another` is not in them."""
    for days in (1, 15):
        events = f"SELECT now64(9) - INTERVAL {days} DAY, 'api_request', arrayJoin(['{SESSION}', 'z'])"
        handle.run(f"INSERT INTO telemetry.telemetry_events (timestamp, event_type, session_id) {events}")


def wait_for_mutations(handle: Handle) -> None:
    until = time.monotonic() + 60
    while values(handle, "SELECT count() FROM system.mutations WHERE NOT is_done") != ["0"] and time.monotonic() < until:
        time.sleep(0.1)


def test_a_blank_store_gets_everything_and_a_second_time_nothing(blank):
    assert schema.migrate(blank) == [*MIGRATIONS, "views"]
    before, salt = shape(blank), values(blank, "SELECT salt FROM telemetry.installation")
    assert schema.migrate(blank) == []
    assert shape(blank) == before
    assert values(blank, "SELECT salt FROM telemetry.installation") == salt
    assert len(salt) == 1 and len(salt[0]) == 32


@pytest.mark.parametrize("first", ["0001_installation.sql", "0003_telemetry_events.sql"])
def test_from_every_earlier_shape_the_same_is_made_as_from_blank(blank, first):
    schema.migrate(blank)
    wanted = shape(blank)
    blank.run("DROP DATABASE telemetry SYNC")
    done = schema.migrate(blank, up_to=first)
    assert done == MIGRATIONS[: MIGRATIONS.index(first) + 1]
    assert schema.migrate(blank) == [*MIGRATIONS[len(done) :], "views"]
    assert shape(blank) == wanted


def test_rows_of_an_earlier_shape_stay(blank):
    schema.migrate(blank, up_to="0003_telemetry_events.sql")
    blank.run("INSERT INTO telemetry.installation (salt) VALUES ('its own')")
    blank.run(f"INSERT INTO telemetry.session_context (session_id, at, feature) VALUES ('{SESSION}', now64(9) - 10, '017-a')")
    event = f"(timestamp, event_type, session_id, cost_usd) VALUES (now64(9), 'api_request', '{SESSION}', 0.25)"
    blank.run(f"INSERT INTO telemetry.telemetry_events {event}")
    schema.migrate(blank)
    store(blank, 1)
    assert values(blank, "SELECT salt FROM telemetry.installation") == ["its own"]
    assert values(blank, "SELECT cost_usd FROM telemetry.telemetry_events FINAL ORDER BY 1") == ["0.25", "1.5"]
    maintenance.summarise(blank)
    assert values(blank, "SELECT cost_usd, requests FROM telemetry.session_summaries FINAL") == ["1.75\t2"]


def test_parts_of_an_earlier_shape_get_the_index_that_finds_a_session(blank):
    schema.migrate(blank, up_to="0016_read_faster.sql")
    two_parts(blank)
    schema.migrate(blank)
    assert values(blank, COUNT.format(SESSION)) == ["2"], "it is found before the index is there"
    wait_for_mutations(blank)
    assert values(blank, COUNT.format(SESSION)) == ["2"]
    assert looked_through(blank) == {"by_session_id": "0/2"}


@pytest.mark.parametrize("up_to", ["0016_read_faster.sql", MIGRATIONS[-1]])
def test_what_was_still_done_in_the_background_when_a_backup_was_made_is_done_after_its_restore(blank, up_to):
    """A mutation is not part of a backup. `up_to`: the shape of the store that was backed up."""
    blank.run("DROP DATABASE IF EXISTS telemetry_restored SYNC")
    schema.migrate(blank, up_to="0016_read_faster.sql")
    two_parts(blank)
    blank.run("SYSTEM STOP MERGES telemetry.telemetry_events")
    schema.migrate(blank, up_to=up_to)
    blank.run(f"BACKUP DATABASE telemetry TO Disk('backups', '{up_to}')")
    blank.run("DROP DATABASE telemetry SYNC")
    blank.run(f"RESTORE DATABASE telemetry FROM Disk('backups', '{up_to}')")
    blank.run("INSERT INTO telemetry.schema_migrations (name, checksum) VALUES ('views', 'restored')")  # as restore-data.sh
    schema.migrate(blank)
    wait_for_mutations(blank)
    assert values(blank, COUNT.format(SESSION)) == ["2"] and looked_through(blank) == {"by_session_id": "0/2"}
    done = values(blank, "SELECT count() FROM system.mutations")
    assert schema.migrate(blank) == [] and values(blank, "SELECT count() FROM system.mutations") == done


@pytest.mark.parametrize("name", ["0001_installation.sql", "0003_telemetry_events.sql", MIGRATIONS[-1]])
def test_a_migration_that_was_killed_half_way_is_done_again(blank, name):
    """Recorded only at its end: with the record gone, it is as if the process had died before writing it."""
    schema.migrate(blank)
    store(blank, 1)
    before = shape(blank)
    blank.run(f"ALTER TABLE telemetry.schema_migrations DELETE WHERE name IN ('{name}', 'views') SETTINGS mutations_sync = 2")
    assert schema.migrate(blank) == [name, "views"]
    assert shape(blank) == before
    assert values(blank, "SELECT cost_usd FROM telemetry.telemetry_events FINAL") == ["1.5"]


def test_views_that_were_dropped_and_not_made_again_are_made_at_the_next_start(blank):
    schema.migrate(blank)
    before = shape(blank)
    blank.run("ALTER TABLE telemetry.schema_migrations DELETE WHERE name = 'views' SETTINGS mutations_sync = 2")
    schema._drop_views(blank)
    assert not any("MATERIALIZED VIEW" in made for made in shape(blank).values())
    assert schema.migrate(blank) == ["views"]
    assert shape(blank) == before


def test_being_killed_while_views_are_made_anew_is_mended_by_the_next_start(blank, shipped):
    schema.migrate(blank)
    (shipped / "views" / "30_more.sql").write_text("CREATE VIEW telemetry.more AS SELECT 1;\nCREATE VIEW telemetry.more AS SELECT 2;")
    with pytest.raises(QueryFailed):
        schema.migrate(blank)
    (shipped / "views" / "30_more.sql").unlink()
    schema.migrate(blank)
    store(blank, 1)
    assert "more" not in shape(blank)


def test_an_applied_migration_may_not_change(blank, shipped):
    schema.migrate(blank)
    store(blank, 1)
    file = shipped / "schema" / "0002_session_context.sql"
    file.write_text(file.read_text() + "-- a word more\n")
    with pytest.raises(UsageError, match=r"0002_session_context\.sql was changed after it had been applied"):
        schema.migrate(blank)
    assert values(blank, "SELECT cost_usd FROM telemetry.telemetry_events") == ["1.5"]


def test_a_new_migration_is_applied_once_and_views_see_it(blank, shipped):
    schema.migrate(blank)
    store(blank, 1)
    change = "ALTER TABLE telemetry.telemetry_events ADD COLUMN IF NOT EXISTS note String DEFAULT 'x; y';"
    (shipped / "schema" / "0099_note.sql").write_text(change)
    assert schema.migrate(blank) == ["0099_note.sql"]
    assert schema.migrate(blank) == []
    assert values(blank, "SELECT cost_usd, note FROM telemetry.telemetry_events FINAL") == ["1.5\tx; y"]


def test_views_are_made_anew_when_their_text_changes_and_nothing_is_lost(blank, shipped):
    schema.migrate(blank)
    store(blank, 1)
    before = shape(blank)
    file = shipped / "views" / "20_events.sql"
    changed = file.read_text().replace("w['model'] AS model", "concat('new ', w['model']) AS model")
    assert changed != file.read_text()
    file.write_text(changed)
    assert schema.migrate(blank) == ["views"]
    after = shape(blank)
    assert {name for name in before if before[name] != after[name]} == {"typed_events_mv"}
    assert "'new '" in after["typed_events_mv"]
    store(blank, 2)
    assert values(blank, "SELECT cost_usd, feature FROM telemetry.telemetry_events FINAL ORDER BY event_sequence") == ["1.5\t017-a"] * 2


# ---- the splitter

plain = st.text("abc (),=\n-", min_size=1).filter(lambda text: "--" not in text and not text.endswith("-"))
quoted = st.text("ab;'`\\-\n", max_size=8).map(lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'")
doubled = st.text("ab;'-", max_size=8).map(lambda text: "'" + text.replace("'", "''") + "'")
named = st.text("ab;'-", max_size=8).map(lambda text: f"`{text}`")
comment = st.text("ab;'`- ", max_size=8).map(lambda text: f"--{text}\n")
pieces = st.lists(st.tuples(st.just(True), plain | quoted | doubled | named) | st.tuples(st.just(False), comment), max_size=6)


@given(st.lists(pieces, max_size=5), st.booleans())
@example([[(True, "SELECT '--;'")], [(False, "-- it's;\n"), (True, "`a;b`")]], True)
def test_statements_are_split_at_semicolons_outside_of_strings_names_and_comments(parts, last):
    text = ";".join("".join(text for _, text in statement) for statement in parts) + ";" * last
    wanted = ["".join(text if kept else "\n" for kept, text in statement).strip() for statement in parts]
    assert list(schema.statements(text)) == [statement for statement in wanted if statement]


def test_every_shipped_file_is_whole_statements():
    for file in ORIGINAL.rglob("*.sql"):
        if file.name == "access.sql":  # what users may and may not: statements of every kind, tried in test_server_access.py
            continue
        for statement in schema.statements(file.read_text()):
            assert statement.split()[0] in ("ALTER", "CREATE", "INSERT", "SELECT", "WITH"), (file.name, statement[:60])
