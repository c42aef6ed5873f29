"""Whose program is at the other end of a connection from this machine.

A loopback port is open to every user of the machine, and Claude Code sends its telemetry without credentials. But the kernel knows
which user made a socket, and tells (Linux: sock_diag, else /proc/net/tcp). So other users are refused, with nothing to set up.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

Address = tuple[str, int]
GONE = -1  # the socket is closed already, so nobody can say whose it was
_DIAG, _REQUEST, _BY_FAMILY, _ERROR = 4, 1, 20, 2  # NETLINK_SOCK_DIAG, NLM_F_REQUEST, SOCK_DIAG_BY_FAMILY, NLMSG_ERROR
_HEADER = struct.Struct("=LHHLL")
_ID = struct.Struct("!HH16s16s")  # ports and addresses of both ends; then interface and cookie
_ANY = struct.pack("=LLL", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_MESSAGE = struct.Struct("=BBBB48sLLLLL")  # family, state, timer, retransmits, id, expires, queues, uid, inode


def stranger(peer: Address, own: Address) -> bool:
    """Whether the end `peer` of a connection with our `own` belongs to another user of this machine, not counting root.

    What comes from another machine is none: who binds more than loopback means that. So is all where the system does not tell.
    """
    if peer[0] != own[0] and not peer[0].startswith("127."):
        return False
    user = owner(peer, own)
    return user is not None and user not in (0, os.geteuid())


def owner(peer: Address, own: Address) -> int | None:
    """The user id behind `peer`, GONE, or None where the system does not tell. IPv4 only: that is what is listened on."""
    for ask in (_by_netlink, _by_proc):
        try:
            return ask(peer, own)
        except OSError:
            continue
    return None


def _by_netlink(peer: Address, own: Address) -> int:
    ends = _ID.pack(peer[1], own[1], socket.inet_aton(peer[0]), socket.inet_aton(own[0])) + _ANY
    body = struct.pack("=BBBBL", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + ends
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _DIAG) as kernel:
        kernel.settimeout(1)
        kernel.send(_HEADER.pack(_HEADER.size + len(body), _BY_FAMILY, _REQUEST, 0, 0) + body)
        answer = kernel.recv(4096)
    kind = _HEADER.unpack_from(answer)[1]
    if kind == _ERROR:
        code = -struct.unpack_from("=l", answer, _HEADER.size)[0]
        if code == 2 and _works():  # ENOENT: no such socket, or no such facility
            return GONE
        raise OSError(code, "sock_diag")
    *_, user, inode = _MESSAGE.unpack_from(answer, _HEADER.size)
    return user if inode else GONE


def _works() -> bool:
    """Whether sock_diag finds a socket that is surely there."""
    global _found
    if _found is None:
        _found = False  # asked only once: what follows comes here again where it does not work
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as made:
            try:
                _found = _by_netlink(made.getsockname(), made.getpeername()) == os.geteuid()
            except OSError:
                _found = False
    return _found


_found: bool | None = None


def _by_proc(peer: Address, own: Address) -> int:
    wanted = " ".join(f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}" for host, port in (peer, own)).encode()
    for line in Path("/proc/net/tcp").read_bytes().splitlines():
        if wanted in line:
            fields = line.split()
            return int(fields[7]) if fields[9] != b"0" else GONE
    return GONE
