"""Settings: one order of precedence, every type, and what is said of a wrong value."""

from __future__ import annotations

from pathlib import Path

import pytest

from sp_telemetry.errors import UsageError
from sp_telemetry.settings import SETTINGS, Setting, Settings, default_home


def test_defaults_without_anything(tmp_path):
    settings = Settings.load(tmp_path, {})
    assert dict(settings.values) == {setting.name: setting.default for setting in SETTINGS}
    assert set(settings.origins.values()) == {"default"}
    assert settings.bind == "127.0.0.1" and settings.anonymous_reads is False


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    (tmp_path / "config.toml").write_text('otlp_http_port = 5000\nhealth_port = 5001\ntimezone = ""\n\n[a.table]\nof = "something else"\n')
    settings = Settings.load(tmp_path, {"SP_TELEMETRY_OTLP_HTTP_PORT": "6000", "SP_TELEMETRY_METRICS_PORT": ""})
    assert (settings.otlp_http_port, settings.health_port, settings.metrics_port, settings.timezone) == (6000, 5001, 8888, "")
    assert settings.origins["otlp_http_port"] == "SP_TELEMETRY_OTLP_HTTP_PORT"
    assert settings.origins["health_port"] == str(tmp_path / "config.toml")
    assert settings.origins["metrics_port"] == settings.origins["timezone"] == "default"


@pytest.mark.parametrize("value", [True, False])
def test_booleans_as_people_write_them(tmp_path, value):
    for text in ("1", "true", "Yes", "ON") if value else ("0", "False", "no", "off"):
        assert Settings.load(tmp_path, {"SP_TELEMETRY_ANONYMOUS_READS": text}).anonymous_reads is value


@pytest.mark.parametrize(("variable", "text"), [("SP_TELEMETRY_ANONYMOUS_READS", "perhaps"), ("SP_TELEMETRY_HEALTH_PORT", "http")])
def test_a_wrong_value_is_named_with_where_it_came_from(tmp_path, variable, text):
    with pytest.raises(UsageError, match=f"{variable}: .* is '{text}'; expected"):
        Settings.load(tmp_path, {variable: text})


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [("HEALTH_PORT", "65536", "0 to 65535"), ("METRICS_PORT", "-1", "0 to 65535"), ("RETENTION_EVENTS_DAYS", "-5", "0 to"),
     ("MAX_REQUEST_MIB", "0", "1 to")],
)  # fmt: skip
def test_a_number_that_can_not_be_is_refused_with_what_can(tmp_path, name, text, allowed):
    with pytest.raises(UsageError, match=f"SP_TELEMETRY_{name}: .* is '{text}'; expected a number from {allowed}"):
        Settings.load(tmp_path, {f"SP_TELEMETRY_{name}": text})


@pytest.mark.parametrize("text", ["localhost", "::1", "::", "127.0.0.1:4318", "256.0.0.1", "1.2.3", "127.0.0.1 ", "1.2.3.\u0663"])
def test_only_an_ipv4_address_can_be_listened_on(tmp_path, text):
    """Of a name or an IPv6 address the kernel isn't asked whose program calls (serve/peer.py): others would be let in."""
    with pytest.raises(UsageError, match=r"SP_TELEMETRY_BIND: bind is .*; expected an IPv4 address like 127\.0\.0\.1"):
        Settings.load(tmp_path, {"SP_TELEMETRY_BIND": text})
    assert Settings.load(tmp_path, {"SP_TELEMETRY_BIND": "198.51.100.7"}).bind == "198.51.100.7"


@pytest.mark.parametrize("value", ["1.5", "true", "[1]"])
def test_a_number_in_the_file_is_a_whole_one(tmp_path, value):
    (tmp_path / "config.toml").write_text(f"health_port = {value}\n")
    with pytest.raises(UsageError, match=r"config\.toml: health_port is .*; expected int\."):
        Settings.load(tmp_path, {})


def test_a_choice_that_is_none(tmp_path):
    setting = Setting("level", "strict", "how strict", ("strict", "full"))
    assert setting.read("full", "here") == "full"
    with pytest.raises(UsageError, match="here: level is 'lax'; allowed are strict, full"):
        setting.read("lax", "here")


def test_an_unknown_name_in_the_file_is_refused_with_those_there_are(tmp_path):
    (tmp_path / "config.toml").write_text("otlp_port = 5000\n")
    with pytest.raises(UsageError, match="unknown setting 'otlp_port'") as refused:
        Settings.load(tmp_path, {})
    assert "otlp_http_port" in refused.value.hint


def test_a_file_that_is_no_toml(tmp_path):
    (tmp_path / "config.toml").write_text("port: 5\n")
    with pytest.raises(UsageError, match=r"config\.toml can't be read"):
        Settings.load(tmp_path, {})


def test_an_unknown_attribute_is_an_attribute_error(tmp_path):
    with pytest.raises(AttributeError):
        _ = Settings.load(tmp_path, {}).nothing


@pytest.mark.parametrize(
    ("environ", "platform", "wanted"),
    [
        ({"HOME": "/h"}, "linux", "/h/.local/share/sp-telemetry"),
        ({"HOME": "/h", "XDG_DATA_HOME": "/data"}, "linux", "/data/sp-telemetry"),
        ({"HOME": "/h"}, "darwin", "/h/Library/Application Support/sp-telemetry"),
        ({"USERPROFILE": "/u"}, "win32", "/u/AppData/Local/sp-telemetry"),
        ({"USERPROFILE": "/u", "LOCALAPPDATA": "/l"}, "win32", "/l/sp-telemetry"),
        ({"HOME": "/h", "SP_TELEMETRY_HOME": "/mine"}, "darwin", "/mine"),
    ],
)
def test_the_home_follows_the_platform(environ, platform, wanted):
    assert default_home(environ, platform) == Path(wanted)


def test_no_home_that_can_be_told(monkeypatch):
    with pytest.raises(UsageError, match="The home directory can't be told"):
        default_home({"SP_TELEMETRY_HOME": "~no-such-person/telemetry"}, "linux")
    monkeypatch.setattr(Path, "home", lambda: Path("~no-such-person").expanduser())  # as where the system has no entry for the user
    with pytest.raises(UsageError, match="The home directory can't be told"):
        default_home({}, "linux")
