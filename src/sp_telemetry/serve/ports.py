"""Why a port can't be had: who holds it, as far as this machine tells, or what the system says."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

LISTEN = "0A"


def refusal(bind: str, port: int) -> OSError | None:
    """What keeps a server from listening there: another one (EADDRINUSE), a port that takes more rights, an address of no interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            return error
    return None


def is_taken(error: OSError) -> bool:
    """Whether `error`, of who could not listen, means that another program does."""
    return error.errno == errno.EADDRINUSE


def sentence(error: OSError, bind: str, port: int, listener: str = "") -> str:
    """`error`, of who could not listen there, for a person."""
    if error.errno is None:  # the asyncio of Python 3.13 keeps to itself why no address would do
        error = refusal(bind, port) or error
    of = f" ({listener})" if listener else ""
    if is_taken(error):
        return f"Port {port}{of} is in use by {holder(port)}."
    why = (error.strerror or str(error)).rpartition(": ")[2].lower()  # asyncio puts the address before it
    return f"Nothing can listen on {bind}, port {port}{of}: {why}."


def holder(port: int) -> str:
    """The process that listens on `port`, as `otelcol (pid 123)`; 'another process' where that can't be seen."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in sockets for link in (process / "fd").iterdir()):
                # Not `comm`: that is the name of its first thread, and libraries change it, the engine's too.
                return f"{(process / 'exe').readlink().name} (pid {process.name})"
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return "another process"


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("utf-8").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes
