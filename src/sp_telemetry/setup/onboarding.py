"""What a set-up finds and would change. Nothing here changes anything; `installation.py` does."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sp_telemetry.errors import ServerUnreachable, SpTelemetryError, StoreBusy, UsageError
from sp_telemetry.home import Home
from sp_telemetry.serve import ports
from sp_telemetry.settings import Settings
from sp_telemetry.setup import bare_names, claude_settings, client_versions, compose, identity, layers, listeners, service
from sp_telemetry.setup.environment import DIVERTING, RESOURCE, person_of, variables, with_person

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True)
class Options:
    """What was asked for. None: as it is."""

    person: str | None = None
    autostart: bool | None = None
    console: bool | None = None
    prometheus: bool | None = None
    traces: bool | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    force: bool = False
    #: put the commands' bare names into the user's commands folder; None leaves there what a set-up put there
    bare_names: bool | None = None
    #: consent to fill in from Claude Code's transcripts what telemetry missed, at the start of a session
    backfill: bool | None = None
    #: how much is kept: strict, standard, full
    privacy: str | None = None
    #: who serves: embedded, compose
    backend: str | None = None


@dataclass(frozen=True)
class Check:
    """One thing looked at first. An error keeps the set-up from going on; `hint` mends it."""

    level: str
    name: str
    what: str
    hint: str = ""


@dataclass(frozen=True)
class Change:
    """A variable of the user settings: from `before` to `after`, None for not there. `theirs`: somebody else set `before`."""

    variable: str
    before: str | None
    after: str | None
    theirs: bool = False


@dataclass(frozen=True)
class Plan:
    """Everything a person has to see before they agree."""

    home: str
    settings_file: str
    endpoint: str
    person: str
    offered: list[str]
    checks: list[Check]
    changes: list[Change]
    config: dict[str, Any]
    bare_names: list[bare_names.BareName] = field(default_factory=list)
    put_bare_names: bool | None = None
    backend: str = service.EMBEDDED

    @property
    def conflicts(self) -> list[Change]:
        return [change for change in self.changes if change.theirs]

    @property
    def errors(self) -> list[Check]:
        return [check for check in self.checks if check.level == ERROR]

    def as_dict(self) -> dict[str, Any]:
        shown = asdict(self)
        for change in shown["changes"]:
            for name in ("before", "after"):
                change[name] = change[name] and layers.without_credentials(change[name])
        named = [asdict(one) | {"what": one.what} for one in self.bare_names]
        return shown | {"bare_names": named, "conflicts": [change.variable for change in self.conflicts]}

    @property
    def taken(self) -> list[bare_names.BareName]:
        """The bare names that another plugin has: what a file in the user's commands folder would give back."""
        return [one for one in self.bare_names if one.state == bare_names.TAKEN]


def plan(home: Home, environ: Mapping[str, str], cwd: Path, options: Options, managed: tuple[Path, ...] | None = None) -> Plan:
    """Look at everything. Raises UsageError for what makes a plan impossible (a broken settings file, a name that can't be kept)."""
    for name, port in options.ports.items():
        if name not in listeners.ALL or not 0 < port < 65536:
            raise UsageError(f"--port is {name}={port}; expected {'|'.join(listeners.ALL)}=1…65535.")
    asked = {f"SP_TELEMETRY_{name.upper()}_PORT": str(port) for name, port in options.ports.items()}
    if options.backend:
        asked["SP_TELEMETRY_BACKEND"] = options.backend
    settings = Settings.load(home.path, {**environ, **asked})
    if not settings.otlp_http_port:
        raise UsageError("otlp_http_port is 0, any free port; Claude Code's settings have to name one.", "`--port otlp_http=4318` sets it.")
    path = claude_settings.locate(environ)
    file = claude_settings.read(path)
    made = claude_settings.note(home)
    ours = {name: pair[1] for name, pair in made.variables.items()} if made and made.file == str(path) else {}

    known = settings.person or identity.keepable(person_of(file.env.get(RESOURCE, "")))
    offered = list(dict.fromkeys(filter(None, (known, *identity.offered(environ, str(cwd))))))
    person = identity.checked(options.person) if options.person is not None else next(iter(offered), "")
    endpoint = f"http://127.0.0.1:{settings.otlp_http_port}"
    wanted = _wanted(file.env, ours, endpoint, person, options)
    changes = _changes(file.env, wanted, ours)

    config: dict[str, Any] = {"person": person}
    if options.autostart is not None and options.autostart != settings.autostart:
        config["autostart"] = options.autostart
    if options.privacy is not None and options.privacy != settings.privacy_level:
        config["privacy_level"] = options.privacy
    if options.backfill is not None and options.backfill != settings.backfill:
        config["backfill"] = options.backfill
    if settings.backend != service.backend(home, {}):
        config["backend"] = settings.backend
    for name in listeners.OF_BACKEND[settings.backend]:
        key = f"{name}_port"
        if settings.origins[key].startswith("SP_TELEMETRY_") and settings.values[key]:
            config[key] = settings.values[key]  # so that a server which a hook starts listens there too

    client = client_versions.installed(environ)
    checks = [_server(settings.backend), _client(client), *_ports(home, settings), *_winners(environ, cwd, client, wanted, managed)]
    if not person:
        checks.append(Check(ERROR, "person", "No name to report under was found.", "`--person NAME` names one."))
    names = bare_names.look(home, environ, layers.layers(environ, cwd, managed))
    return Plan(str(home.path), str(path), endpoint, person, offered, checks, changes, config, names, options.bare_names, settings.backend)


