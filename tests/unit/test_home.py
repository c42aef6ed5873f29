"""The home directory: private, made once, its secrets the same for everybody who asks."""

from __future__ import annotations

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_private_to_its_owner_and_only_once(tmp_path):
    home = Home(tmp_path / "a" / "home with a space").make()
    (home.store / "kept").touch()
    home.make()
    assert {path.name for path in home.path.iterdir()} >= {"secrets", "store", "spool", "logs"}
    assert {mode(path) for path in (home.path, home.store, home.spool, home.logs, home.path / "secrets")} == {0o700}
    assert (home.store / "kept").exists()


def test_a_place_where_it_can_not_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't be made") as refused:
        Home(tmp_path / "file" / "home").make()
    assert "SP_TELEMETRY_HOME" in refused.value.hint


def test_a_secret_is_made_once_long_and_for_its_owner_alone(tmp_path):
    home = Home(tmp_path / "home")
    secret = home.secret("telemetry_user")
    assert len(secret) >= 32
    assert home.secret("telemetry_user") == secret != home.secret("telemetry_reader")
    assert mode(home.path / "secrets" / "telemetry_user") == 0o600
    assert {file.name for file in (home.path / "secrets").iterdir()} == {"telemetry_user", "telemetry_reader"}


def test_processes_that_ask_at_once_get_the_same_secret(tmp_path):
    script = "import sys; from pathlib import Path; from sp_telemetry.home import Home; print(Home(Path(sys.argv[1])).secret('x'))"

    def ask(_: int) -> str:
        return subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(ask, range(6)))) == 1


@pytest.mark.parametrize("text", [None, "", "{", "half of a"])
def test_no_server_file_and_a_broken_one_are_no_server(tmp_path, text):
    home = Home(tmp_path)
    if text is not None:
        home.server_file.write_text(text)
    assert home.server() is None


def test_a_file_is_replaced_as_a_whole(tmp_path):
    home = Home(tmp_path)
    home.write_atomically(home.server_file, '{"pid": 1}')
    home.write_atomically(home.server_file, '{"pid": 2}')
    assert home.server() == {"pid": 2}
    assert mode(home.server_file) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["server.json"]
