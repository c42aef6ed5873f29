"""One bounded HTTP exchange with the server on this machine, over a plain socket: `http.client` costs four starts of Python."""

import time

try:
    import _socket as socket  # the same class without its Python half; `socket` costs as much as starting Python
except ImportError:
    import socket

MOST_ANSWER = 1 << 16
TIMEOUTS = (TimeoutError, socket.timeout)  # two until 3.9, one since


class Connection:
    """A connection to loopback with one bound for everything that happens on it. Raises OSError (TimeoutError is one)."""

    def __init__(self, port, seconds):
        self._until = time.monotonic() + seconds
        self._port = port
        self._answer = b""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._bound()
        try:
            self._socket.connect(("127.0.0.1", port))
        except OSError:
            self._socket.close()
            raise

    def send(self, path, body, headers=()):
        head = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{self._port}", "Connection: close"]
        head += [f"Content-Length: {len(body)}", *headers, "", ""]
        self._bound()
        self._socket.sendall("\r\n".join(head).encode("latin-1", "replace") + body)

    def answer(self, seconds=None):
        """(status, body), within what is left of the bound or within a new one. After a timeout it can be asked again."""
        if seconds is not None:
            self._until = time.monotonic() + seconds
        answer = self._answer
        while len(answer) < MOST_ANSWER and not _whole(answer):
            self._bound()
            more = self._socket.recv(1 << 14)
            if not more:
                break
            answer = self._answer = answer + more
        self._socket.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        words = head.split(b"\r\n")[0].split()
        status = int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit() and len(words[1]) == 3 else 0
        if b"transfer-encoding: chunked" in head.lower():
            body = _unchunked(body)
        return status, body

    def close(self):
        self._socket.close()

    def _bound(self):
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the server took too long")
        self._socket.settimeout(left)


def _whole(answer):
    """Whether the answer is complete, so that a server which keeps the connection open isn't waited for."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:") and line[15:].strip().isdigit():
            return len(body) >= int(line[15:].strip()[:19])  # of thousands of digits Python makes no number
        if line.startswith(b"transfer-encoding:"):
            return body.endswith(b"0\r\n\r\n")
    return False


def _unchunked(body):
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        try:
            length = int(size.split(b";")[0], 16)
        except ValueError:
            break
        if length <= 0:
            break
        whole, body = whole + rest[:length], rest[length + 2:]
    return whole
