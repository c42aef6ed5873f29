"""A lock that a dead process lets go: flock where there is one, none elsewhere (the store does without duplicates anyway)."""

import os

try:
    import fcntl
except ImportError:
    fcntl = None


class Lock:
    """`with Lock(path):` waits; `Lock(path, wait=False).taken` tells. A directory that can't be written has no locks, and no writers."""

    def __init__(self, path, wait=True):
        self.taken = True
        self._file = -1
        if fcntl is None:
            return
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.taken = wait

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
