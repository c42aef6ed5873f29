"""The files in which a session's state is kept between its hooks."""

import os
import time

import record

KEPT_DAYS = 30
_KINDS = [type(value) for value in record.ContextRecord()]


def path_of(home, session):
    return os.path.join(home, "hooks", file_name(session) + ".json")


def lock_of(state_file):
    return state_file[:-5] + ".lock"


def file_name(session):
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in session[:80])


def record_of(values):
    """What was kept as a record; None for what is none: the server would refuse all that is sent with it."""
    if not isinstance(values, dict):
        return None
    kept = record.ContextRecord.from_dict(values)
    good = [type(value) for value in kept] == _KINDS and kept.session_id and kept.record_id
    return kept if good and 0 < kept.at_ns < 1 << 63 and 0 <= kept.confidence <= 1 else None


def forget_old(folder):
    """States of sessions that nobody has continued for a month."""
    oldest = time.time() - KEPT_DAYS * 86_400
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("counters") and entry.stat().st_mtime < oldest:
                    os.unlink(entry.path)
    except OSError:
        pass
