"""Keeps web pages away from what listens on loopback.

A page in the person's browser can send requests to 127.0.0.1, and by DNS rebinding even under a name of its own. Such requests give
themselves away: by a `Host` that is not ours, by an `Origin` that is not ours, by `Sec-Fetch-Site`. Programs send none of these.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HOST = re.compile(r"(?:\[([0-9a-f:.%]+)\]|([a-z0-9._-]+))(?::[0-9]{0,5})?")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def guard(bound: Iterable[str] = ()) -> Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]:
    """The middleware. `bound` are the addresses, beside loopback, under which the listener may be called."""
    names = LOOPBACK | set(bound) - {"0.0.0.0"}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = reason_to_refuse(request, names)
        if refusal:
            response = web.Response(status=403, text=refusal + "\n")
            response.force_close()  # its body, if it has one, is not read
            return response
        return await handler(request)

    return check


def reason_to_refuse(request: web.BaseRequest, names: frozenset[str]) -> str:
    """Why a request is not from a program of this machine's owner, or an empty text."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or host_name(hosts[0]) not in names:
        return "Refused: this listener answers to localhost, 127.0.0.1 and [::1] only."
    if "Upgrade" in request.headers:
        return "Refused: nothing is spoken here but plain HTTP."
    own = f"{request.scheme}://{hosts[0]}".lower()
    foreign = any(origin.lower() != own for origin in request.headers.getall("Origin", []))
    if foreign or any(site not in ("none", "same-origin") for site in request.headers.getall("Sec-Fetch-Site", [])):
        return "Refused: requests from web pages are not answered."
    return ""


def host_name(host: str) -> str:
    """The name in a `Host` header, without port and brackets; empty when it is malformed."""
    found = _HOST.fullmatch(host.lower())
    return (found[1] or found[2]) if found else ""
