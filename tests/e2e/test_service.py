"""The server as a service: one for each home, started and ended in any order, on loopback alone, with nothing lost at its end."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sp_telemetry.setup import service
from sp_telemetry.store.tightening import REQUEST
from tests.server import Server, as_protobuf, log_request, server, wait_for

SESSION = "00000000-0000-0000-0000-00000000000a"


def event(number: int) -> bytes:
    told = {"session.id": SESSION, "event.sequence": number, "cost_usd": 0.5}
    return as_protobuf(log_request([{"name": "api_request", "time_ns": time.time_ns(), **told}]))


def count(of: Server) -> int:
    return of.query(f"SELECT count() FROM telemetry.telemetry_events FINAL WHERE session_id = '{SESSION}'")[0][0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    with server(tmp_path_factory.mktemp("a home") / "with a space") as started:
        yield started


def test_up_twice_is_one_server(running):
    again, started = service.up(running.home, running.environ)
    assert (again.pid, started) == (running.running.pid, False)
    answer = running.command("up")
    assert answer.returncode == 0 and f"Running already: pid {again.pid}" in answer.stdout


def test_up_brings_a_server_of_other_sources_to_these_and_leaves_a_newer_one(tmp_path):
    def says(**other: str) -> None:
        one.home.write_atomically(one.home.server_file, json.dumps({**one.home.server(), **other}))

    with server(tmp_path) as one:
        one.stored("logs", event(1))
        first = one.running
        says(version="1000.0.0", build="of another version")
        assert "Running already" in one.command("up").stdout and service.running(one.home).pid == first.pid
        says(version=first.version, build="of another version")
        findings = json.loads(one.command("doctor", "--json").stdout)["findings"]
        assert [(each["level"], each["mend"]) for each in findings if each["code"] == "server-outdated"] == [("warning", "sp-telemetry up")]
        said = one.home.server()
        del said["build"]  # as older versions wrote it
        one.home.write_atomically(one.home.server_file, json.dumps(said))
        with ThreadPoolExecutor(2) as pool:
            pids = {each[0].pid for each in pool.map(lambda _: service.up(one.home, one.environ), range(2))}
        assert len(pids) == 1 and pids != {first.pid}
        one.running = service.running(one.home)
        assert count(one) == 1 and service.up(one.home, one.environ)[1] is False


def test_a_second_serve_says_who_holds_the_home(running):
    answer = running.command("serve")
    assert answer.returncode == 4
    assert f"is served by process {running.running.pid} already" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_status_for_people_and_for_machines(running):
    running.stored("logs", event(1))
    state = json.loads(running.command("status", "--json").stdout)
    assert state["running"] and state["pid"] == running.running.pid and state["ports"] == running.ports
    assert state["health"] == "Server available" and state["home"] == str(running.home.path)
    text = running.command("status").stdout
    assert str(running.ports["otlp_http"]) in text and "stored" in text


@pytest.mark.parametrize("shape", ["json", "csv"])
def test_what_programs_read_is_utf_8_whatever_the_terminal_shows(running, shape):
    told = {"session.id": "00000000-0000-0000-0000-00000000000b", "cost_usd": 0.5, "enduser.id": "Zoë 📚"}
    running.stored("logs", as_protobuf(log_request([{"name": "api_request", "time_ns": time.time_ns(), **told}])))
    in_ascii = Server(running.home.path, PYTHONIOENCODING="ascii")
    assert "Zoë 📚" in in_ascii.command("report", "cost", "--by", "user", "--format", shape).stdout
    assert "Zo? ?" in in_ascii.command("report", "cost", "--by", "user").stdout


def test_logs_show_what_the_server_did(running):
    answer = running.command("logs", "--lines", "5")
    assert answer.returncode == 0 and f"serving {running.home.path}" in answer.stdout
    assert len(answer.stdout.splitlines()) <= 5


def test_as_many_lines_of_the_log_as_asked_for(running):
    assert len(running.command("logs", "--lines", "1").stdout.splitlines()) == 1
    assert running.command("logs", "--lines", "0").stdout == ""
    refused = running.command("logs", "--lines", "-3")
    assert refused.returncode == 2 and "--lines is -3; expected 0 or more" in refused.stderr


def test_health_and_metrics(running):
    status, body = running.get("health", "/")
    assert status == 200 and json.loads(body)["status"] == "Server available"
    samples = running.metrics()
    assert samples['sp_telemetry_requests_received_total{signal="logs"}'] >= 1
    buckets = [value for name, value in samples.items() if "commit_seconds_bucket" in name]
    assert buckets == sorted(buckets) and buckets[-1] == samples["sp_telemetry_commit_seconds_count"]
    assert running.get("metrics", "/")[0] == 404


def test_secrets_are_the_owners_alone(running):
    secrets = list((running.home.path / "secrets").iterdir())
    assert {file.name for file in secrets} == {"telemetry_user", "telemetry_reader", "server_id"}
    for file in secrets:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert len(file.read_text().strip()) >= 32
    assert stat.S_IMODE((running.home.path / "secrets").stat().st_mode) == 0o700


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc/net/tcp")
def test_pitfall_a06_everything_listens_on_loopback_alone(running):
    sockets = set()
    for link in Path(f"/proc/{running.running.pid}/fd").iterdir():
        try:
            sockets.add(str(link.readlink()))
        except FileNotFoundError:
            continue
    mapped = "0000000000000000FFFF0000"  # an IPv4 address on an IPv6 socket
    listening = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{running.running.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, _, port = fields[1].partition(":")
                address = address.removeprefix(mapped)
                listening[int(port, 16)] = socket.inet_ntoa(struct.pack("<I", int(address, 16))) if len(address) == 8 else address
    assert listening == dict.fromkeys(running.ports.values(), "127.0.0.1")


def test_two_ups_at_once_are_one_server(tmp_path):
    one, other = Server(tmp_path), Server(tmp_path)
    one.make()  # two copies of the made store into one folder would meet
    try:
        with ThreadPoolExecutor(2) as pool:
            assert len({each.running.pid for each in pool.map(Server.up, (one, other))}) == 1
    finally:
        one.down()
    assert not service.is_held(one.home)


def test_up_while_the_last_one_is_ending_starts_a_new_one(tmp_path):
    with server(tmp_path) as first:
        before = first.running.pid
        ending = threading.Thread(target=service.down, args=(first.home,))
        ending.start()
        wait_for(lambda: not first.home.server_file.exists(), every=0.005)
        begun = time.monotonic()
        first.up()
        assert first.running.pid != before
        assert time.monotonic() - begun < 20
        ending.join()


def test_down_while_it_is_starting_ends_it_and_nobody_else(tmp_path):
    """Also at the moment at which the lock is taken and its file still empty."""
    one = Server(tmp_path)
    one.home.make()
    script = "import fcntl,sys,time; f=open(sys.argv[1],'a+'); fcntl.flock(f,fcntl.LOCK_EX); print(flush=True); time.sleep(1.5)"
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "server.lock")], stdout=subprocess.PIPE, start_new_session=True)
    holder.stdout.readline()
    answer = subprocess.run(
        [sys.executable, "-m", "sp_telemetry.cli.main", "down"],
        env={**one.environ, "SP_TELEMETRY_HOME": str(tmp_path)}, capture_output=True, text=True, start_new_session=True, timeout=30,
    )  # fmt: skip
    assert holder.wait(10) == 0, "it was killed although it is no server"
    assert answer.returncode == 0, answer.stderr


def test_down_without_a_server_says_so(tmp_path):
    answer = Server(tmp_path).command("down")
    assert (answer.returncode, answer.stdout.strip()) == (0, "No server was running.")
    answer = Server(tmp_path).command("status", "--json")
    assert answer.returncode == 3 and json.loads(answer.stdout)["running"] is False


@pytest.mark.parametrize("name", ["otlp_http", "otlp_grpc", "metrics"])
def test_a_port_in_use_is_named_with_its_holder(tmp_path, name):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        one = Server(tmp_path, **{f"SP_TELEMETRY_{name.upper()}_PORT": str(port)})
        answer = one.command("up")
    assert answer.returncode == 4
    assert f"Port {port} is in use by" in answer.stderr and f"(pid {os.getpid()})" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not service.is_held(one.home)


def test_an_address_of_no_interface_is_no_port_in_use(tmp_path):
    one = Server(tmp_path, SP_TELEMETRY_BIND="198.51.100.7")
    answer = one.command("up")
    assert answer.returncode == 2 and "Nothing can listen on 198.51.100.7, port 0: cannot assign requested address." in answer.stderr
    assert "Mend the setting bind" in answer.stderr


@pytest.mark.parametrize(
    "environ", [{"http_proxy": "http://127.0.0.1:9"}, {"SP_TELEMETRY_BIND": "0.0.0.0"}], ids=["behind a proxy", "listening everywhere"]
)
def test_commands_reach_the_server_on_this_machine(tmp_path, environ):
    one = Server(tmp_path, **environ)
    one.make()
    try:
        for command in ("up", "status"):
            answer = one.command(command, timeout=90)
            assert answer.returncode == 0, answer.stderr
        assert "events    0 stored" in answer.stdout
        found = json.loads(one.command("doctor", "--json").stdout)["findings"]
        assert "server" in {finding["code"] for finding in found}
    finally:
        one.down()


def test_the_doctor_tells_of_stored_rows_that_are_not_at_the_policy_yet(tmp_path):
    def told() -> list[str]:
        findings = json.loads(one.command("doctor", "--json").stdout)["findings"]
        return [finding["code"] for finding in findings if finding["code"].startswith("stored-")]

    with server(tmp_path / "home") as one:
        of = {"name": "api_request", "time_ns": time.time_ns(), "session.id": "a", "event.sequence": 1, "query_source": "typed by somebody"}
        one.stored("logs", as_protobuf(log_request([of])))
        one.query("SELECT count() FROM telemetry.telemetry_events")
        assert told() == []
        # as a run leaves it that is killed, and whose request somebody removes
        one.run("INSERT INTO telemetry.privacy_history (what, level) SELECT 'tightening', 'strict'")
        assert told() == ["stored-left"]
        one.down()
        request = one.home.path / REQUEST
        request.write_text("count\n")
        assert told() == [], "who asked was told so"
        request.write_text("tighten\n")
        assert told() == ["stored-waits"]
        one.up()
        wait_for(lambda: not request.exists(), 60)
        assert told() == []
        assert one.query("SELECT what FROM telemetry.privacy_history ORDER BY since DESC LIMIT 2") == [["tightened"], ["tightening"]]


def test_the_doctor_tells_of_own_prices_that_are_not_in_force(tmp_path):
    def told() -> list[str]:
        findings = json.loads(one.command("doctor", "--json").stdout)["findings"]
        return [finding["code"] for finding in findings if finding["area"] == "prices"]

    with server(tmp_path / "home") as one:
        assert told() == []
        own = one.home.path / "prices.csv"
        own.write_text("model,input,output\nmine,1,2\n")
        assert told() == ["own-prices-unread"]
        one.restart()
        assert told() == ["own-prices"]
        own.write_text("model,input,output\nmine,dear,2\n")
        one.restart()  # which refuses them, and serves
        assert told() == ["own-prices-unread"]
        own.write_bytes(b"\xff")
        assert told() == ["own-prices-unread"]


def test_every_acknowledged_request_is_there_after_sigterm_in_the_middle(tmp_path):
    acknowledged, stop = [], threading.Event()

    def sender(number: int) -> None:
        while not stop.is_set():
            try:
                if one.post("logs", event(number), Connection="close")[0] == 200:
                    acknowledged.append(number)
            except OSError:
                return
            number += 4

    with server(tmp_path) as one:
        threads = [threading.Thread(target=sender, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(acknowledged) > 20)
        service.down(one.home)
        stop.set()
        for thread in threads:
            thread.join()
        one.up()
        found = {number for [number] in one.query("SELECT event_sequence FROM telemetry.telemetry_events FINAL")}
        assert set(acknowledged) <= found
        sums = one.query("SELECT sum(requests), sum(cost_usd) FROM telemetry.session_summaries FINAL")
        assert sums == one.query("SELECT count(), sum(cost_usd) FROM telemetry.telemetry_events FINAL")


def test_restart_keeps_what_is_stored_and_moved_homes_open(tmp_path):
    with server(tmp_path / "before") as one:
        one.stored("logs", event(1))
        assert one.command("restart").returncode == 0
        one.up()
        assert count(one) == 1
    (tmp_path / "before").rename(tmp_path / "after")
    with server(tmp_path / "after") as moved:
        assert count(moved) == 1


def test_a_store_that_can_not_be_written_is_one_clear_sentence(tmp_path):
    (tmp_path / "store").write_text("a file, where a folder should be")
    answer = Server(tmp_path).command("up")
    assert answer.returncode != 0 and "Traceback" not in answer.stderr
    assert str(tmp_path / "store") in answer.stderr.replace("\n", " ") or "can't be made" in answer.stderr


def test_a_read_only_store_is_one_clear_sentence(tmp_path):
    home = tmp_path / "home"
    with server(home) as one:
        one.stored("logs", event(1))
    serve = [sys.executable, "-m", "sp_telemetry.cli.main", "serve"]
    if os.geteuid() == 0:  # whom no mode of a directory stops: the directory is mounted read-only for this process alone
        mounted = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
        serve = ["unshare", "--mount", "sh", "-c", mounted, "sh", str(home / "store"), *serve]
        if subprocess.run([*serve[:7], "true"], capture_output=True).returncode:
            pytest.skip("this machine lets nobody mount")
    else:
        for folder in (home / "store").rglob("*/"):
            folder.chmod(0o500)
        (home / "store").chmod(0o500)
    answer = subprocess.run(serve, env={**one.environ, "SP_TELEMETRY_HOME": str(home)}, capture_output=True, text=True, timeout=60)
    for folder in [home / "store", *(home / "store").rglob("*/")] if os.geteuid() else []:
        folder.chmod(0o700)
    assert answer.returncode in range(1, 10), answer  # not killed by the engine
    assert "Traceback" not in answer.stderr
    assert "ead-only" in answer.stderr or "ermission denied" in answer.stderr
    assert len(answer.stderr) < 2500
    with server(home) as again:
        assert count(again) == 1
