"""The listeners of our server: what they are called, how another port is chosen for one, how this machine's commands ask them."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse

_EMBEDDED = ("otlp_http", "otlp_grpc", "clickhouse", "health", "metrics")
#: backend -> its listeners; the port of each is the setting of its name and `_port`
OF_BACKEND = {"embedded": _EMBEDDED, "compose": (*_EMBEDDED, "clickhouse_native", "prometheus")}
ALL = OF_BACKEND["compose"]


def elsewhere(listener: str, port: int) -> str:
    """The command that gives it another port than `port`."""
    return f"sp-telemetry setup --port {listener}={10000 + port % 50000}"


def ask(request: str | urllib.request.Request, timeout_s: float) -> HTTPResponse:
    """What answers there. Never through a proxy that the environment names: to a proxy 127.0.0.1 is another machine. Raises OSError, and
    HTTPError (which is one) for a status that is no success."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_s)
