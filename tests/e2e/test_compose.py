"""The Compose stack on a real Docker Engine, set up and used as a person does. The image of ClickHouse is a STAND-IN that runs our
embedded engine (tests/docker/standin.py): networks, volumes, health, order of start, limits and secrets are real, and the server's users,
grants and quotas are not; those are in tests/store/test_server_access.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sp_telemetry import resources
from tests.client import ClaudeCode, MessagesApi, OtlpRecorder, Reply, Script, ToolUse, executable
from tests.client.install import NEWEST, ClientUnavailable
from tests.conftest import require
from tests.docker import images
from tests.docker.engine import Engine, EngineUnavailable, running
from tests.docker.stack import SERVICES, Stack
from tests.server import wait_for

pytestmark = [pytest.mark.timeout(1500)]  # the first run builds Compose and the collector
NAMES = ("clickhouse-data", "clickhouse-secrets", "clickhouse-backups", "collector-queue", "collector-secrets")
VOLUMES = {f"sp-telemetry_{name}" for name in NAMES}
SECRETS = ("telemetry_user", "telemetry_reader", "telemetry_salt")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        with running() as started:
            images.make(started)
            print("clickhouse/clickhouse-server is a STAND-IN here: sp-telemetry's embedded engine")
            yield started
    except EngineUnavailable as reason:
        require(False, str(reason))


@pytest.fixture(scope="module")
def stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Set up with the embedded server first, then moved to Compose. The tests below run in their order on this one."""
    made = Stack(engine, tmp_path_factory.mktemp("stack"))
    made.command("setup", "--yes", "--json", "--person", "Ada", *(f"--port={name.lower()}={port}" for name, port in made.ports.items()))
    assert made.asked("status")["backend"] == "embedded"
    yield made
    engine.docker("ps")  # still there


def test_setup_moves_from_the_embedded_server_and_proves_an_event(stack):
    told = stack.asked("setup", "--backend", "compose", "--yes")
    assert told["verified"]["person"] == "Ada" and told["server"]["backend"] == "compose" and told["server"]["started"]
    assert stack.sql("SELECT event_type, user_id FROM telemetry_events FINAL") == [["sp_telemetry.setup_check", "Ada"]]
    said = stack.asked("status")
    assert {name: said[name] for name in ("running", "backend", "health", "events_stored")} == {
        "running": True, "backend": "compose", "health": "Server available", "events_stored": 1,
    }  # fmt: skip
    assert said["ports"] == {name.lower(): port for name, port in stack.ports.items()}
    assert "STAND-IN for clickhouse/clickhouse-server" in stack.command("logs")
    assert stack.command("migrate") == "Nothing to do.\n"
    env = stack.home / "compose" / ".env"
    assert env.stat().st_mode & 0o777 == 0o600
    subprocess.run(["docker", "compose", "config", "-q"], cwd=env.parent, env=stack.environ, check=True)


def test_all_is_healthy_within_its_limits_and_on_loopback_only(stack):
    limits = {"clickhouse": (2 << 30, 1.0), "collector": (512 << 20, 0.5), "probe": (64 << 20, 0.1)}
    for service, (memory, cpus) in limits.items():
        said = stack.container(service)
        host, state = said["HostConfig"], said["State"]
        assert (host["Memory"], host["NanoCpus"] / 1e9, limits_of(said["Id"])) == (memory, cpus, (memory, cpus))
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["RestartPolicy"]["Name"]) == (True, ["ALL"], "unless-stopped"), service
        assert state["Running"] and state.get("Health", {"Status": "healthy"})["Status"] == "healthy" and not state["OOMKilled"]
        for published in said["NetworkSettings"]["Ports"].values():
            assert {each["HostIp"] for each in published or ()} <= {"127.0.0.1"}
        assert said["Config"]["User"] == {"collector": "10001:10001"}.get(service, "101:101")
    assert stack.container("prepare")["State"]["ExitCode"] == 0
    [queue] = [place["Source"] for place in stack.container("collector")["Mounts"] if place["Destination"] == "/var/lib/otelcol"]
    reserved = {file.name: file.stat().st_blocks * 512 for file in Path(queue).iterdir()}
    assert set(reserved) == {f"exporter_clickhouse__{signal}" for signal in ("logs", "metrics", "traces")}
    assert min(reserved.values()) >= 536870912 * 5 // 2
    began = {service: stack.container(service)["State"]["StartedAt"] for service in ("clickhouse", "collector")}
    assert began["clickhouse"] < began["collector"], "the collector waits for a healthy store"
    assert stack.volumes() == VOLUMES


