"""One call of a hook, from stdin to exit 0, within its bound.

The policy is one line: a hook may do nothing but help. Whatever is raised ends in the log and in exit code 0; a timer ends what hangs
(a full disk, a dead mount, a server that does not answer) well before the timeout that hooks.json declares.
"""

import os
import sys

import places
import quickjson

MOST_INPUT = 64 << 20
# Seconds until the work is told to stop, and until the process ends if it does not listen.
BOUNDS = {"report": (4.2, 4.6)}
BOUND = (0.25, 0.3)


class Late(BaseException):
    """The bound was reached. Not an Exception, so that nothing below takes it for a disk's or a server's error."""


def main(arguments):
    """`arguments`: what hooks.json asks for, where run.sh got the interpreter from, the shell's working directory."""
    what, found, shell_directory = (*arguments, "", "", "")[:3]
    home = ""
    try:
        _bound(*BOUNDS.get(what, BOUND), os.environ.get("SP_TELEMETRY_HOOK_PATIENCE", ""))
        home = places.home()
        if what == "prompt":
            _out_of_reach()
        _remember_interpreter(found)
        call = _input()
        if what == "report":
            import report

            answer = report.answer(call)
        else:
            import session

            answer = session.observe(what, call, home, shell_directory)
        if answer:
            _say(quickjson.dumps(answer))
    except BaseException as error:
        if home and not isinstance(error, SystemExit):
            places.log(home, what or "?", "gave up: " + places.described(error))
    finally:
        os._exit(0)  # nothing is left to tidy, and the interpreter's own end costs a millisecond


def _out_of_reach():
    """The client does not wait (run.sh), so neither its end nor a Ctrl-C in its terminal may end this half-way."""
    try:  # noqa: SIM105 - contextlib costs a start of its own
        os.setsid()
    except (AttributeError, OSError):
        pass


def _input():
    data = b""
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        parts, size = [], 0
        while size <= MOST_INPUT:
            part = stdin.read(1 << 20)
            if not part:
                break
            parts.append(part)
            size += len(part)
        data = b"".join(parts)
    if not data.strip():
        raise ValueError("nothing on stdin")
    call = quickjson.loads(data.decode("utf-8", "replace"))
    if not isinstance(call, dict):
        raise ValueError("not an object on stdin")
    return call


def _say(text):
    data = text.encode()
    while data:
        data = data[os.write(1, data):]


def _bound(soft, hard, patience=""):
    """`patience`: how many times as long it may take, 1 to 99: for tests on a loaded machine, and for people with one."""
    if patience.isdigit() and 1 <= int(patience) <= 99:
        soft, hard = soft * int(patience), hard * int(patience)
    try:
        import _signal as signal  # what `signal` wraps, without its enumerations (5 ms)
    except ImportError:
        return
    if not hasattr(signal, "setitimer"):
        return  # Windows: the declared timeout is the bound

    def ring(*_):
        if rung:
            os._exit(0)
        rung.append(True)
        raise Late()

    rung = []
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, soft, hard - soft)


def _remember_interpreter(found):
    data = os.environ.get("CLAUDE_PLUGIN_DATA")
    if found != "path" or not data:
        return
    try:
        os.makedirs(data, 0o700, exist_ok=True)
        places.replace(os.path.join(data, "python"), os.path.realpath(sys.executable) + "\n")
        os.unlink(os.path.join(data, "no-python"))
    except (OSError, ValueError):
        pass
