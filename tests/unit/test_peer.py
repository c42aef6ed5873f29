"""Whose socket is at the other end: asked of the kernel in two ways, which agree."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from sp_telemetry.serve import peer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            yield client, server


@pytest.mark.parametrize("ask", [peer._by_netlink, peer._by_proc, peer.owner])
def test_the_owner_of_a_connection(ask, ends) -> None:
    client, server = ends
    theirs, own = server.getpeername(), server.getsockname()
    assert ask(theirs, own) == ask(own, theirs) == os.geteuid()
    client.shutdown(socket.SHUT_WR)  # done sending, still there to be answered
    assert ask(theirs, own) == os.geteuid()
    client.close()
    assert ask(theirs, own) == peer.GONE
    assert ask(("127.0.0.1", 1), own) == peer.GONE


def test_who_is_a_stranger(ends, monkeypatch) -> None:
    client, server = ends
    theirs, own = server.getpeername(), server.getsockname()
    assert not peer.stranger(theirs, own)
    assert not peer.stranger(("198.51.100.2", 4000), ("198.51.100.1", 4318))  # another machine, where more than loopback is bound
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert peer.stranger(theirs, own) == (client is not None and os.getuid() != 0)  # root is nobody's stranger
    monkeypatch.setattr(peer, "owner", lambda *_: 4243)
    assert peer.stranger(theirs, own)
    monkeypatch.setattr(peer, "owner", lambda *_: peer.GONE)
    assert peer.stranger(theirs, own)
    monkeypatch.setattr(peer, "owner", lambda *_: None)  # a system that does not tell
    assert not peer.stranger(theirs, own)


def test_without_netlink_the_table_is_read(ends, monkeypatch) -> None:
    def none(*_: object) -> int:
        raise OSError(2, "no such facility")

    monkeypatch.setattr(peer, "_by_netlink", none)
    _, server = ends
    assert peer.owner(server.getpeername(), server.getsockname()) == os.geteuid()
