"""`sp-telemetry`: finds the command, runs it, and turns an expected failure into a sentence and an exit code.

Each command is a module of this package with `HELP` (one line), `EPILOG` (examples), `configure(parser)` and `run(args) -> int`.
Only the module of the command that is asked for gets imported.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys

from sp_telemetry import __version__
from sp_telemetry.errors import SpTelemetryError, UsageError

#: command, which is its module's name, -> one line of help: kept here so that `--help` imports nothing
COMMANDS = {
    "setup": "switch telemetry on for you, start the server, prove that an event arrives",
    "doctor": "what is wrong, why it matters, and the command that mends it",
    "uninstall": "stop the server and put Claude Code's settings back",
    "env": "print the variables for a shell",
    "demo": "the main job on recorded sessions of the real client, in a scratch directory",
    "report": "cost, tokens, sessions, tools, errors: by chapter, feature, user, day, …",
    "audit": "every request in the transcripts against the telemetry: what is missing, and why",
    "backfill": "what telemetry missed, filled in from Claude Code's own transcripts",
    "context": "what feature, chapter and step hold here, and why",
    "privacy": "what is kept of each attribute, by level and own rules",
    "up": "start the server in the background",
    "down": "stop it; what is in flight is committed first",
    "restart": "stop it and start it again",
    "status": "who serves, since when, how much is stored and queued",
    "logs": "the server's log",
    "migrate": "bring a ClickHouse server to this version's shape",
    "serve": "run the embedded server in the foreground",
    "sql": "ask the store in SQL",
}

EPILOG = """\
examples:
  sp-telemetry demo                      what it does, on recorded sessions
  sp-telemetry setup --dry-run           what it would change on this machine
  sp-telemetry report cost --since 7d    what this week cost; every command has --help with more of these

exit codes: 0 done · 1 failed · 2 wrong parameter · 3 nobody answers at the store's address · 4 store or port in use
            5 the engine refused the query · 6 nothing stored to answer with
"""


class _Parser(argparse.ArgumentParser):
    """Says itself what it does not know. argparse leaves that to the parser above, whose usage names commands and no options."""

    def parse_known_args(self, args=None, namespace=None):
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown

    def error(self, message):
        """Raises it, with what stands before it on a terminal as its hint."""
        raise UsageError(message, f"{self.format_usage()}{self.prog}: error:")


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sp-telemetry",
        description="What each chapter and feature costs with Claude Code, where the agent fails, and how complete the numbers are.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sp-telemetry {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help in COMMANDS.items():
        if name != command:
            commands.add_parser(name, help=help)
            continue
        module = importlib.import_module(f"sp_telemetry.cli.{name}")
        chosen = commands.add_parser(
            name, help=help, description=module.HELP, epilog=module.EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.configure(chosen)
        chosen.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    _open_streams()
    code = 0
    try:
        try:
            code = _run(sys.argv[1:] if arguments is None else arguments)
        except SystemExit as ended:  # argparse's
            code = ended.code
        sys.stdout.flush()  # what can't be written is met here, not when the interpreter ends
    except (KeyboardInterrupt, EOFError):  # Ctrl-C; Ctrl-D where something was asked
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        _give_up_output()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _give_up_output()
        where = f" to {error.filename}" if error.filename else ""
        print(f"sp-telemetry: Nothing more can be written{where}: {error.strerror}.\nMake room, then run it again.", file=sys.stderr)
        return 1
    return code


def _run(arguments: list[str]) -> int:
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        args = _parser(command).parse_args(arguments)
    except UsageError as error:  # argparse's
        if "--json" in arguments:
            _tell_program(error, f"`sp-telemetry {command} --help` says what there is." if command in COMMANDS else "")
        else:
            print(f"{error.hint} {error}", file=sys.stderr)
        return error.exit_code
    try:
        return args.run(args) or 0
    except SpTelemetryError as error:
        if getattr(args, "json", False) or str(getattr(args, "format", "")).lower() == "json":
            _tell_program(error, error.hint)
        else:
            print(f"sp-telemetry: {error}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code


def _tell_program(error: SpTelemetryError, hint: str) -> None:
    import json

    print(json.dumps({"ok": False, "error": str(error), "hint": hint}))


def _open_streams() -> None:
    """Streams that were closed (`>&-`) lead nowhere, or the first file that is opened would take their place; and a character that the
    terminal's encoding lacks is a question mark."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _give_up_output() -> None:
    """What is buffered goes nowhere, or the interpreter would try it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
