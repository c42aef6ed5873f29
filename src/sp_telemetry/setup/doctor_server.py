"""The server, its ports, the room it has."""

from __future__ import annotations

import time

from sp_telemetry.errors import ServerUnreachable
from sp_telemetry.serve import ports
from sp_telemetry.setup import doctor_collector, listeners, service
from sp_telemetry.setup.doctor import ERROR, OK, WARNING, Finding, Patient
from sp_telemetry.setup.uninstall import size
from sp_telemetry.store import room

DISK_LOW, DISK_OUT = 2 << 30, 256 << 20


def server(patient: Patient) -> list[Finding]:
    home, settings = patient.home, patient.settings
    patient.endpoint_port = settings.otlp_http_port
    if not (home.path / "config.toml").exists() and not service.is_up(home):
        what = f"Nothing is set up in {home.path}."
        return [Finding(ERROR, "server", "not-set-up", what, "Claude Code's events go nowhere.", "sp-telemetry setup"), *_held(patient)]
    try:
        running = service.running(home)
    except ServerUnreachable as error:
        why = "Events sent now are lost, but for what the transcripts keep."
        return [Finding(ERROR, "server", "server-silent", str(error), why, "sp-telemetry restart")]
    if running is None:
        held = _held(patient)
        why = "Claude Code throws away what it can't send; only its transcripts still have it."
        mend = "" if held else "sp-telemetry up"
        if not settings.autostart:
            why += " autostart is off, so no session starts the server."
        return [Finding(ERROR, "server", "server-down", "The server does not run.", why, mend, {"autostart": settings.autostart}), *held]
    patient.server_runs = running.health.get("status") == "Server available"
    patient.endpoint_port = running.ports["otlp_http"]
    if not patient.server_runs:
        what = f"The server ({running.who}) can't store: {running.health.get('reason', '')}"
        mend = running.health.get("mend", "sp-telemetry restart")
        return [Finding(ERROR, "server", "store-unavailable", what, "Nothing is stored.", mend, {})]
    hours = (time.time() - running.started_at) / 3600
    address = f"{running.bind}:{patient.endpoint_port}"
    what = f"The server runs: {running.who}, for {hours:.1f} h, OTLP on {address}"
    facts = {"version": running.version, "hours": round(hours, 1), "ports": running.ports}
    composed = running.backend == service.COMPOSE
    queue = doctor_collector.queue(doctor_collector.figures(running.address, running.ports["metrics"])) if composed else []
    found = [Finding(OK, "server", "server", what, facts=facts), *queue]
    if running.is_outdated:
        what = "The server runs an older version of sp-telemetry than this command, and has its store in that version's shape."
        why = "Reports may ask for what is not there, and what was mended since is not."
        found.append(Finding(WARNING, "server", "server-outdated", what, why, "sp-telemetry up", {"version": running.version}))
    moved = [name for name in listeners.OF_BACKEND[running.backend] if settings.values[f"{name}_port"] not in (0, running.ports[name])]
    if moved:
        what = f"The server listens on other ports than the settings say: {', '.join(moved)}."
        why = "The next start changes them."
        found.append(Finding(WARNING, "server", "ports-moved", what, why, "sp-telemetry restart", {"ports": moved}))
    if not running.bind.startswith("127."):
        what = f"The server listens on {running.bind}: other machines reach it."
        mend = "Remove `bind` from config.toml, then sp-telemetry restart"
        found.append(Finding(WARNING, "server", "not-loopback", what, "OTLP has no password.", mend))
    return found


def _held(patient: Patient) -> list[Finding]:
    """Ports that our server, which does not run, could not have: somebody else's mostly."""
    found = []
    for name in listeners.OF_BACKEND[patient.settings.backend]:
        port = patient.settings.values[f"{name}_port"]
        error = ports.refusal(patient.settings.bind, port) if port else None
        if not error:
            continue
        code, why, first = "port-refused", "Our server can't start.", "Mend the setting bind"
        if ports.is_taken(error):
            code, first = "port-held", "End that program"
            if name.startswith("otlp"):
                why += " What Claude Code sends there is answered by that program: telemetry on, 200 OK, no data."
        what, mend = ports.sentence(error, patient.settings.bind, port, name), f"{first}, or: {listeners.elsewhere(name, port)}"
        found.append(Finding(ERROR, "server", code, what, why, mend, {"port": port, "listener": name}))
    return found


def disk(patient: Patient) -> list[Finding]:
    home = patient.home.path
    if not home.is_dir() or patient.settings.backend == service.COMPOSE:  # whose disk is Docker's
        return []
    stored, free = sum(size(home / name) for name in ("store", "engine")), room.free_bytes(home)
    facts = {"store_bytes": stored, "free_bytes": free}
    what = f"The store takes {stored / 1e6:,.1f} MB; {free / 1e9:,.1f} GB are free"
    if free >= DISK_LOW:
        return [Finding(OK, "disk", "disk", what, facts=facts)]
    level, why = (ERROR, "The store can't grow: events are refused.") if free < DISK_OUT else (WARNING, "The store soon can't grow.")
    mend = "Make room, or shorten retention_events_days in config.toml and sp-telemetry restart"
    return [Finding(level, "disk", "disk-low", what + ".", why, mend, facts)]
