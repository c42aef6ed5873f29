"""`/telemetry-report …`, typed by a person, is answered here: the client shows the text and asks no model.

`explain` as the first word is let through on purpose, with the same data, for Claude to explain.
"""

import os
import time

import places

COMMAND = "telemetry-report"
PLUGIN = "sp-telemetry"
#: in the head of a command file that set-up put into the user's commands folder (setup/bare_names.py)
MARK = "# put here by sp-telemetry setup; sp-telemetry uninstall takes it away"
WAIT_S = 4.0
MOST = 9000  # the client puts texts of more than 10,000 characters into a file


def answer(call):
    """The client's answer to UserPromptExpansion, or None for what is none of ours."""
    if not _ours(str(call.get("command_name") or "")):
        return None
    arguments = words(call.get("command_args"))
    if arguments[:1] == ["explain"]:
        told = "The report that was asked for:\n\n" + run(arguments[1:])
        return {"hookSpecificOutput": {"hookEventName": "UserPromptExpansion", "additionalContext": told}}
    return {"decision": "block", "reason": "\n" + run(arguments)}


def _ours(name):
    """The client says `plugin:skill` of a plugin's command, however it was typed; a bare name is of the person's own commands."""
    plugin, colon, command = name.rpartition(":")
    if command != COMMAND or (colon and plugin != PLUGIN):
        return False
    config = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.join(os.environ.get("HOME") or os.path.expanduser("~"), ".claude")
    return bool(colon) or MARK in places.read(os.path.join(config, "commands", COMMAND + ".md"), 4096)


def words(text):
    """Arguments as a shell would split them; at blanks where quotes do not close (`what's the cost`)."""
    if not isinstance(text, str):
        return []
    if not any(sign in text for sign in "'\"\\"):
        return text.split()
    import shlex  # and with it `re`, which costs as much as starting Python

    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def run(arguments):
    """What report.sh prints for these arguments, as it is to be shown. No shell sees them."""
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "report.sh")
    try:
        text = _output(["sh", script, *arguments], WAIT_S)
        if text is None:
            text = "No answer within {:.0f} s. In a terminal: sp-telemetry report {}".format(WAIT_S, " ".join(arguments))
    except (OSError, ValueError):
        text = "sp-telemetry can't be run here. `sp-telemetry doctor`, in a terminal, says why."
    if len(text) > MOST:
        text = text[:MOST].rpartition("\n")[0] + "\n… the rest: sp-telemetry report " + " ".join(arguments)
    return text or "The report is empty."


def _output(command, seconds):
    """What `command` prints, None where it takes longer; it is ended then with all that it started."""
    if not hasattr(os, "posix_spawnp"):
        return _output_elsewhere(command, seconds)
    import select

    until = time.monotonic() + seconds
    out, theirs = os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, *pair) for pair in ((nothing, 0), (theirs, 1), (theirs, 2))]
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setpgroup=0)
    os.close(theirs)
    data = b""
    while select.select([out], [], [], max(0, until - time.monotonic()))[0]:
        more = os.read(out, 1 << 16)
        if not more:
            os.waitpid(process, 0)
            return data.decode("utf-8", "replace").rstrip()
        data += more
    os.killpg(process, 9)
    os.waitpid(process, 0)
    return None


def _output_elsewhere(command, seconds):
    """The same on Windows. `subprocess` costs half as much again as starting Python, so elsewhere it is done without."""
    import subprocess

    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.decode("utf-8", "replace").rstrip()
