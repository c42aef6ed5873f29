"""What set-up writes for Docker Compose, and how it is read back; no engine needed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sp_telemetry import resources
from sp_telemetry.home import Home
from sp_telemetry.setup import compose, service
from sp_telemetry.setup.env_file import merged, values
from tests.conftest import require
from tests.docker.compose_plugin import ComposeUnavailable, compose_plugin

TEMPLATE = resources.path("telemetry-server/.env.template").read_text()
COMPOSE_FILE = resources.path("telemetry-server/docker-compose.yml")


def test_every_variable_of_the_compose_file_is_in_the_template_and_the_other_way_round():
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE_FILE.read_text()))
    assert used == set(values(TEMPLATE))


def test_versions_stand_in_one_place():
    files = [file for file in resources.path("telemetry-server").rglob("*") if file.suffix in (".yml", ".xml", ".sh", ".template")]
    pinned = [
        file.name for file in files if re.search(r"clickhouse/clickhouse-server:\d|opentelemetry-collector-contrib:\d", file.read_text())
    ]
    assert pinned == [".env.template"]


def test_what_a_person_changed_in_env_stays_and_versions_are_the_templates():
    first = merged(TEMPLATE, "", {"CLICKHOUSE_PORT": "18123", "TELEMETRY_SECRETS": "/a b/secrets"})
    assert values(first) == values(TEMPLATE) | {"CLICKHOUSE_PORT": "18123", "TELEMETRY_SECRETS": "/a b/secrets"}
    assert merged(TEMPLATE, first, {"CLICKHOUSE_PORT": "18123", "TELEMETRY_SECRETS": "/a b/secrets"}) == first
    mine = first.replace("COLLECTOR_MEMORY=512M", "COLLECTOR_MEMORY=1G").replace("CLICKHOUSE_DIGEST=", "CLICKHOUSE_DIGEST=sha256:aa")
    mine += "EXTRA=1\n"
    kept = values(merged(TEMPLATE, mine, {"CLICKHOUSE_PORT": "28123"}))
    assert (kept["COLLECTOR_MEMORY"], kept["CLICKHOUSE_DIGEST"], kept["EXTRA"]) == ("1G", "sha256:aa", "1")
    assert (kept["CLICKHOUSE_PORT"], kept["TELEMETRY_SECRETS"]) == ("28123", "/a b/secrets")
    older = re.sub("CLICKHOUSE_IMAGE=.*", "CLICKHOUSE_IMAGE=clickhouse/clickhouse-server:25.8", mine)
    updated = values(merged(TEMPLATE, older, {}))
    assert (updated["CLICKHOUSE_IMAGE"], updated["CLICKHOUSE_DIGEST"]) == (values(TEMPLATE)["CLICKHOUSE_IMAGE"], "")


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), max_size=30).map(str.strip))
def test_any_path_is_read_back_as_it_was(path):
    assert values(merged(TEMPLATE, "", {"TELEMETRY_SECRETS": path}))["TELEMETRY_SECRETS"] == path


@pytest.mark.needs("docker", "go")
def test_compose_reads_what_set_up_writes(tmp_path, monkeypatch):
    """No engine is asked: `config` only reads."""
    plugins = tmp_path / "docker" / "cli-plugins"
    plugins.mkdir(parents=True)
    try:
        (plugins / "docker-compose").symlink_to(compose_plugin())
    except ComposeUnavailable as reason:
        require(False, str(reason))
    environ = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker"), "COLLECTOR_CONFIGURATION": "of the shell"}

    def config(folder: Path, *arguments: str) -> str:
        done = subprocess.run(["docker", "compose", *arguments], cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    home = Home(tmp_path / 'a $home\'s # "name"')
    compose.prepare(home, home.settings())
    assert config(compose.folder(home), "config", "--quiet") == ""
    shown = config(compose.folder(home), "config", "--no-path-resolution", "--format", "json")
    for name in (*("telemetry_user", "telemetry_reader"), compose.SALT):
        secret = home.secret(name)
        assert secret not in shown and not any(secret in file.read_text() for file in compose.folder(home).rglob("*") if file.is_file())
    assert str(home.path / "secrets" / "telemetry_user").replace("$", "$$") in shown.replace('\\"', '"')
    # The shipped file by itself, with the template for its variables.
    config(COMPOSE_FILE.parent, "--env-file", ".env.template", "config", "--quiet")


def test_files_are_written_once_and_privately(tmp_path):
    home = Home(tmp_path / "home")
    compose.prepare(home, home.settings())
    place = compose.folder(home)
    before = {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in place.rglob("*") if file.is_file()}
    compose.prepare(home, home.settings())
    assert {file: (file.stat().st_mtime_ns, file.stat().st_ino) for file in place.rglob("*") if file.is_file()} == before
    assert [folder.stat().st_mode & 0o777 for folder in (home.path, place)] == [0o700, 0o700]
    assert (place / ".env").stat().st_mode & 0o777 == 0o600
    (home.path / "config.toml").write_text('privacy_level = "full"\nclickhouse_port = 18123\n')
    compose.prepare(home, home.settings())
    now = compose.read_env(home)
    assert now["CLICKHOUSE_PORT"] == "18123" and "Level full" in (place / "privacy.yaml").read_text()


def test_without_docker_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(service.SpTelemetryError, match="no `docker` on PATH"):
        compose.version()
    home = Home(tmp_path / "home")
    assert compose.state(home) is None and not compose.down(home) and compose.tail(home, 3) == []
