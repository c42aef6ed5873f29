"""Records on their way to the server, and what becomes of one that it does not take.

A hook waits for a small part of that: who is slow to answer is waited for by a process of its own. Most hooks have nothing to send, and
load no sockets.
"""

import os

import places
import quickjson
import record
import spool
import states
from locks import Lock

SEND_S = 0.1
ANSWER_S = 0.03  # the server answers after it committed; a hook need not wait for that
LATER_S = 5
LOST = "can't wait: the spool can't be written; the next look tells it"


def put(home, changed):
    """A new record as it is sent: with the file where it waits, '' where the disk does not take it."""
    return [(spool.Spool(home).put(changed.as_dict()), changed)]


def deliver(home, settings, mine, what):
    """Sends a new record with those that wait. False where nobody listens; a record that was not sent waits then."""
    waiting = spool.Spool(home)
    if not mine and not waiting.waiting():
        return True if what != "session" else _listens(settings)
    import wire

    sending = mine
    try:
        connection = wire.Connection(settings.port("otlp_http"), SEND_S)
    except OSError as error:
        kept = _keep(waiting, sending, home)
        places.log(home, what, f"the server was not reached ({type(error).__name__}); the record {'waits' if kept else LOST}")
        return False
    try:
        sending = waiting.claim() + mine
        if not sending:
            connection.close()
            return True
        body = record.to_otlp_json([one for _, one in sending])
        connection.send("/v1/logs", body, ("Content-Type: application/json",))
    except (OSError, ValueError) as error:  # a part may have gone out; no answer can come to that
        _not_taken(waiting, sending, home, what, error)
        return True
    try:
        _settle(connection, ANSWER_S, waiting, sending, home, what)
    except wire.TIMEOUTS as error:

        def patiently():
            try:
                _settle(connection, LATER_S, waiting, sending, home, what)
            except (OSError, ValueError) as error:
                _not_taken(waiting, sending, home, what, error)

        if not _later(patiently):
            _not_taken(waiting, sending, home, what, error)
    except (OSError, ValueError) as error:
        _not_taken(waiting, sending, home, what, error)
    return True


def _settle(connection, seconds, waiting, sending, home, what):
    status, _ = connection.answer(seconds)
    if 200 <= status < 300:
        waiting.delivered([path for path, _ in sending])
    else:
        _not_taken(waiting, sending, home, what, f"status {status}")


def _not_taken(waiting, sending, home, what, reason):
    kept = _keep(waiting, sending, home)
    reason = reason if isinstance(reason, str) else type(reason).__name__
    places.log(home, what, f"the server did not take {len(sending)} records ({reason}); {'they wait' if kept else 'one ' + LOST}")


def _keep(waiting, sending, home):
    """What was not sent waits. False where the disk did not take one: the next look tells what that would have told."""
    waiting.give_back([path for path, _ in sending])
    lost = [one for path, one in sending if not path]
    for one in lost:
        state_file = states.path_of(home, one.session_id)
        with Lock(states.lock_of(state_file)):
            state = places.read_json(state_file)
            if isinstance(state.get("record"), dict) and state["record"].get("record_id") == one.record_id:
                try:
                    places.replace(state_file, quickjson.dumps({**state, "lost": True}))
                except OSError:
                    places.remove(state_file)  # what knows nothing tells all at the next look
    return not lost


def _later(work):
    """Does `work` in a process of its own, so that neither this hook nor the client waits. False where that can't be."""
    try:
        if os.fork():
            return True
    except (AttributeError, OSError):
        return False
    try:
        detach()
        work()
    finally:  # if it failed, its claims run out, and a later hook sends them again
        os._exit(0)


def detach():
    """Out of the client's reach: it waits for its hooks' output to be closed, and ends their process group when it ends."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(nothing, target)


def _listens(settings):
    import wire

    try:
        wire.Connection(settings.port("otlp_http"), SEND_S).close()
        return True
    except OSError as error:
        return isinstance(error, wire.TIMEOUTS)
