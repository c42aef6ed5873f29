"""The doctor without a client: what lies on the disk, what managed settings force, what a bundle must not hold."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sp_telemetry.errors import SpTelemetryError, UsageError
from sp_telemetry.home import Home
from sp_telemetry.setup import client_versions, configuration, doctor_store, environment, layers, service
from sp_telemetry.setup.doctor import Examination, Patient, examine
from sp_telemetry.setup.doctor_bundle import as_text, bundle
from sp_telemetry.setup.environment import variables
from sp_telemetry.setup.identity import checked, offered, redacted
from sp_telemetry.setup.onboarding import Options, plan, refuse
from sp_telemetry.setup.policy import stored
from sp_telemetry.store import room
from sp_telemetry.store.journal import HEAD, Journal
from sp_telemetry.store.tightening import REQUEST
from tests.conftest import ROOT

PORTS = ("otlp_http", "otlp_grpc", "clickhouse", "health", "metrics")


class Place:
    """A machine without a client: a home of ours, a person's home, a repository, managed settings."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "sp")
        self.user = folder / "home"
        self.book = folder / "book"
        self.managed = folder / "managed-settings.json"
        (self.user / ".claude").mkdir(parents=True)
        (self.book / ".git").mkdir(parents=True)
        (self.book / ".claude").mkdir()
        self.environ = {"HOME": str(self.user), "PATH": str(folder / "bin"), "SP_TELEMETRY_HOME": str(self.home.path)}

    def write(self, path: Path, **settings: Any) -> None:
        path.write_text(json.dumps(settings))

    def on(self, port: int, **more: str) -> None:
        self.write(self.user / ".claude" / "settings.json", env=variables(f"http://127.0.0.1:{port}", "Ada") | more)

    def look(self, **shell: str) -> Examination:
        return examine(self.home, self.environ | shell, self.book, (self.managed,))

    def found(self, code: str, **shell: str) -> Any:
        findings = [finding for finding in self.look(**shell).findings if finding.code == code]
        return findings[0] if findings else SimpleNamespace(level="", what="", mend="", facts={})

    def client(self, version: str) -> None:
        folder = Path(self.environ["PATH"])
        folder.mkdir(exist_ok=True)
        (folder / "claude").write_text(f"#!/bin/sh\necho '{version} (Claude Code)'\n")
        (folder / "claude").chmod(0o755)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("served"))
    made.home.make()
    environ = {**os.environ, **{f"SP_TELEMETRY_{name.upper()}_PORT": "0" for name in PORTS}}
    service.up(made.home, environ)
    (made.home.path / "config.toml").write_text("".join(f"{name}_port = 0\n" for name in PORTS))
    yield made
    service.down(made.home)


def send(place: Place, name: str, at: float, **attributes: str) -> None:
    named = {"event.name": name, "session.id": str(uuid.uuid4()), "event.sequence": "0", **attributes}
    pairs = [{"key": key, "value": {"stringValue": value}} for key, value in named.items()]
    record = {"timeUnixNano": str(int(at * 1e9)), "attributes": pairs}
    resource = {"attributes": [{"key": "service.version", "value": {"stringValue": "2.1.205"}}]}
    body = json.dumps({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}).encode()
    url = f"http://127.0.0.1:{place.home.server()['ports']['otlp_http']}/v1/logs"
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}), timeout=10).close()


def test_nothing_set_up(place: Place) -> None:
    examination = place.look()
    assert {"not-set-up", "telemetry-off"} <= {finding.code for finding in examination.findings if finding.level == "error"}
    assert examination.exit_code == 2 and not place.home.path.exists()


def test_what_arrived(served: Place) -> None:
    served.on(served.home.server()["ports"]["otlp_http"])
    assert served.found("no-event-yet").level == "warning"
    send(served, "api_request", time.time())
    examination = served.look()
    codes = {finding.code: finding for finding in examination.findings}
    assert codes["events"].level == codes["clock"].level == codes["settings"].level == "ok"
    assert codes["no-context"].level == "warning" and examination.exit_code == 1 and examination.seconds < 2
    # 2.1.205 sent this: what it spoils is told though no client is installed here
    assert any("2.1.205" in finding.what for finding in examination.findings if finding.code == "version-flaw")
    for _ in range(3):
        send(served, "brand_new_event", time.time() + 7200, **{"new.attribute": "x"})
    examination = served.look()
    codes = {finding.code: finding for finding in examination.findings}
    assert codes["clock-skew"].facts["from_the_future"] == 3 and "early" in codes["clock-skew"].what
    assert "brand_new_event" in codes["unknown-names"].what and "new.attribute" in codes["unknown-names"].what


