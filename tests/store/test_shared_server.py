"""A server that several people bring up to date: what one of them has not set stays as another one set it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home
from sp_telemetry.privacy import own
from sp_telemetry.settings import Settings
from sp_telemetry.store import maintenance, privacy, schema, server
from tests.store.test_server_access import WRITER, configured

RULES = '[attributes]\n"error" = "drop"\n'


def installation(folder: Path, config: str = "", rules: str | None = None) -> Home:
    folder.mkdir()
    (folder / "config.toml").write_text(config)
    if rules is not None:
        (folder / own.NAME).write_text(rules)
    return Home(folder)


def test_what_is_not_set_here_stays_as_it_is_there(tmp_path):
    """By default events would go after 90 days, and error texts would no longer be stored."""
    kept = "retention_events_days = 400\nretention_sessions_days = 0\nprivacy_level = 'standard'\n"
    first = installation(tmp_path / "first", kept, RULES)
    second = installation(tmp_path / "second")
    with configured(tmp_path / "store", as_user=WRITER) as handle:

        def migrate(home: Home) -> list[str]:
            return server.migrate(handle, home, Settings.load(home.path, {}), shared=True)

        def there() -> tuple[dict[str, int], str | None, int | None]:
            policy = privacy.in_force(handle)
            return maintenance.retention(handle), policy and policy.level, policy and policy.own_attributes

        of_first = ({"retention_events_days": 400, "retention_sessions_days": 0}, "standard", 1)
        assert {"views", "prices", "retention of telemetry_events", "retention of session_summaries"} < set(migrate(first))
        assert there() == of_first
        assert migrate(first) == []

        with pytest.raises(UsageError, match=f"rules of its own, and there is no {own.NAME} in .* Nothing was changed"):
            migrate(second)
        assert there() == of_first
        (second.path / own.NAME).write_text(RULES)
        assert migrate(second) == []
        assert there() == of_first

        schema.record(handle, "views", "of an older version")  # what an update changes is changed under the policy that is in force
        assert migrate(second) == ["views", "upkeep"]
        assert there() == of_first

        (second.path / own.NAME).write_text("")
        (second.path / "config.toml").write_text("retention_events_days = 30\n")
        migrate(second)
        assert there() == ({"retention_events_days": 30, "retention_sessions_days": 0}, "standard", 0)
        (second.path / "config.toml").write_text("privacy_level = 'strict'\n")
        migrate(second)
        assert there() == ({"retention_events_days": 30, "retention_sessions_days": 0}, "strict", 0)


def test_an_empty_server_gets_the_defaults(tmp_path):
    with configured(tmp_path / "store", as_user=WRITER) as handle:
        home = installation(tmp_path / "home")
        server.migrate(handle, home, Settings.load(home.path, {}), shared=True)
        assert maintenance.retention(handle) == {"retention_events_days": 90, "retention_sessions_days": 365}
        assert privacy.in_force(handle).level == "strict"
