"""The files in which a session's state is kept between its hooks."""

import os
import time

import record

KEPT_DAYS = 30


def path_of(home, session):
    return os.path.join(home, "hooks", file_name(session) + ".json")


def lock_of(state_file):
    return state_file[:-5] + ".lock"


def file_name(session):
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in session[:80])


def record_of(values):
    """What was kept as a record, or None."""
    try:
        return record.ContextRecord.from_dict(values) if isinstance(values, dict) else None
    except TypeError:
        return None


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