def test_one_clock_among_several(served: Place) -> None:
    for seconds, who in ((0, "a"), (0, "a"), (0, "a"), (3 * 3600, "b")):
        send(served, "user_prompt", time.time() - seconds, **{"user.id": who * 64})
    told = served.found("clock-skew")
    assert f"of {'b' * 40}, one of " in told.what and 10_800 <= told.facts["lag_s"] < 11_000


def test_prompts_without_a_request(place: Place) -> None:
    seen = {"prompts": 3, "requests": 0, "api_errors": 0, "events": 9, "last_event": time.time(), "last_metric": 0}
    patient = Patient(place.home, place.home.settings(), place.environ, place.book, None)

    def told(**other: int) -> dict[str, str]:
        return {finding.code: finding.what for finding in doctor_store._events(patient, seen | other)}

    assert told()["no-requests"] == "Events arrive, 3 prompts among them, and not one request."
    assert not [other for other in ({"requests": 1}, {"api_errors": 1}, {"prompts": 0}) if "no-requests" in told(**other)]


SECRETS = {
    "person": "Ada Countess Lovelace",
    "token": "sk-ant-verysecretverysecret",
    "branch": "099-acquisition-of-acme",
    "company": "otel.secret-company.example",
    "session": "5f0c1f5e-1111-4222-8333-444455556666",
    "variable": "SECRETPROJECT",
    "program": "acme-merger-tool",
}


