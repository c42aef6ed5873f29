"""The collector's queue: what waits on disk for a store that is away or slow, by the collector's own figures."""

from __future__ import annotations

import re

from sp_telemetry.setup import listeners
from sp_telemetry.setup.doctor import ERROR, OK, WARNING, Finding

_SAMPLE = re.compile(r"^otelcol_(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
FILLING, NOTABLE = 0.5, 0.05  # shares of a queue


def figures(address: str, port: int) -> dict[str, float]:
    """What it says on its metrics port; nothing where it does not answer.

    queue_bytes and queue_capacity_bytes are of all queues for the store together (logs, metrics and traces have one each), queue_share
    is of the fullest queue, one for a second endpoint included; refused and failed are records since its start: those whose
    sender was told to come again, and those that were taken and then given up.
    """
    try:
        with listeners.ask(f"http://{address}:{port}/metrics", 5) as answer:
            text = answer.read().decode()
    except (OSError, ValueError):
        return {}
    samples = [(name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in _SAMPLE.findall(text)]

    def queues(what: str) -> dict[tuple[str, str], float]:
        return {(said["exporter"], said["data_type"]): value for name, said, value in samples if name == what}

    def total(begin: str) -> float:
        return sum(value for name, _, value in samples if name.startswith(begin))

    sizes, capacities = queues("exporter_queue_size"), queues("exporter_queue_capacity")
    shares = [size / capacities[queue] for queue, size in sizes.items() if capacities.get(queue)]
    return {
        "queue_bytes": sum(value for (exporter, _), value in sizes.items() if exporter == "clickhouse"),
        "queue_capacity_bytes": sum(value for (exporter, _), value in capacities.items() if exporter == "clickhouse"),
        "queue_share": round(max(shares, default=0.0), 4),
        "refused": total("receiver_refused_"),
        "failed": total("exporter_send_failed_"),
    }


def queue(said: dict[str, float]) -> list[Finding]:
    """What `figures` means for who reads it."""
    if not said:
        what = "The collector does not tell its figures."
        return [Finding(WARNING, "server", "queue-unknown", what, "How much waits for the store is unknown.", "sp-telemetry logs")]
    what = f"{said['queue_bytes'] / 1e6:,.1f} MB wait for the store; the fullest queue is {said['queue_share']:.0%} full"
    if said["queue_share"] > FILLING:
        why = "When it is full, Claude Code is told to try again, and throws away what it can't send for long."
        return [Finding(ERROR, "server", "queue-filling", f"{what}.", why, "sp-telemetry logs", said)]
    if said["queue_share"] > NOTABLE or said["failed"]:
        what += f"; {said['failed']:,.0f} records could not be kept" if said["failed"] else ""
        why = "The store is away or slow; what waits is delivered when it answers."
        return [Finding(WARNING, "server", "queue-waits", f"{what}.", why, "sp-telemetry logs", said)]
    return [Finding(OK, "server", "queue", what, facts=said)]
