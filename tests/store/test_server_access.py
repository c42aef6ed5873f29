"""The server's configuration and users, as far as the embedded engine takes them: it parses all of it, and its one user, given the section
of each of ours in turn, is held to that one's grants, profile and constraints. A server's own log-in and quotas are not tried here."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sp_telemetry import resources
from sp_telemetry.errors import QueryFailed
from sp_telemetry.home import READER, WRITER
from sp_telemetry.privacy.policy import Policy
from sp_telemetry.setup.doctor_access import REFUSALS, examine, statements
from sp_telemetry.store import maintenance, prices, privacy, schema, server
from sp_telemetry.store.engine import Engine, Handle
from tests.server import as_json, context, log_request
from tests.server import server as embedded

CONFIG = resources.path("telemetry-server/clickhouse/config")
BASE = """<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default><password></password>
<networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota><access_management>1</access_management></default></users>
</clickhouse>"""
SESSION = "00000000-0000-4000-8000-000000000001"
START = 1_790_000_000 * 10**9
NAMES = ("telemetry_user", "telemetry_reader")


class Configured(Engine):
    """The engine over `store`, told by the server's own files. `as_user`: its one user is in place of that one."""

    def __init__(self, folder: Path, as_user: str = "") -> None:
        self._folder, self._as_user = folder, as_user
        super().__init__(folder / "store")

    def handle(self, **options: Any) -> Handle:
        return super().handle(**options or {"config-file": str(write(self._folder / "etc", self._as_user))})