def test_a_bundle_holds_nothing_private(served: Place, tmp_path: Path) -> None:
    port = served.home.server()["ports"]["otlp_http"]
    configuration.save(served.home, {"person": SECRETS["person"], "timezone": "Europe/Berlin"})
    served.on(
        port,
        OTEL_EXPORTER_OTLP_HEADERS=f"Authorization=Bearer {SECRETS['token']}",
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"https://{SECRETS['token']}@{SECRETS['company']}/v1/metrics",
        OTEL_TRACES_EXPORTER=SECRETS["company"],
        OTEL_EXPORTER_OTLP_PROTOCOL=SECRETS["token"],
        OTEL_RESOURCE_ATTRIBUTES=f"enduser.id={SECRETS['person']},x={SECRETS['company']}",
    )
    odd = {f"OTEL_{SECRETS['variable']}_X": "1", f"OTEL_EXPORTER_OTLP_{SECRETS['program']}_ENDPOINT": "x"}
    served.write(served.book / ".claude" / "settings.json", env=odd | {"OTEL_EXPORTER_OTLP_ENDPOINT": SECRETS["company"]})
    send(served, "user_prompt", time.time(), prompt=SECRETS["token"], **{"session.id": SECRETS["session"], "odd": SECRETS["company"]})
    (served.home.path / "hooks").mkdir(exist_ok=True)
    (served.home.path / "hooks" / f"{SECRETS['session']}.json").write_text(json.dumps({"branch": SECRETS["branch"]}))
    served.home.logs.mkdir(exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    gave_up = f"{now} edit gave up: OSError 28 at session.py:3\n{now} x gave up: {SECRETS['program']} 1\n"
    (served.home.logs / "hooks.log").write_text(gave_up)
    examination = served.look(OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=f"http://{SECRETS['company']}")
    text = as_text(bundle(examination, served.home.settings()))
    private = [*SECRETS.values(), *SECRETS["person"].split(), str(served.home.path), str(served.book), str(served.user), "Berlin"]
    private += [served.home.secret(name) for name in ("telemetry_reader", "telemetry_user")]
    assert [secret for secret in private if secret in text] == []
    assert {"signal-endpoint", "hooks-gave-up", "unknown-protocol"} <= {finding["code"] for finding in json.loads(text)["findings"]}
    # and the text for the person itself never shows what is in headers or before an @
    sentences = json.dumps(examination.as_dict())
    assert f"Bearer {SECRETS['token']}" not in sentences and f"{SECRETS['token']}@" not in sentences


def free_ports() -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        return {name: probe.getsockname()[1] for name, probe in zip(PORTS, probes, strict=True)}


def test_managed_settings(place: Place) -> None:
    place.on(4318)
    place.write(place.managed, env={"OTEL_EXPORTER_OTLP_ENDPOINT": "https://otel.example.com", "OTEL_LOGS_EXPORTER": "none"})
    elsewhere, silent = place.found("sent-elsewhere"), place.found("no-exporter")
    assert elsewhere.level == "warning" and "administrator" in elsewhere.mend and silent.level == "error"
    made = plan(place.home, place.environ, place.book, Options("Ada", ports=free_ports()), (place.managed,))
    with pytest.raises(SpTelemetryError, match="Managed settings force"):
        refuse(made, force=False)
    assert not place.home.path.exists()


def test_unreadable_settings(place: Place) -> None:
    (place.user / ".claude" / "settings.json").write_text("{ // }")
    assert place.found("settings-unreadable").level == "error"
    place.on(4318)
    (place.book / ".claude" / "settings.local.json").write_text("{,}")
    assert place.found("settings-unreadable").level == "warning"


@pytest.mark.checkout
def test_the_plugin_is_installed_from_this_checkout(place: Place) -> None:
    place.home.make()
    mend = place.found("plugin-missing").mend  # to be pasted into a shell
    assert mend == f"claude plugin marketplace add {shlex.quote(str(ROOT))}; claude plugin install sp-telemetry@sp-telemetry"


def test_the_plugin_may_be_known_from_two_marketplaces(place: Place) -> None:
    """Of each the highest layer that names it decides, as for the client: one that is off says nothing of the other."""
    user = place.user / ".claude"
    (user / "plugins").mkdir()
    place.write(user / "plugins" / "installed_plugins.json", plugins={"sp-telemetry@old": [], "sp-telemetry@new": []})
    place.write(user / "settings.json", enabledPlugins={"sp-telemetry@old": False, "sp-telemetry@new": True})
    assert place.found("plugin-missing").level == ""
    place.write(place.book / ".claude" / "settings.local.json", enabledPlugins={"sp-telemetry@old": False})
    assert place.found("plugin-missing").level == ""
    place.write(place.book / ".claude" / "settings.local.json", enabledPlugins={"sp-telemetry@new": False})
    assert "installed and not enabled" in place.found("plugin-missing").what


def test_hooks_and_spool(place: Place) -> None:
    place.home.make()
    assert place.found("plugin-missing").mend.endswith("; claude plugin install sp-telemetry@sp-telemetry")
    user = place.user / ".claude"
    place.write(user / "settings.json", enabledPlugins={"sp-telemetry@sp-telemetry": True})
    assert place.found("plugin-missing").mend == "claude plugin install sp-telemetry@sp-telemetry"
    (user / "plugins" / "data" / "sp-telemetry-sp-telemetry").mkdir(parents=True)
    place.write(user / "plugins" / "installed_plugins.json", version=2, plugins={"sp-telemetry@sp-telemetry": [{"scope": "user"}]})
    assert place.found("plugin-missing").level == "" and place.found("hooks-never-ran").level == "warning"
    (user / "plugins" / "data" / "sp-telemetry-sp-telemetry" / "no-python").write_text("none\n")
    assert place.found("hooks-no-python").level == "error"
    place.write(place.book / ".claude" / "settings.json", disableAllHooks=True)
    assert place.found("hooks-disabled").facts == {"layer": "project settings"}
    assert place.found("hooks-disabled", SP_TELEMETRY_HOOKS="0").level == "warning"

    assert place.found("spool").facts["waiting"] == 0
    old = int((time.time() - 7200) * 1e9)
    (place.home.spool / f"{old:020d}-{uuid.uuid4().hex}.json").write_text("{}")
    assert place.found("spool-waiting").mend == "sp-telemetry up"
    (place.home.path / "hooks").mkdir()
    place.write(place.home.path / "hooks" / "counters.json", delivered=7, dropped=2)
    assert place.found("spool-dropped").facts == {"delivered": 7, "waiting": 1, "dropped": 2, "oldest_s": pytest.approx(7200, abs=60)}


def test_disk_and_server(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.home.make()
    configuration.save(place.home, {"autostart": False})
    down = place.found("server-down")
    assert down.level == "error" and "autostart is off" in down.why
    monkeypatch.setattr(room, "free_bytes", lambda path: 100 << 20)
    assert place.found("disk-low").level == "error"
    (place.home.path / "server.json").write_text("{}")
    (place.home.path / "config.toml").write_text("no_such = 1\n")
    with pytest.raises(UsageError, match="no_such"):
        place.look()


def test_a_damaged_journal(place: Place) -> None:
    """Two of three records of the first file, all of the second. Looked at where no server runs, too."""
    place.home.make()
    assert place.found("journal-damaged").level == ""
    folder = place.home.store / "journal"
    kept = Journal(folder)
    for sizes in ((100, 200, 300), (50,)):
        kept.append([bytes([7]) * size for size in sizes])
        kept.take()
    heads = [100 + HEAD.size, 100 + 200 + 2 * HEAD.size]
    for file, places in (("00000001.rows", [20, heads[0] + 20]), ("00000002.rows", [20])):
        data = bytearray((folder / file).read_bytes())
        for at in places:
            data[at] ^= 1
        (folder / file).write_bytes(data)
        os.utime(folder / file, (1_790_000_000, 1_790_000_000))
    again = Journal(folder)
    for segment in again.take():
        again.drop(segment)
    found = place.found("journal-damaged")
    assert (found.level, found.facts) == ("warning", {"files": 2, "damaged_bytes": heads[1] + 50 + HEAD.size})
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(1_790_000_000))
    sizes = [f"{heads[1]} of {heads[1] + 300 + HEAD.size}", f"{50 + HEAD.size} of {50 + HEAD.size}"]
    files = [f"0000000{n}.rows.damaged (last written {when}, {size} bytes can't be read)" for n, size in enumerate(sizes, 1)]
    assert found.what == f"Records of the journal are damaged: {', '.join(files)}."
    assert "`sp-telemetry audit`" in found.why and "`sp-telemetry backfill`" in found.why
    assert found.mend == f"Then remove what is kept: rm {folder}/00000001.rows.damaged {folder}/00000002.rows.damaged"
    for file in folder.iterdir():
        file.unlink()
    assert place.found("journal-damaged").level == ""


@pytest.mark.parametrize(
    ("health", "code", "level"),
    [
        ({}, "stored-under-way", "ok"),
        ({"unanswered": "Stored rows are not brought down to the privacy policy yet. The disk is full."}, "stored-waits", "warning"),
        ({"reason": "The disk of the store is full", "mend": "Make room"}, "stored-waits", "warning"),
    ],
)
def test_stored_rows_that_wait_for_a_policy(
    place: Place, monkeypatch: pytest.MonkeyPatch, health: dict[str, str], code: str, level: str
) -> None:
    place.home.make()
    (place.home.path / REQUEST).write_text("tighten\n")
    monkeypatch.setattr(service, "is_held", lambda home: True)
    monkeypatch.setattr(service, "running", lambda home: SimpleNamespace(health=health))
    [found] = stored(Patient(place.home, place.home.settings(), place.environ, place.book, None))
    assert (found.code, found.level) == (code, level)
    assert all(told in found.what + found.mend for told in health.values())


@pytest.mark.parametrize(("version", "level"), [("2.1.330", ""), ("2.1.197", "warning"), ("2.1.100", "warning")])
def test_versions(place: Place, version: str, level: str) -> None:
    place.client(version)
    examination = place.look()
    flaws = [finding for finding in examination.findings if finding.code == "version-flaw" and finding.level == "warning"]
    assert bool(flaws) == bool(level) and all(finding.mend == "claude update" and "https://" in finding.why for finding in flaws)
    assert place.found("client-old").level == ("warning" if version == "2.1.100" else "")
    assert place.found("client").facts == {"version": version}


def test_every_flaw_has_its_source_and_its_versions() -> None:
    for flaw in client_versions.FLAWS:
        assert flaw.source.startswith("https://") and flaw.what and flaw.matters and flaw.versions
    assert client_versions.flaws((2, 1, 205)) != client_versions.flaws((2, 1, 330))


def test_what_every_version_gets_wrong_is_told_and_is_no_warning(place: Place) -> None:
    place.client("2.1.330")
    told = place.found("version-flaws-lasting")
    assert told.level == "ok" and "agent.name is often missing; auto mode's own requests may be missing" in told.what
    assert "https://github.com/anthropics/claude-code/issues/89406" in told.facts.values()


def test_versions_that_are_known_to_lose_events() -> None:
    assert all(map(client_versions.loses_events, ("2.1.191", "2.1.205", "2.1.211", "2.1.211-beta.1")))
    assert not any(map(client_versions.loses_events, ("2.1.190", "2.1.212", "2.1.330", "2.0.205", "2.2.0", "1.1.205", "", "nothing")))


def test_who_wins(place: Place) -> None:
    place.write(place.user / ".claude" / "settings.json", env={"OTEL_X": "user", "OTEL_Y": "user"})
    project = {"OTEL_X": "project", "OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "none"}
    place.write(place.book / ".claude" / "settings.json", env=project)
    place.write(place.book / ".claude" / "settings.local.json", env={"OTEL_X": "local"})
    environ = place.environ | {"OTEL_X": "shell", "OTEL_Z": "shell", "EDITOR": "vi"}
    inside = place.book / "05-part"
    inside.mkdir()
    seen = layers.layers(environ, inside, ())
    new, old = layers.in_force(seen, None), layers.in_force(seen, (2, 1, 197))
    expected = {"OTEL_X": "local", "OTEL_Y": "user", "OTEL_Z": "shell", "OTEL_LOGS_EXPORTER": "none"}
    assert {name: value.text for name, value in new.items()} == expected
    assert old["OTEL_METRICS_EXPORTER"].text == "otlp"
    assert [text for _, text in new["OTEL_X"].beaten] == ["project", "user", "shell"]


@pytest.mark.checkout
def test_the_file_to_source_says_what_env_prints(tmp_path: Path) -> None:
    file = ROOT / ".claude" / "env-config" / "telemetry-enabled.env"
    command = ["sh", "-c", '. "$1" && env', "sh", str(file)]
    done = subprocess.run(command, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True)
    sourced = dict(line.split("=", 1) for line in done.stdout.splitlines() if line.startswith(("OTEL_", "CLAUDE_")))
    assert sourced == variables()


def test_env_command_keeps_other_attributes(tmp_path: Path) -> None:
    environ = {**os.environ, "SP_TELEMETRY_HOME": str(tmp_path), "OTEL_RESOURCE_ATTRIBUTES": "team=docs"}
    (tmp_path / "config.toml").write_text('person = "Ada Lovelace"\n')
    command = [sys.executable, "-m", "sp_telemetry.cli.main", "env", "--shell", "bash"]
    on = subprocess.run([*command, "--traces", "--console", "--prometheus"], env=environ, capture_output=True, text=True, check=True).stdout
    assert "export OTEL_RESOURCE_ATTRIBUTES='team=docs,enduser.id=Ada%20Lovelace'\n" in on
    assert "export OTEL_METRICS_EXPORTER=otlp,console,prometheus\n" in on and "OTEL_TRACES_EXPORTER=otlp,console\n" in on
    environ["OTEL_RESOURCE_ATTRIBUTES"] = "team=docs,enduser.id=Ada"
    off = subprocess.run([*command, "--off"], env=environ, capture_output=True, text=True, check=True).stdout
    assert "unset CLAUDE_CODE_ENABLE_TELEMETRY\n" in off and off.endswith("export OTEL_RESOURCE_ATTRIBUTES='team=docs'\n")


def test_who_may_be_reported(tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text("[user]\nname = Ada Lovelace\nemail = countess@example.com\n")
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "USER": "ada"}
    assert offered(environ, str(tmp_path)) == ["Ada Lovelace", "countess@example.com", "ada"]
    assert offered({"PATH": ""}, str(tmp_path)) == []
    assert checked("  Zoë   de Vries ") == "Zoë de Vries" and checked("a@b.example") == "a@b.example"
    assert redacted("to a@b.example") == "to <email>"
    for name in ("", " ", "Ada <ada@example.com>", "x" * 81, "a\x00b", "sk-ant-0123456789"):
        with pytest.raises(UsageError):
            checked(name)


def test_config_lines_stay(tmp_path: Path) -> None:
    text = '# mine\nperson = "old" # whom\nretention_events_days = 30\n[later]\nperson = "other"'
    changed = configuration.changed(text, {"person": 'A "B" \\ é', "autostart": False, "otlp_http_port": 14318})
    assert changed.startswith("# mine\n") and changed.endswith('[later]\nperson = "other"') and "retention_events_days = 30\n" in changed
    home = Home(tmp_path)
    assert configuration.save(home, {"person": "Ada"}) and not configuration.save(home, {"person": "Ada"})
    assert configuration.put_aside(home) and home.settings().person == ""
    assert configuration.save(home, {"autostart": False}) and home.settings().person == "Ada" and environment.OURS
