"""Records that wait for the server, one small file each, bounded in number, size and age.

A record is written here before it is sent and removed after: a hook that dies in between loses nothing. Whoever sends a file claims
it by renaming it, so ten sessions that drain at once deliver each record once. A claim that is a minute old belonged to a process
that died; it is given back. The store tells apart what still came twice.

    <home>/spool/<at_ns, 20 digits>-<record id>.json                   waits
    <home>/spool/<at_ns, 20 digits>-<record id>.json.<claimed at, s>.<pid>   is being sent
    <home>/hooks/counters.json                                        delivered, dropped, delivered_ns (the last one's moment)
"""

import os
import time

import quickjson
import states
from locks import Lock
from places import folder, read_json, remove, replace, whole, write

MOST_FILES = 1000
MOST_BYTES = 2 << 20
MOST_DAYS = 30
MOST_AT_ONCE = 50
CLAIM_S = 60


class Spool:
    def __init__(self, home):
        self._home = home
        self._folder = os.path.join(home, "spool")

    def put(self, values):
        """Keeps a record, claimed for us. '' where the disk does not take it."""
        name = "{:020d}-{}.json".format(values["at_ns"], values["record_id"])
        path = os.path.join(self._folder, name + self._claim())
        try:
            try:
                self._write(path, values)
            except FileNotFoundError:
                folder(self._home, "spool")
                self._write(path, values)
            return path
        except OSError:
            return ""

    def waiting(self):
        """How many records wait, those being sent included."""
        return len(self._names())

    def claim(self):
        """(path, record) of the oldest that wait, now ours."""
        claimed = []
        for name in self._names():
            if len(claimed) >= MOST_AT_ONCE:
                break
            stem, since = _parts(name)
            if since is not None and abs(time.time() - since) < CLAIM_S:  # the clock may have been set back
                continue
            path = os.path.join(self._folder, stem + self._claim())
            try:
                os.rename(os.path.join(self._folder, name), path)
            except OSError:
                continue  # another one was faster
            kept = states.record_of(read_json(path))
            if kept:
                claimed.append((path, kept))
            else:  # half written by a full disk, or spoilt
                self._count(dropped=remove(path))
        return claimed

    def delivered(self, paths):
        for path in paths:
            if path:
                remove(path)
        self._count(delivered=len(paths), at=time.time_ns())

    def give_back(self, paths):
        """Not sent: they wait for the next one, within the bounds."""
        for path in paths:
            if path:
                try:
                    os.rename(path, os.path.join(self._folder, _parts(os.path.basename(path))[0]))
                except OSError:
                    continue
        self.trim()

    def trim(self):
        """Drops the oldest until number, size and age are within bounds, and counts them."""
        names = self._names()
        sizes = {name: self._size(name) for name in names}
        count, total, dropped = len(names), sum(sizes.values()), 0
        oldest = f"{max(0, time.time_ns() - MOST_DAYS * 86_400_000_000_000):020d}"
        for name in names:
            if count <= MOST_FILES and total <= MOST_BYTES and name[:20] >= oldest:
                break
            dropped += remove(os.path.join(self._folder, name))
            count, total = count - 1, total - sizes[name]
        if dropped:
            self._count(dropped=dropped)
        return dropped

    def _names(self):
        try:
            return sorted(name for name in os.listdir(self._folder) if ".json" in name)
        except OSError:
            return []

    def _size(self, name):
        try:
            return os.stat(os.path.join(self._folder, name)).st_size
        except OSError:
            return 0

    def _claim(self):
        return f".{int(time.time())}.{os.getpid()}"

    def _write(self, path, values):
        try:
            write(path, os.O_EXCL, quickjson.dumps(values).encode())
        except FileNotFoundError:
            raise
        except OSError:
            remove(path)
            raise

    def _count(self, delivered=0, dropped=0, at=0):
        try:
            path = os.path.join(folder(self._home, "hooks"), "counters.json")
            with Lock(path + ".lock"):
                counters = read_json(path)
                for name, more in (("delivered", delivered), ("dropped", dropped)):
                    counters[name] = (counters.get(name) if isinstance(counters.get(name), int) else 0) + more
                if at:
                    counters["delivered_ns"] = at
                replace(path, quickjson.dumps(counters))
        except OSError:
            pass


def _parts(name):
    """(name while it waits, when it was claimed or None)."""
    stem, _, claim = name.partition(".json")
    since = claim[1:].partition(".")[0]
    return stem + ".json", whole(since) if whole(since) >= 0 else None

