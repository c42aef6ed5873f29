"""`/telemetry-report …`, typed by a person, is answered here: the client shows the text and asks no model.

`explain` as the first word is let through on purpose, with the same data, for Claude to explain.
"""

import os
import subprocess

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
    import shlex

    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def run(arguments):
    """What report.sh prints for these arguments, as it is to be shown. No shell sees them."""
    script = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "report.sh")
    try:
        process = subprocess.Popen(
            ["sh", script, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            text = process.communicate(timeout=WAIT_S)[0].decode("utf-8", "replace").rstrip()
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # the command line is a child of the shell
            text = "No answer within {:.0f} s. In a terminal: sp-telemetry report {}".format(WAIT_S, " ".join(arguments))
    except (OSError, ValueError):
        text = "sp-telemetry can't be run here. `sp-telemetry doctor`, in a terminal, says why."
    if len(text) > MOST:
        text = text[:MOST].rpartition("\n")[0] + "\n… the rest: sp-telemetry report " + " ".join(arguments)
    return text or "The report is empty."
