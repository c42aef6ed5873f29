"""Who holds a port, as far as this machine tells."""

from __future__ import annotations

from pathlib import Path

LISTEN = "0A"


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
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes
