"""Who reaches the listeners and who doesn't: another network, another user of the machine."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from sp_telemetry.home import READER, WRITER
from sp_telemetry.setup.replay import GRPC_METHODS
from tests.conftest import ROOT, require
from tests.e2e.listening import events, request
from tests.server import Server, as_json, as_protobuf, server, wait_for

NOBODY = 65534


@pytest.mark.needs("unshare", "nsenter", "ip")
def test_nothing_answers_but_on_127_0_0_1(tmp_path: Path) -> None:
    """From another host on the machine's network, from its own address, over IPv6. ::1 is refused at once: programs that are told
    `localhost` try 127.0.0.1 next, and what set-up writes says 127.0.0.1."""
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    require(subprocess.run([*apart, "true"], capture_output=True).returncode == 0, "no network namespaces here")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))}
    command = [*apart, sys.executable, str(Path(__file__).with_name("outside.py")), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environ, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    reached = json.loads(done.stdout)
    listeners = ["clickhouse", "health", "metrics", "otlp_grpc", "otlp_http"]
    for where in ("outside", "own"):
        assert reached[where] == {"control": True, **dict.fromkeys(listeners, "ConnectionRefusedError")}, where
    for where in ("own6", "loopback6"):
        assert reached[where] == dict.fromkeys([*listeners, "control"], "ConnectionRefusedError"), where
    for where in ("loopback", "localhost"):
        assert reached[where] == dict.fromkeys([*listeners, "control"], True), where


def stranger(started: Server, of: str) -> dict[str, Any]:
    home = started.home.path
    told = {
        "user": NOBODY,
        "pid": started.running.pid,
        "ports": started.ports,
        "users": {user: started.home.secret(user) for user in (READER, WRITER)},
        "paths": [str(path) for path in home.rglob("*") if path.is_file()],
        "folders": [str(home), *(str(path) for path in home.rglob("*") if path.is_dir())],
        "otlp": as_json(request(of)).decode(),
        "protobuf": base64.b64encode(as_protobuf(request(of, 2))).decode(),
        "method": GRPC_METHODS["logs"],
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("stranger.py")), json.dumps(told)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_another_user_of_the_machine_can_do_nothing(tmp_path: Path) -> None:
    """Not even with the passwords in their hands, or where everybody may read."""
    require(sys.platform == "linux" and os.geteuid() == 0, "only root can try as another user")
    tmp_path.chmod(0o755)
    with server(tmp_path / "home", SP_TELEMETRY_ANONYMOUS_READS="true") as started:
        got = stranger(started, "stranger")
        assert got["readable"] == []
        assert {status for way, (status, _) in got["answers"].items() if way != "grpc"} == {403}, got
        assert got["answers"]["otlp json"] == [403, "Refused: this listener answers to the programs of the user who runs it.\n"]
        assert got["answers"]["grpc"] == [7, "PERMISSION_DENIED"]
        started.stored("logs", as_protobuf(request("mine")))
        assert (events(started, "stranger"), events(started, "mine")) == (0, 1)
        assert started.query("SELECT count() FROM telemetry.session_context") == [[0]]
        secrets = [path.read_text().strip() for path in (started.home.path / "secrets").iterdir()]
        assert not [secret for secret in secrets if secret in Path(f"/proc/{started.running.pid}/cmdline").read_text()]


def test_other_users_can_be_let_in_and_still_need_passwords(tmp_path: Path) -> None:
    require(sys.platform == "linux" and os.geteuid() == 0, "only root can try as another user")
    tmp_path.chmod(0o755)
    with server(tmp_path / "home", SP_TELEMETRY_OTHER_USERS="true") as started:
        got = stranger(started, "guest")
        assert got["readable"] == []
        statuses = {way: status for way, (status, _) in got["answers"].items()}
        assert statuses == {
            "otlp json": 200, "health": 200, "metrics": 200, "ping": 200, "grpc": 0, "read": 401, f"read as {READER}": 200,
            f"write as {READER}": 500, f"read as {WRITER}": 200, f"write as {WRITER}": 200,
        }  # fmt: skip
        assert wait_for(lambda: events(started, "guest") == 2)


def test_over_ipv6_nobody_is_answered_where_everything_is_listened_on(tmp_path: Path) -> None:
    """gRPC then listens on IPv6 too, where nothing tells whose program calls."""
    with (
        server(tmp_path, SP_TELEMETRY_BIND="0.0.0.0") as started,
        grpc.insecure_channel(f"[::1]:{started.ports['otlp_grpc']}") as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        channel.unary_unary(GRPC_METHODS["logs"])(as_protobuf(request("ipv6")), timeout=10)
    assert refused.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE)  # or there is no IPv6 here
