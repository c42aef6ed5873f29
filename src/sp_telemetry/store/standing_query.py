"""A query that never ends: what is written into its pipe comes out as rows, under a plan that the engine made once.

To analyse the statement that types and sanitises events costs ten times as much as the rows of a small insert (docs/decisions.md); a
standing query is analysed when it begins. One protobuf message in its pipe is one block of its input, for blocks end at the first row
(`input_format_max_block_size_bytes`), and one block of input is one of output (`max_block_size`). So each answer belongs to the message
before it.

A thread feeds the pipe while another waits for the answer. A message that promises more than it holds would wait for ever for the rest,
so the pipe is closed when an answer takes long: then the query comes to its end, with the answer or with an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Iterator

from sp_telemetry.errors import QueryFailed
from sp_telemetry.store.engine import Handle

PIPE_BYTES = 1 << 20  # as much as the kernel gives to anybody
LONGEST = 4 << 20  # of a message: about 6,000 events. A block of rows takes 7 ms however few they are
LONG_S = 1.0  # the longest message takes a tenth of it; to be wrong costs a new query, 60 ms of CPU
SETTINGS = {
    "max_threads": 1,  # blocks come out in the order in which they went in
    "input_format_max_block_size_bytes": 1,
    "max_block_size": LONGEST,  # more records than a message can hold
    "max_execution_time": 0,
    "optimize_functions_to_subcolumns": 0,
}
AVAILABLE = hasattr(fcntl, "F_SETPIPE_SZ")  # Linux


class StandingQuery:
    """`select` reads `{path}`, FORMAT Protobuf. Used by one thread at a time; costs next to nothing while nothing is asked.

    `memory`: what it may take, in bytes; 0 is all that there is.
    What `select` says of the store's definitions (functions, scalars) is as it was when it began: see `is_current`.
    """

    def __init__(self, like: Handle, select: str, memory: int = 0) -> None:
        self._engine = like.engine
        self._definitions = self._engine.definitions
        self._handle = self._engine.handle(**SETTINGS, max_memory_usage=memory)
        try:
            self._reader, self._pipe = os.pipe()
        except OSError:
            self._handle.close()
            raise
        with contextlib.suppress(OSError):  # this user may have no more; then it is fed in more steps
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.set_blocking(self._pipe, False)
        self._lock = threading.Lock()
        self._open, self._asked = True, False
        self._handle.before_close = self._end
        self._answers: Iterator[bytes] = self._handle.stream(select.replace("{path}", f"/proc/self/fd/{self._reader}"), "Native")

    @property
    def is_current(self) -> bool:
        """Whether it goes on, and nothing was defined anew in the store since it began."""
        return self._open and self._definitions == self._engine.definitions

    def rows(self, message: bytes) -> bytes:
        """The rows of `message`, a protobuf message behind its length, FORMAT Native. Raises QueryFailed; then it is at its end."""
        if not self._open or len(message) > LONGEST:
            raise QueryFailed("A standing query takes no more, or not as much.")
        self._asked = True
        answered = threading.Event()
        feeder = threading.Thread(target=self._feed, args=(message, answered), daemon=True)
        feeder.start()
        try:
            return next(self._answers)
        except StopIteration:
            raise QueryFailed("A standing query has come to its end.") from None
        finally:
            answered.set()
            feeder.join()

    def close(self) -> None:
        self._handle.close()

    def _feed(self, message: bytes, answered: threading.Event) -> None:
        """Write `message` as the query reads it; hang up when the answer takes long."""
        late = time.monotonic() + LONG_S
        rest = memoryview(message)
        room = select.poll()  # select() takes no number of a file beyond 1023, and a server may have that many connections
        room.register(self._pipe, select.POLLOUT)
        while rest and not answered.is_set() and time.monotonic() < late:
            with self._lock:  # nobody closes it meanwhile
                if not self._open:
                    return
                with contextlib.suppress(BlockingIOError):
                    rest = rest[os.write(self._pipe, rest) :]
            if rest:
                room.poll(50)
        if not answered.wait(max(late - time.monotonic(), 0)):
            self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._pipe)

    def _end(self) -> None:
        """A handle can't be closed while its query waits for more."""
        self._hang_up()
        if self._asked:
            with contextlib.suppress(QueryFailed):
                for _ in self._answers:
                    pass
        os.close(self._reader)