def limits_of(container: str) -> tuple[int, float]:
    """Bytes of memory and CPUs that the kernel gives it, whichever version its control groups have."""
    groups = Path("/sys/fs/cgroup")
    if (groups / "memory").is_dir():
        memory = int((groups / "memory/docker" / container / "memory.limit_in_bytes").read_text())
        quota, period = ((groups / "cpu/docker" / container / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
    else:
        memory = int((groups / "docker" / container / "memory.max").read_text())
        quota, period = (groups / "docker" / container / "cpu.max").read_text().split()
    return memory, int(quota) / int(period)


def test_no_password_stands_where_others_can_read_it(stack):
    secrets = {name: (stack.home / "secrets" / name).read_text().strip() for name in SECRETS}
    assert all(len(secret) >= 16 for secret in secrets.values()) and len(set(secrets.values())) == 3
    places = {f"inspect {service}": json.dumps(stack.container(service)) for service in (*SERVICES, "prepare")}
    places |= {f"inspect {volume}": json.dumps(stack.engine.inspect("volume", volume)) for volume in VOLUMES}
    places["compose config"] = subprocess.run(
        ["docker", "compose", "config"], cwd=stack.home / "compose", env=stack.environ, capture_output=True, text=True, check=True
    ).stdout
    places |= {str(file): file.read_text() for file in (stack.home / "compose").rglob("*") if file.is_file()}
    for process in Path("/proc").glob("[0-9]*"):
        for what in ("cmdline", "environ"):
            try:
                places[f"{process}/{what}"] = (process / what).read_bytes().decode(errors="replace")
            except OSError:
                continue
    for name in (*SERVICES, "prepare"):
        places[f"logs {name}"] = stack.engine.docker("logs", f"sp-telemetry-{name}-1").stdout
    found = [(name, place) for place, text in places.items() for name, secret in secrets.items() if secret in text]
    assert not found
    for file in (stack.home / "secrets").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600, file
    # Each service has its own, and ClickHouse not even the passwords.
    mine = "cat /run/telemetry/* && ! ls /run/secrets && stat -c '%a %u' /run/telemetry/passwords.xml"
    said = stack.engine.docker("exec", "sp-telemetry-clickhouse-1", "sh", "-c", mine).stdout
    assert not any(secret in said for secret in secrets.values()) and said.endswith("400 101\n")


@pytest.mark.needs("node", "npm")
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_real_client_reports_into_it(stack, tmp_path, protocol):
    try:
        binary = executable(NEWEST)
    except ClientUnavailable as reason:
        require(False, str(reason))
    script = Script().on("count the words", Reply("1", ToolUse("Bash", command="echo 7")), Reply("seven"))
    port = stack.ports["OTLP_GRPC" if protocol == "grpc" else "OTLP_HTTP"]
    with MessagesApi(script) as api, OtlpRecorder(grpc=False) as unused:
        told = unused.environment(protocol, traces=False) | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        done = ClaudeCode(binary, tmp_path / "home", api.url).run("count the words", cwd=tmp_path, env=told)
    assert done.returncode == 0, done.stderr
    stored = "SELECT count(), round(sum(cost_usd), 6) FROM telemetry_events FINAL WHERE event_type = 'api_request' AND session_id = '{}'"
    wanted = [[str(sum(answer.status == 200 for answer in api.log)), f"{done.result['total_cost_usd']:.6f}".rstrip("0")]]
    assert wait_for(lambda: stack.sql(stored.format(done.session_id)) == wanted, 60, 1), (stack.sql(stored.format(done.session_id)), wanted)
    report = json.loads(stack.command("report", "cost", "--by", "session", "--session", done.session_id, "--json"))
    assert done.session_id in json.dumps(report)
    if protocol != "grpc":
        return
    summary = f"SELECT requests FROM session_summaries FINAL WHERE session_id = '{done.session_id}'"
    assert wait_for(lambda: stack.sql(summary) == [wanted[0][:1]], 90, 2), "the store's own views make the summaries"


def test_a_store_that_is_away_gets_all_when_it_is_back(stack):
    before = stack.asked("status")["events_stored"]
    stack.engine.docker("stop", "sp-telemetry-clickhouse-1")
    said = stack.asked("status", code=5)
    assert said["reason"] == "clickhouse exited." and said["health"] == "Server not available"
    send(stack, 20)
    waiting = wait_for(lambda: stack.asked("status", code=5)["queue_bytes"], 30, 1)
    assert waiting > 0
    assert "store-unavailable" in {one["code"] for one in stack.asked("doctor", code=2)["findings"]}
    stack.engine.docker("kill", "sp-telemetry-collector-1")  # with a filled queue
    stack.engine.docker("start", "sp-telemetry-clickhouse-1")
    stack.command("up")
    assert wait_for(lambda: stack.asked("status")["events_stored"] == before + 20, 90, 1), stack.asked("status")
    assert wait_for(lambda: stack.asked("status")["queue_bytes"] == 0, 30, 1) is True


def send(stack: Stack, number: int) -> None:
    """So many events, one request each, as set-up sends its own."""
    import time
    import urllib.request
    import uuid

    from sp_telemetry.setup.verify import export_request

    for _ in range(number):
        body = export_request(str(uuid.uuid4()), "Ada", time.time_ns())
        url = f"http://127.0.0.1:{stack.ports['OTLP_HTTP']}/v1/logs"
        with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf"}), timeout=10) as answer:
            assert answer.status == 200


def test_restart_and_down_and_up_keep_what_is_stored(stack):
    stored = stack.asked("status")["events_stored"]
    assert stored > 20
    assert stack.command("restart").startswith("Started: Compose:")
    assert stack.asked("status")["events_stored"] == stored
    assert stack.command("down") == "Stopped.\n"
    assert stack.asked("status", code=3)["running"] is False
    assert stack.command("down") == "No server was running.\n"
    assert stack.volumes() == VOLUMES
    assert stack.command("up").startswith("Started: Compose:")
    assert stack.command("up").startswith("Running already: Compose:")
    assert stack.asked("status")["events_stored"] == stored


def test_what_dies_is_started_again_and_a_change_of_settings_is_followed(stack):
    before = stack.container("collector")
    env = stack.home / "compose" / ".env"
    env.write_text(env.read_text().replace("COLLECTOR_MEMORY=512M", "COLLECTOR_MEMORY=400M"))
    assert "full since" in stack.command("privacy", "apply", "--level", "full")
    after = stack.container("collector")
    assert before["Id"] != after["Id"] and after["HostConfig"]["Memory"] == 400 << 20
    assert "Level full." in (stack.home / "compose" / "privacy.yaml").read_text()
    assert "\nprivacy   full since" in stack.command("status")
    said = stack.command("privacy", "apply", "--level", "strict", "--to-stored", "--yes")
    assert "In force: strict" in said and re.search(r"telemetry_events +0\n", said), "stored at strict already"
    assert "Level strict." in (stack.home / "compose" / "privacy.yaml").read_text()
    after = stack.container("collector")
    subprocess.run(["kill", "-9", str(host_pid(after["Id"]))], check=True)
    assert wait_for(lambda: stack.container("collector")["RestartCount"] == 1 and stack.container("collector")["State"]["Running"], 30)
    assert wait_for(lambda: stack.asked("status", code=(0, 5))["health"] == "Server available", 60, 1)


def host_pid(container: str) -> int:
    """Of its first process, as this machine numbers it: the engine's own numbers are those of its namespace."""
    for group in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            if container in group.read_text():
                return int(group.parent.name)
        except OSError:
            continue
    raise AssertionError(f"no process of {container}")


def test_it_forgets_when_it_is_told_to(stack):
    refused = stack.command("down", "--volumes", code=2)
    assert refused == "" and stack.volumes() == VOLUMES
    assert stack.command("down", "--volumes", "--yes") == "Stopped, and all data removed.\n"
    assert stack.volumes() == set()
    stack.command("up")
    assert stack.asked("status")["events_stored"] == 0


def test_uninstall_takes_it_all_back(stack):
    stack.command("uninstall", "--purge", "--yes")
    assert (stack.volumes(), stack.engine.docker("ps", "--all", "--quiet").stdout, stack.home.exists()) == (set(), "", False)
    assert not (stack.user / ".claude" / "settings.json").exists()


def test_by_hand_as_the_template_says(engine, tmp_path):
    """`.env.template`'s own lines, run as they stand, on other ports."""
    stack = Stack(engine, tmp_path)
    place = tmp_path / "telemetry-server"
    shutil.copytree(resources.path("telemetry-server"), place)
    template = place / ".env.template"
    text = template.read_text()
    for name, port in stack.ports.items():
        text = re.sub(rf"^{name}_PORT=.*$", f"{name}_PORT={port}", text, flags=re.M)
    template.write_text(text.replace("127.0.0.1:8123", f"127.0.0.1:{stack.ports['CLICKHOUSE']}"))
    lines = re.findall(r"^#     (.*)$", template.read_text(), re.M)
    assert len(lines) == 4
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "sp-telemetry").write_text(f'#!/bin/sh\nexec "{shutil.which("python")}" -m sp_telemetry.cli.main "$@"\n')
    (bin / "sp-telemetry").chmod(0o755)
    environ = {name: value for name, value in stack.environ.items() if not name.startswith("SP_TELEMETRY_")}
    environ |= {"PATH": f"{bin}:{environ['PATH']}"}
    done = subprocess.run(["sh", "-euc", "\n".join(lines)], cwd=place, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0 and done.stdout.startswith("Applied: 0001_installation.sql"), done.stdout + done.stderr
    send(stack, 1)
    subprocess.run(["docker", "compose", "down", "--volumes"], cwd=place, env=environ, check=True, capture_output=True)
    assert stack.volumes() == set()