def write(folder: Path, as_user: str) -> Path:
    for part in ("config.d", "users.d"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    hashes = "".join(f"<{name}_sha256>{number * 32}</{name}_sha256>" for name, number in zip(NAMES, ("ab", "cd"), strict=True))
    (folder / "passwords.xml").write_text(f"<clickhouse>{hashes}</clickhouse>")
    users = (CONFIG / "users.xml").read_text().replace("/run/telemetry", str(folder)).replace('<default remove="remove"/>', "")
    if as_user:
        section = re.search(rf"<{as_user}>\s*<password_sha256_hex.*?</{as_user}>", users, re.S)[0]
        users = users.replace(section, section.replace(f"<{as_user}>", "<default>").replace(f"</{as_user}>", "</default>"))
        users = users.replace(f'<password_sha256_hex incl="{as_user}_sha256"/>', "<password></password>")
    (folder / "users.xml").write_text(
        BASE if not as_user else "<clickhouse><quotas><default/></quotas><profiles><default/></profiles></clickhouse>"
    )
    (folder / "users.d" / "telemetry.xml").write_text(users)
    config = (CONFIG / "config.xml").read_text().replace("<path>users.xml</path>", f"<path>{folder}/users.xml</path>")
    config = config.replace("<console>true", "<console>false")  # or all it does is printed
    (folder / "config.d" / "telemetry.xml").write_text(config)
    (folder / "config.xml").write_text(f"<clickhouse><users_config>{folder}/users.xml</users_config></clickhouse>")
    return folder / "config.xml"


@contextmanager
def configured(folder: Path, as_user: str = "") -> Iterator[Handle]:
    engine = Configured(folder, as_user)
    try:
        with engine.handle() as handle:
            yield handle
    finally:
        engine.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of ours, made under the server's configuration."""
    made = tmp_path_factory.mktemp("configured")
    with configured(made) as handle:
        schema.migrate(handle)
        server.make_upkeep(handle)
    return made


def test_the_engine_takes_the_whole_configuration(folder):
    with configured(folder) as handle:

        def asked(sql: str) -> list[list[str]]:
            return [line.split("\t") for line in handle.query(sql).decode().splitlines()]

        users = asked("SELECT name, auth_type[1] FROM system.users WHERE name LIKE 'telemetry%' ORDER BY 1")
        assert users == [["telemetry_reader", "sha256_password"], ["telemetry_user", "sha256_password"]]
        grants = asked(
            "SELECT access_type, database, is_partial_revoke FROM system.grants WHERE user_name = 'telemetry_reader' ORDER BY 1, 2, 3"
        )
        assert ["SELECT", "telemetry", "0"] in grants and ["SELECT", "telemetry", "1"] in grants
        assert {kind.split()[0] for kind, *_ in grants} == {"SELECT", "SHOW"}
        limits = "SELECT duration, max_queries FROM system.quota_limits WHERE quota_name = 'telemetry_reader'"
        assert asked(limits) == [["60", "1200"]]
        constrained = asked(
            "SELECT setting_name, max FROM system.settings_profile_elements WHERE profile_name = 'telemetry_reader' AND max IS NOT NULL"
        )
        assert ["max_execution_time", "30"] in constrained and ["max_memory_usage", "1073741824"] in constrained
        names = "('min_free_disk_bytes_to_perform_insert', 'fsync_after_insert', 'fsync_part_directory')"
        set_here = dict(asked(f"SELECT name, value FROM system.merge_tree_settings WHERE name IN {names} AND changed"))
        assert set_here == {"min_free_disk_bytes_to_perform_insert": "536870912", "fsync_after_insert": "1", "fsync_part_directory": "1"}


@pytest.mark.parametrize("user", NAMES)
def test_the_engine_holds_each_user_to_what_is_written(folder, user):
    wrong = []
    with configured(folder, as_user=user) as handle:
        for who, may, _, statement in statements():
            if who != user:
                continue
            try:
                handle.query(statement, "Null")
                code = 0
            except QueryFailed as error:
                code = error.code
            if bool(code) == may or (code and code not in REFUSALS):
                wrong.append((statement, may, code))
    assert wrong == []


def test_telemetry_user_may_all_that_a_migration_and_the_collector_do(tmp_path):
    """On an empty store, by its own grants: the schema, the policy, prices, retention, upkeep's views and their work, events."""
    with configured(tmp_path, as_user=WRITER) as handle:
        schema.migrate(handle)
        privacy.enforce(handle, Policy("full"))
        prices.load(handle)
        maintenance.apply_retention(handle, {"retention_events_days": 30, "retention_sessions_days": 60})
        assert server.make_upkeep(handle)
        handle.insert(
            "INSERT INTO telemetry.otel_logs (Timestamp, Body, LogAttributes)",
            "JSONEachRow",
            [
                json.dumps(
                    {"Timestamp": time.time(), "Body": "x", "LogAttributes": {"event.name": "api_request", "session.id": SESSION}}
                ).encode()
            ],
        )
        for view in handle.query("SELECT view FROM system.view_refreshes").decode().split():
            handle.run(f"SYSTEM REFRESH VIEW telemetry.{view}")
            handle.run(f"SYSTEM WAIT VIEW telemetry.{view}")
        assert handle.query("SELECT session_id, requests FROM telemetry.session_summaries FINAL").decode() == f"{SESSION}\t1\n"


def test_history_of_more_weeks_than_the_engine_inserts_by_itself_comes_in_and_is_attributed(tmp_path):
    """A week is a partition, of which an insert may have a hundred. The collector would send what is refused for ever, and upkeep's view
    would honour no context any more. Backfill, and another policy, write such sessions as a statement of this user too."""
    weeks, week_ns = 130, 7 * 86400 * 10**9
    with configured(tmp_path, as_user=WRITER) as handle:
        schema.migrate(handle)
        maintenance.apply_retention(handle, {"retention_events_days": 0, "retention_sessions_days": 0})
        server.make_upkeep(handle)

        def arrive(events: list[dict[str, Any]]) -> None:
            handle.insert("INSERT INTO telemetry.otlp_logs_json", "JSONEachRow", [as_json(log_request(events))])

        told = [{"name": "api_request", "session.id": SESSION, "event.sequence": number} for number in range(weeks)]
        arrive([event | {"time_ns": START - number * week_ns} for number, event in enumerate(told)])
        arrive([context(SESSION, START - weeks * week_ns, feature="001-a")])
        handle.run("SYSTEM REFRESH VIEW telemetry.upkeep_contexts")
        handle.run("SYSTEM WAIT VIEW telemetry.upkeep_contexts")
        assert handle.query("SELECT feature, count() FROM telemetry.telemetry_events FINAL GROUP BY 1") == f"001-a\t{weeks}\n".encode()
        handle.run("INSERT INTO telemetry.telemetry_events SELECT * FROM telemetry.telemetry_events")


def test_low_disk_refuses_inserts_and_not_questions(folder, tmp_path):
    """The setting is that of config.xml with a figure that no disk has."""
    with configured(folder) as handle:
        setting = "min_free_disk_bytes_to_perform_insert = 1000000000000000"
        handle.run(f"CREATE OR REPLACE TABLE telemetry.low (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS {setting}")
        with pytest.raises(QueryFailed) as refused:
            handle.run("INSERT INTO telemetry.low VALUES (1)")
        assert refused.value.code == 243
        assert handle.query("SELECT count() FROM telemetry.low") == b"0\n"
        handle.run("DROP TABLE telemetry.low")


def test_doctor_finds_the_embedded_servers_users_to_be_held_alike(tmp_path):
    with embedded(tmp_path) as running:
        settings = running.home.settings()
        found = examine(running.home, settings)
        assert [(one.level, one.code) for one in found] == [("ok", "access")], [one.what for one in found]
        of = [(user, may) for user, may, only_server, _ in statements() if not only_server]
        assert found[0].what.startswith(f"{sum(may for _, may in of)} statements that must work do, {sum(not may for _, may in of)} that")
        assert {user for user, _ in of} == {WRITER, READER}
        # A reader with a writer's password is one who may too much, and doctor says so.
        (running.home.path / "secrets" / READER).write_text(running.home.secret(WRITER))
        with pytest.raises(QueryFailed):
            examine(running.home, settings)