def _wanted(env: Mapping[str, str], ours: Mapping[str, str | None], endpoint: str, person: str, options: Options) -> dict[str, str | None]:
    traces = options.traces if options.traces is not None else "otlp" in env.get("OTEL_TRACES_EXPORTER", "")
    wanted: dict[str, str | None] = dict(variables(endpoint, traces=traces))
    for name in ("METRICS", "LOGS", "TRACES") if traces else ("METRICS", "LOGS"):
        variable = f"OTEL_{name}_EXPORTER"
        switches = {"console": options.console} | ({"prometheus": options.prometheus} if name == "METRICS" else {})
        wanted[variable] = _exporters(env.get(variable, ""), switches)
    if env.get("CLAUDE_CODE_ENABLE_TELEMETRY", "").lower() == "true":
        del wanted["CLAUDE_CODE_ENABLE_TELEMETRY"]
    if person:
        wanted[RESOURCE] = with_person(env.get(RESOURCE, ""), person)
    if options.traces is False:
        wanted |= {name: None for name in ("CLAUDE_CODE_ENHANCED_TELEMETRY_BETA", "OTEL_TRACES_EXPORTER") if ours.get(name) is not None}
    return wanted | {name: None for name in DIVERTING if name in env}


def _exporters(present: str, switches: Mapping[str, bool | None]) -> str:
    """Where a signal goes: to us, beside where it goes already."""
    names = [name.strip() for name in present.split(",") if name.strip() not in ("", "none")]
    if "otlp" not in names:
        names.insert(0, "otlp")
    for name, on in switches.items():
        if on and name not in names:
            names.append(name)
        elif on is False and name in names:
            names.remove(name)
    return ",".join(names)


def _changes(env: Mapping[str, str], wanted: Mapping[str, str | None], ours: Mapping[str, str | None]) -> list[Change]:
    changes = []
    for name, after in wanted.items():
        before = env.get(name)
        if before == after:
            continue
        theirs = before not in (None, "") and before != ours.get(name)
        if name == RESOURCE:
            theirs = theirs and person_of(before or "") not in ("", person_of(after or ""), person_of(ours.get(name) or ""))
        elif name.endswith("_EXPORTER") and after and before != "none":
            theirs = False  # ours stands beside theirs
        changes.append(Change(name, before, after, theirs))
    return changes


def _server(backend: str) -> Check:
    """Whether what is to serve can run here."""
    if backend == service.COMPOSE:
        try:
            return Check(OK, "docker", compose.version())
        except SpTelemetryError as error:
            return Check(ERROR, "docker", str(error), error.hint)
    version = ".".join(map(str, sys.version_info[:3]))
    try:
        service.need_engine()
    except UsageError as error:
        return Check(ERROR, "platform", str(error), error.hint)
    return Check(OK, "python", f"Python {version} on {sys.platform}")


