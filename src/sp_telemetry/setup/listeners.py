"""The listeners of our server, as commands of the same machine ask them."""

from __future__ import annotations

import urllib.request
from http.client import HTTPResponse


def ask(request: str | urllib.request.Request, timeout_s: float) -> HTTPResponse:
    """What answers there. Never through a proxy that the environment names: to a proxy 127.0.0.1 is another machine. Raises OSError, and
    HTTPError (which is one) for a status that is no success."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_s)
