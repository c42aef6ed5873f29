"""Whether Claude Code, started here, would send its events to our server: each variable in force, who set it, and what it does.

Every rule was seen on the real client (tests/e2e/test_setup_causes.py); where the documentation says otherwise, the client is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from sp_telemetry.setup import layers
from sp_telemetry.setup.doctor import ERROR, OK, WARNING, Finding, Patient
from sp_telemetry.setup.doctor_sdk import losses
from sp_telemetry.setup.doctor_variables import NO_DATA, ON, PROTOCOLS, SETUP, mend_of, protocol_of, shown, text_of
from sp_telemetry.setup.environment import RESOURCE, person_of
from sp_telemetry.setup.layers import Layer, Value

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_ATTRIBUTES = 12
PROTOCOL_DEFAULT_SEEN = (2, 1, 330)  # sends over http/protobuf without being told; 2.1.197 sends nothing


def settings(patient: Patient) -> list[Finding]:
    seen = layers.layers(patient.environ, patient.directory, patient.managed)
    found = list(_unreadable(seen))
    force = layers.in_force(seen, patient.version)
    found += _ignored(seen, patient)
    if text_of(force, "CLAUDE_CODE_ENABLE_TELEMETRY").lower() not in ON:
        found.append(_off(force))
        return found
    patient.telemetry_on = True
    wrong = [*_exporters(force), *_logs_way(force, patient), *_diverted(force), *losses(force, seen, patient.version, patient.directory)]
    found += wrong
    if not any(finding.level == ERROR for finding in wrong):
        person = person_of(text_of(force, RESOURCE))
        what = f"Telemetry is on and goes to our server, under the name {person or '(none)'}"
        facts = {"exporters": _words(force, "OTEL_LOGS_EXPORTER"), "protocol": _known(protocol_of(force)), "person": bool(person)}
        found.append(Finding(OK, "settings", "settings", what, facts=facts))
    found += [*_attributes(force, patient), *_traces(force), *_beaten(force)]
    return found


def _unreadable(seen: list[Layer]) -> Iterator[Finding]:
    for layer in seen:
        if layer.problem:
            level = ERROR if layer.name in (layers.USER, layers.MANAGED) else WARNING
            why = "Claude Code passes over the whole file" + (": no telemetry." if level == ERROR else ".")
            what = f"{layer.place} {layer.problem}."
            yield Finding(level, "settings", "settings-unreadable", what, why, f"Mend {layer.place}", {"layer": layer.name})


def _off(force: dict[str, Value]) -> Finding:
    value = force.get("CLAUDE_CODE_ENABLE_TELEMETRY")
    why = "Claude Code sends nothing."
    if value is None:
        return Finding(ERROR, "settings", "telemetry-off", "Telemetry is not switched on.", why, SETUP)
    what = f"Telemetry is switched off: {shown('CLAUDE_CODE_ENABLE_TELEMETRY', value)}."
    mend = mend_of(value, "CLAUDE_CODE_ENABLE_TELEMETRY")
    return Finding(ERROR, "settings", "telemetry-off", what, why, mend, {"layer": value.layer.name})


def _ignored(seen: list[Layer], patient: Patient) -> Iterator[Finding]:
    for layer in seen:
        names = sorted(name for name, text in layer.env.items() if layers.is_ignored(layer, name, text, patient.version))
        if names:
            what = f"{layer.place} sets {', '.join(names)}; Claude Code ignores that since 2.1.282."
            mend = f"Remove them there; {SETUP} puts them where they count"
            why = "A repository can't switch telemetry on or aim it any more."
            yield Finding(WARNING, "settings", "project-ignored", what, why, mend, {"layer": layer.name, "variables": names})


def _exporters(force: dict[str, Value]) -> Iterator[Finding]:
    for signal, needed in (("LOGS", True), ("METRICS", False)):
        name = f"OTEL_{signal}_EXPORTER"
        if {"otlp", "other"} & set(_words(force, name)):  # of what is no exporter `losses` says more
            continue
        value = force.get(name)
        facts = {"variable": name, "layer": value.layer.name if value else "", "exporters": _words(force, name)}
        if value and value.layer.name in (layers.LOCAL, layers.PROJECT):
            what = f"This repository silences {'events' if needed else 'metrics'}: {shown(name, value)}."
            code = "repository-silences"
        else:
            what = f"{shown(name, value)}: {'events' if needed else 'metrics'} are not sent." if value else f"{name} is not set."
            code = "no-exporter"
        why = "Events carry cost and tokens: metrics may arrive, and every report is empty." if needed else "Prometheus users miss them."
        yield Finding(ERROR if needed else WARNING, "settings", code, what, why, mend_of(value, name), facts)


def _logs_way(force: dict[str, Value], patient: Patient) -> Iterator[Finding]:
    """Protocol and endpoint of the events: what a request would meet."""
    protocol, endpoint = protocol_of(force), force.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not protocol:
        what = "OTEL_EXPORTER_OTLP_PROTOCOL is not set, and only the newest versions have a default for it."
        level = WARNING if patient.version and patient.version >= PROTOCOL_DEFAULT_SEEN else ERROR
        yield Finding(level, "settings", "no-protocol", what, f"Others send nothing. {NO_DATA}", SETUP)
        protocol = "http/protobuf"
    elif protocol not in PROTOCOLS:
        value = force.get("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL") or force["OTEL_EXPORTER_OTLP_PROTOCOL"]
        what = f"{protocol!r} is not a protocol ({value.layer.place}); there are {', '.join(PROTOCOLS)}."
        yield Finding(ERROR, "settings", "unknown-protocol", what, NO_DATA, mend_of(value, "OTEL_EXPORTER_OTLP_PROTOCOL"))
        return
    if "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT" in force:
        return  # `_diverted` looks at it
    if endpoint is None:
        yield Finding(ERROR, "settings", "no-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT is not set.", NO_DATA, SETUP)
        return
    yield from _address("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, protocol, patient)


def _address(name: str, value: Value, protocol: str, patient: Patient) -> Iterator[Finding]:
    def wrong(code: str, what: str, why: str = NO_DATA, **facts: object) -> Finding:
        facts = {"variable": name, "layer": value.layer.name, **facts}
        return Finding(ERROR, "settings", code, f"{shown(name, value)}: {what}", why, mend_of(value, name), facts)

    text = value.text.strip()
    ports = (patient.home.server() or {}).get("ports") or {n: patient.settings.values[f"{n}_port"] for n in ("otlp_http", "otlp_grpc")}
    http, grpc = ports["otlp_http"], ports["otlp_grpc"]
    if "," in text:
        yield wrong("two-endpoints", "one endpoint only can be named.")
        return
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        yield wrong("bad-endpoint", "that is no address like http://127.0.0.1:4318.")
        return
    if host not in LOOPBACK:
        what = f"{shown(name, value)}: events go to {host}, not to this machine."
        why = "Our store stays empty; that may be meant."
        yield Finding(WARNING, "settings", "sent-elsewhere", what, why, mend_of(value, name), {"variable": name, "layer": value.layer.name})
        return
    if parts.scheme == "https":
        yield wrong("https", "our server speaks plain HTTP on this machine.")
    if parts.path.strip("/"):
        yield wrong("endpoint-path", "Claude Code appends /v1/logs itself, so this address must end at the port.", path=True)
    if protocol == "grpc" and port == http:
        yield wrong("wrong-port", f"port {port} is for HTTP; gRPC goes to {grpc}.", protocol=protocol, port=port)
    elif protocol != "grpc" and port == grpc:
        yield wrong("wrong-port", f"port {port} is for gRPC; {protocol} goes to {http}.", protocol=protocol, port=port)
    elif port not in (http, grpc):
        yield wrong("other-port", f"our server takes {protocol} on {grpc if protocol == 'grpc' else http}.", protocol=protocol, port=port)


def _diverted(force: dict[str, Value]) -> Iterator[Finding]:
    for signal in ("LOGS", "METRICS", "TRACES"):
        level = ERROR if signal == "LOGS" else WARNING
        name = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
        if name in force:
            value = force[name]
            path = f"/v1/{signal.lower()}"
            what = f"{shown(name, value)} wins over OTEL_EXPORTER_OTLP_ENDPOINT for {signal.lower()}."
            why = f"What answers there decides; nothing is appended to this one, so our server wants it to end in {path}. {NO_DATA}"
            facts = {"variable": name, "layer": value.layer.name, "path": urlsplit(value.text).path == path}
            yield Finding(level, "settings", "signal-endpoint", what, why, mend_of(value, name), facts)
        name, common = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", text_of(force, "OTEL_EXPORTER_OTLP_PROTOCOL")
        if name in force and force[name].text != common:
            value = force[name]
            what = f"{shown(name, value)} differs from OTEL_EXPORTER_OTLP_PROTOCOL, and the endpoint is the same."
            facts = {"variable": name, "layer": value.layer.name}
            yield Finding(level, "settings", "signal-protocol", what, NO_DATA, mend_of(value, name), facts)
    if text_of(force, "ENABLE_BETA_TRACING_DETAILED") and "BETA_TRACING_ENDPOINT" in force:
        value = force["BETA_TRACING_ENDPOINT"]
        what = f"{shown('BETA_TRACING_ENDPOINT', value)} takes events and spans away from our server."
        facts = {"variable": "BETA_TRACING_ENDPOINT", "layer": value.layer.name}
        yield Finding(ERROR, "settings", "beta-endpoint", what, NO_DATA, mend_of(value, "BETA_TRACING_ENDPOINT"), facts)


def _attributes(force: dict[str, Value], patient: Patient) -> Iterator[Finding]:
    value = force.get(RESOURCE)
    if value is None or not person_of(value.text):
        elsewhere = value is not None and any(person_of(text) for _, text in value.beaten)
        if elsewhere and value is not None:
            what = f"{value.layer.place} replaces {RESOURCE} as a whole, and with it your name."
            yield Finding(WARNING, "settings", "person-lost", what, "Sessions here are reported under a random id.",
                          f"Add enduser.id to it, or remove it from {value.layer.place}", {"layer": value.layer.name})  # fmt: skip
        else:
            what = f"{RESOURCE} names no person."
            yield Finding(WARNING, "settings", "no-person", what, "Sessions are reported under a random id.", SETUP)
        if value is None:
            return
    entries = [entry for entry in value.text.split(",") if entry.strip()]
    facts = {"entries": len(entries), "layer": value.layer.name}
    if len(entries) > MOST_ATTRIBUTES:
        what = f"{RESOURCE} has {len(entries)} entries, more than {MOST_ATTRIBUTES}."
        why = "Claude Code 2.1.161 to 2.1.191 stops sending metrics then."
        yield Finding(WARNING, "settings", "many-attributes", what, why, f"Leave the less important ones out of {value.layer.place}", facts)
    if any(sign in value.text for sign in ' "\\;') or not value.text.isascii() or any("=" not in entry for entry in entries):
        what = f"{RESOURCE} holds what has to be percent-encoded (a space is %20)."
        why = "Versions differ in what they make of it: a part, or all of it, is lost."
        yield Finding(WARNING, "settings", "attributes-not-encoded", what, why, mend_of(value, RESOURCE), facts)


def _traces(force: dict[str, Value]) -> Iterator[Finding]:
    beta = any(text_of(force, name).lower() in ON for name in ("CLAUDE_CODE_ENHANCED_TELEMETRY_BETA", "ENABLE_ENHANCED_TELEMETRY_BETA"))
    if "otlp" in _words(force, "OTEL_TRACES_EXPORTER") and not beta:
        what = "OTEL_TRACES_EXPORTER is set without CLAUDE_CODE_ENHANCED_TELEMETRY_BETA."
        yield Finding(WARNING, "settings", "traces-without-beta", what, "No spans are sent.", "sp-telemetry setup --traces")


def _beaten(force: dict[str, Value]) -> Iterator[Finding]:
    """What a person typed into their shell and what has no effect."""
    for name, value in sorted(force.items()):
        for layer, text in value.beaten:
            if layer.name == layers.SHELL and text != value.text:
                what = f"{layers.shown(name, text)} of your shell has no effect: {value.layer.name} say {layers.shown(name, value.text)}."
                mend = f"unset {name}"
                yield Finding(WARNING, "settings", "shell-beaten", what, "Settings files win over the shell.", mend, {"variable": name})


def _words(force: dict[str, Value], name: str) -> list[str]:
    return [_known(word.strip()) for word in text_of(force, name).split(",") if word.strip()]


def _known(word: str) -> str:
    """A word from a fixed list, so that nothing typed by accident is passed on."""
    return word if word in ("otlp", "console", "prometheus", "none", *PROTOCOLS) else "other"