def _client(client: client_versions.Client | None) -> Check:
    if client is None:
        hint = "Install Claude Code, or go on if it is elsewhere."
        return Check(WARNING, "claude", "No `claude` on PATH; its version can't be checked.", hint)
    return Check(OK, "claude", f"Claude Code {'.'.join(map(str, client.version)) or 'of an unknown version'} at {client.path}")


def _ports(home: Home, settings: Settings) -> list[Check]:
    try:
        server = service.settled(home)
    except ServerUnreachable as error:
        return [Check(ERROR, "server", str(error), error.hint)]
    held = set(server.ports.values()) if server else set()
    checks = []
    whose: dict[int, str] = {}
    names = listeners.OF_BACKEND[settings.backend]
    for name in names:
        port = settings.values[f"{name}_port"]
        other = listeners.elsewhere(name, port)
        if port and port in whose:
            checks.append(Check(ERROR, "port", f"Port {port} is to be {whose[port]}'s and {name}'s.", f"Take another port: `{other}`."))
            continue
        whose[port] = name
        error = ports.refusal(settings.bind, port) if port and port not in held else None
        if error:
            taken = f"End that program, or take another port: `{other}`."
            hint = taken if ports.is_taken(error) else f"Take another port, `{other}`, or mend the setting bind."
            checks.append(Check(ERROR, "port", ports.sentence(error, settings.bind, port, name), hint))
    if not checks:
        numbers = ", ".join(f"{name} {settings.values[f'{name}_port']}" for name in names)
        checks = [Check(OK, "ports", f"The server runs already: {numbers}" if server else f"Free on {settings.bind}: {numbers}")]
    return checks


def _winners(
    environ: Mapping[str, str],
    cwd: Path,
    client: client_versions.Client | None,
    wanted: Mapping[str, str | None],
    managed: tuple[Path, ...] | None,
) -> list[Check]:
    """Who beats the user settings, and whom they beat."""
    wanted = {**wanted, **dict.fromkeys(DIVERTING)}
    version = client.version if client and client.version else None
    checks = []
    ruled: set[str] = set()  # by a managed file that wins over the next
    for layer in layers.layers(environ, cwd, managed):
        if layer.problem:
            checks.append(Check(WARNING, "settings", f"{layer.place} {layer.problem}.", "Mend that file; what it says is not known."))
        for name, value in layer.env.items():
            if not layers.is_telemetry(name) or layer.name == layers.USER or name in ruled:
                continue
            if layer.name == layers.MANAGED:
                ruled.add(name)
            shown = layers.shown(name, value)
            after = wanted.get(name, value) if name not in DIVERTING else None
            if layers.is_ignored(layer, name, value, version):
                what = f"{layer.place} sets {name}; Claude Code ignores it there since 2.1.282."
                checks.append(Check(OK, "settings", what))
            elif value == after:
                continue
            elif layer.name == layers.MANAGED:
                what = f"Managed settings force {shown} ({layer.place})."
                checks.append(Check(ERROR, "settings", what, "Only your administrator can change that."))
            elif layer.name == layers.SHELL and name in wanted and name not in DIVERTING:
                checks.append(Check(WARNING, "settings", f"Your shell sets {shown}; the user settings will win over it."))
            elif layer.name == layers.SHELL and name in DIVERTING:
                what = f"Your shell sets {shown}, which sends that signal elsewhere."
                checks.append(Check(WARNING, "settings", what, f"`unset {name}`"))
            elif name in wanted and layer.name in (layers.LOCAL, layers.PROJECT):
                what = f"{layer.place} sets {shown} and wins there."
                checks.append(Check(WARNING, "settings", what, "Remove it, or leave that repository silent."))
    return checks


def refuse(made: Plan, force: bool) -> None:
    """Raise for what a set-up without a person to ask must not do."""
    if made.errors and not (force and all(check.name == "settings" for check in made.errors)):
        first = made.errors[0]
        raise (StoreBusy if first.name == "port" else SpTelemetryError)(first.what, first.hint)
    if made.conflicts and not force:
        names = ", ".join(change.variable for change in made.conflicts)
        hint = "`--force` replaces them; `sp-telemetry uninstall` brings them back."
        raise UsageError(f"{made.settings_file} sets {names} already, and not from here.", hint)
