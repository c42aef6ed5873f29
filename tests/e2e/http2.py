"""gRPC calls made of bare HTTP/2 frames, so that a message need not end. What the server lets in is what is sent: its windows are kept."""

from __future__ import annotations

import select
import socket
import struct

from sp_telemetry.setup.replay import GRPC_METHODS

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def text(of: bytes) -> bytes:
    return bytes((len(of),)) + of


#: POST, http, :path, :authority, content-type, te: names by their number in HPACK's table, nothing put into it.
REQUEST = b"\x83\x86\x04" + text(GRPC_METHODS["logs"].encode()) + b"\x01" + text(b"localhost")
REQUEST += b"\x0f\x10" + text(b"application/grpc") + b"\x00" + text(b"te") + text(b"trailers")


GZIPPED = b"\x00" + text(b"grpc-encoding") + text(b"gzip")


def message(body: bytes, compressed: bool = False) -> bytes:
    return bytes((compressed,)) + len(body).to_bytes(4, "big") + body


class Connection:
    """`windows`: of the streams that the server has not ended, how much more may be sent. `ended`: those that it has."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        self._left, self._next = b"", 1
        self._window = self._first_window = 65535
        self._frame_size = 16384
        self.windows: dict[int, int] = {}
        self.ended: dict[int, bytes] = {}
        self.listen(5)

    def call(self, gzipped: bool = False) -> int:
        """Begin a call, with no message yet; its stream."""
        stream, self._next = self._next, self._next + 2
        self._socket.sendall(frame(HEADERS, END_HEADERS, stream, REQUEST + GZIPPED * gzipped))
        self.windows[stream] = self._first_window
        return stream

    def send(self, stream: int, data: bytes, end: bool = False, patience: float = 0.0) -> int:
        """How much of `data` went before the server let in no more of it for so many seconds."""
        sent = 0
        while sent < len(data):
            self.listen()
            room = min(self._window, self.windows.get(stream, 0), self._frame_size, len(data) - sent)
            if room <= 0:
                if stream in self.windows and self.listen(patience):
                    continue
                break
            self._socket.sendall(frame(DATA, END_STREAM if end and sent + room == len(data) else 0, stream, data[sent : sent + room]))
            self._window -= room
            self.windows[stream] -= room
            sent += room
        return sent

    def end(self, stream: int) -> None:
        self._socket.sendall(frame(DATA, END_STREAM, stream))

    def listen(self, seconds: float = 0.0) -> bool:
        """Take in what the server says; whether it says anything within so many seconds."""
        said = False
        while select.select([self._socket], [], [], 0 if said else seconds)[0]:
            if not (piece := self._socket.recv(1 << 16)):
                raise ConnectionError("the server has closed the connection")
            said, self._left = True, self._left + piece
            while len(self._left) >= 9 + (size := int.from_bytes(self._left[:3], "big")):
                _, kind, flags, stream = struct.unpack_from(">BBBI", self._left, 2)
                body, self._left = self._left[9 : 9 + size], self._left[9 + size :]
                self._heard(kind, flags, stream, body)
        return said

    def close(self) -> None:
        self._socket.close()

    def _heard(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            for number, value in struct.iter_unpack(">HI", body):
                if number == INITIAL_WINDOW_SIZE:
                    self.windows = {one: window + value - self._first_window for one, window in self.windows.items()}
                    self._first_window = value
                elif number == MAX_FRAME_SIZE:
                    self._frame_size = value
            self._socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(frame(PING, ACK, 0, body))
        elif kind == WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(body, "big")
        elif kind == WINDOW_UPDATE and stream in self.windows:
            self.windows[stream] += int.from_bytes(body, "big")
        elif kind == RST_STREAM or (kind == HEADERS and flags & END_STREAM):
            self.windows.pop(stream, None)
            self.ended.setdefault(stream, body)
