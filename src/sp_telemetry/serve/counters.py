"""What the pipeline counts, and how Prometheus reads it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from sp_telemetry.store.pipeline import SIGNALS

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


@dataclass
class Counters:
    """Since this server started. Requests are counted here, rows in the store (`store_figures`)."""

    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIGNALS, 0))
    records: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIGNALS, 0))
    bytes: int = 0
    stored: int = 0
    rejected: int = 0
    refused: int = 0
    latency_buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    latency_sum_s: float = 0.0

    def received(self, signal: str, size: int) -> None:
        self.requests[signal] += 1
        self.bytes += size

    def answered(self, seconds: float) -> None:
        self.latency_buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.latency_sum_s += seconds


def prometheus(counters: Counters, queued_requests: int, queued_bytes: int, journal_bytes: int, store_figures: dict[str, float]) -> str:
    """Everything in Prometheus' text format. `store_figures`: available, and while it answers events_stored, events_duplicate,
    bytes_on_disk."""
    lines: list[str] = []

    def metric(name: str, kind: str, help: str, *samples: tuple[str, float]) -> None:
        lines.extend((f"# HELP sp_telemetry_{name} {help}", f"# TYPE sp_telemetry_{name} {kind}"))
        lines.extend(f"sp_telemetry_{name}{labels} {value:{'g' if isinstance(value, float) else ''}}" for labels, value in samples)

    by_signal = [(f'{{signal="{signal}"}}', count) for signal, count in counters.requests.items()]
    metric("requests_received_total", "counter", "OTLP requests taken in", *by_signal)
    by_signal = [(f'{{signal="{signal}"}}', count) for signal, count in counters.records.items()]
    metric("records_committed_total", "counter", "log records, data points and spans in them, copies included", *by_signal)
    metric("request_bytes_received_total", "counter", "their bytes, decompressed", ("", counters.bytes))
    metric("requests_stored_total", "counter", "OTLP requests committed and acknowledged", ("", counters.stored))
    metric("requests_rejected_total", "counter", "OTLP requests that can never be stored", ("", counters.rejected))
    metric("requests_refused_total", "counter", "OTLP requests that the sender was told to retry", ("", counters.refused))
    metric("requests_queued", "gauge", "OTLP requests that wait for an insert", ("", queued_requests))
    metric("queued_bytes", "gauge", "bytes of requests not yet answered", ("", queued_bytes))
    metric("journal_bytes", "gauge", "events acknowledged, on the disk, not yet in their table", ("", journal_bytes))
    metric("store_available", "gauge", "1 while the store takes and answers", ("", store_figures["available"]))
    for name, help in (
        ("events_stored", "distinct events kept"),
        ("events_duplicate", "copies that arrived since this server started, of events that were stored already"),
        ("bytes_on_disk", "size of the store"),
    ):
        if name in store_figures:
            metric(name, "gauge", help, ("", store_figures[name]))
    total, buckets = 0, []
    for bound, count in zip([*map(str, BUCKETS_S), "+Inf"], counters.latency_buckets, strict=True):
        total += count
        buckets.append((f'_bucket{{le="{bound}"}}', total))
    buckets += [("_sum", counters.latency_sum_s), ("_count", total)]
    metric("commit_seconds", "histogram", "from taking a request in to its answer", *buckets)
    return "\n".join(lines) + "\n"
