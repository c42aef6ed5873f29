"""`sp-telemetry status`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

from sp_telemetry.errors import QueryFailed, ServerUnreachable
from sp_telemetry.home import Home
from sp_telemetry.setup import doctor_collector, listeners, policy, service
from sp_telemetry.store.client import connect

HELP = "Who serves this home, since when, on which ports, and how much is stored, doubled, rejected and queued."
EPILOG = """\
examples:
  sp-telemetry status
  sp-telemetry status --json

exit code 3 when no server runs, 5 when its store takes or answers nothing now, or does not follow a changed privacy policy yet.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")


def run(args: argparse.Namespace) -> int:
    home = Home.open()
    server = service.running(home)
    if server is None:
        if args.json:
            print(json.dumps({"running": False, "home": str(home.path)}))
            return ServerUnreachable.exit_code
        raise ServerUnreachable(f"No server runs for {home.path}.", "`sp-telemetry up` starts it.")
    state = {
        "running": True,
        "home": str(home.path),
        "backend": server.backend,
        "pid": server.pid,
        "version": server.version,
        "started_at": server.started_at,
        "bind": server.bind,
        "ports": server.ports,
        "health": server.health["status"],
        **{name: server.health[name] for name in ("reason", "mend", "notice") if name in server.health},
        **(_metrics(server) if server.backend == service.EMBEDDED else _collected(server, home)),
        "privacy": policy.in_force(home),
    }
    print(json.dumps(state) if args.json else _text(state, server.who))
    return QueryFailed.exit_code if "reason" in state else 0


def _metrics(server: service.Running) -> dict[str, float]:
    """The figures of the metrics listener that a person asks for, by name. Those of a store that does not answer are left out."""
    with listeners.ask(f"http://{server.address}:{server.ports['metrics']}/metrics", 30) as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.removeprefix("sp_telemetry_").rsplit(" ", 1) for line in lines if not line.startswith("#"))
    names = "events_stored events_duplicate bytes_on_disk requests_rejected_total requests_refused_total requests_queued"
    return {name: float(values[name]) for name in names.split() if name in values}


def _collected(server: service.Running, home: Home) -> dict[str, float]:
    """The same of a collector, and of a store that is asked in SQL."""
    figures = doctor_collector.figures(server.address, server.ports["metrics"])
    try:
        return figures | connect(home, home.settings()).query(
            "SELECT (SELECT count() FROM telemetry.telemetry_events FINAL) AS events_stored,"
            " (SELECT sum(total_bytes) FROM system.tables WHERE database = 'telemetry') AS bytes_on_disk"
        ).records()[0]
    except (QueryFailed, ServerUnreachable):
        return figures


def _text(state: dict, who: str) -> str:
    hours, rest = divmod(int(time.time() - state["started_at"]), 3600)
    ports = "  ".join(f"{name} {port}" for name, port in sorted(state["ports"].items()))
    stored = "unknown"
    if "events_stored" in state:
        twice = f", {state['events_duplicate']:,.0f} arrived more than once" if "events_duplicate" in state else ""
        stored = f"{state['events_stored']:,.0f} stored{twice}"
    trouble = (f"trouble   {state['reason']} {state['mend']}.",) if "reason" in state else ()
    notice = (f"notice    {state['notice']}",) if "notice" in state else ()
    return "\n".join(
        (
            f"server    {state['health']}: {who}, up {hours} h {rest // 60} min",
            *trouble,
            *notice,
            f"home      {state['home']}",
            f"ports     {ports}  (on {state['bind']})",
            f"events    {stored}",
            f"privacy   {policy.describe(state['privacy'])}" if state["privacy"] else "privacy   unknown",
            *_waiting(state),
            f"disk      {state['bytes_on_disk'] / 1e6:,.1f} MB" if "bytes_on_disk" in state else "disk      unknown",
        )
    )


def _waiting(state: dict) -> Iterator[str]:
    if "requests_queued" in state:
        yield (
            f"requests  {state['requests_queued']:.0f} queued, {state['requests_rejected_total']:.0f} rejected, "
            f"{state['requests_refused_total']:.0f} told to retry"
        )
    if "queue_bytes" in state:
        yield (
            f"queue     {state['queue_bytes'] / 1e6:,.1f} MB wait for the store, the fullest queue is {state['queue_share']:.0%} full; "
            f"{state['refused']:,.0f} records told to retry, {state['failed']:,.0f} given up"
        )
