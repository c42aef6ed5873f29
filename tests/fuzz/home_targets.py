"""Files of an installation: settings, rules of its own, what Compose is told, notes that it makes for itself."""

from __future__ import annotations

import tomllib

from sp_telemetry import settings
from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home
from sp_telemetry.privacy import own
from sp_telemetry.privacy.backtracking import LONGEST, stalls
from sp_telemetry.setup import claude_settings, configuration, env_file
from tests.conftest import ROOT
from tests.fuzz.hooks_targets import names, places
from tests.fuzz.targets import either, folder, pieces, target, text_of

TEMPLATE = (ROOT / "telemetry-server" / ".env.template").read_text()


@target
def installation_settings(data: bytes) -> None:
    """config.toml and the environment: UsageError that says where, or each setting of its own kind and choices. Of what can be read, the
    hooks read the same or nothing."""
    written, environment = pieces(data, 2)
    named = (line.partition("=") for line in text_of(environment).split("\n"))
    environ = {f"SP_TELEMETRY_{name}": value for name, _, value in named}
    home = folder("settings", {"config.toml": written})
    hooks = places.Settings(str(home), environ)
    ports = {name: hooks.port(name) for name in places.DEFAULT_PORTS}
    read = either(lambda: settings.Settings.load(home, environ), UsageError)
    if isinstance(read, UsageError):
        assert str(read)
        return
    for setting in settings.SETTINGS:
        value = read.values[setting.name]
        assert type(value) is type(setting.default) and (not setting.choices or value in setting.choices)
    whole = tomllib.loads((home / "config.toml").read_text("utf-8")) if written else {}
    held = [whole.get(setting.name) for setting in settings.SETTINGS if not environ.get(setting.variable)]
    assert not any(isinstance(value, dict | list) and value for value in held)
    if any(isinstance(value, dict | list) for value in whole.values()) or b"'''" in written or b'"""' in written:
        return  # hooks look at lines
    for name in ("person", "backend", "timezone"):
        assert hooks.text(name) in (read.values[name], ""), name
    for name in ("autostart", "session_line"):
        assert hooks.on(name) in (read.values[name], True), name
    assert hooks.chosen("backfill") in (read.backfill, False)
    for name, port in ports.items():
        assert port in (read.values[name + "_port"], places.DEFAULT_PORTS[name])


@target
def settings_written(data: bytes) -> None:
    """What set-up writes into a config.toml that can be read is in it, and nothing else has changed; or UsageError, before it writes."""
    text = text_of(data).replace("\r\n", "\n")  # as a file is read
    before = either(lambda: tomllib.loads(text), ValueError, RecursionError)
    if isinstance(before, Exception):
        return
    wanted = {"person": 'é"\\\n\x7f', "otlp_http_port": 4318, "autostart": False}
    after = either(lambda: configuration.changed(text, wanted), UsageError)
    assert isinstance(after, UsageError) or tomllib.loads(after) == before | wanted, after


@target
def privacy_rules(data: bytes) -> None:
    """privacy.toml without an engine: UsageError that says what to do, or rules that a level can be given; the hooks read what they can."""
    file = folder("rules", {own.NAME: data}) / own.NAME
    for name, _, _, regex, new, _ in names._own(places.read(file)):
        assert all(isinstance(each, str) for each in (name, regex, new))
    read = either(lambda: own.read(file), UsageError)
    if isinstance(read, UsageError):
        assert str(file) in str(read) and read.hint
        return
    for level in own.LEVELS:
        made = either(lambda level=level: read.policy(level), UsageError)
        assert isinstance(made, own.Policy) or made.hint
    for pattern in read.patterns[:2]:
        assert len(stalls(pattern.regex)) <= LONGEST


@target
def compose_env(data: bytes) -> None:
    """Any .env that is there: what it says and what set-up says stands in the new one, and is read back as it was; or UsageError."""
    present = text_of(data)
    mine = {"TELEMETRY_SECRETS": "/a b/$c", "OTLP_HTTP_PORT": "4318"}
    made = either(lambda: env_file.merged(TEMPLATE, present, mine), UsageError)
    if isinstance(made, UsageError):
        return
    shipped, kept, read = env_file.values(TEMPLATE), env_file.values(present), env_file.values(made)
    fixed = {name for name in shipped if name.endswith(("_IMAGE", "_DIGEST"))}
    assert read == shipped | {name: value for name, value in kept.items() if name not in fixed} | mine | {
        name: read[name] for name in fixed
    }, made


@target
def damaged_notes(data: bytes) -> None:
    """A file of our own that a disk or somebody spoilt is as none: server.json, and the note of what set-up changed."""
    home = Home(folder("notes", {"server.json": data, "backups/claude-settings.note": data}))
    assert isinstance(home.server() or {}, dict)
    note = claude_settings.note(home)
    assert note is None or isinstance(note.variables, dict)
