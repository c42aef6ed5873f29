"""`sp-telemetry env`."""

from __future__ import annotations

import argparse
import os

from sp_telemetry.home import Home
from sp_telemetry.setup.environment import OURS, RESOURCE, SHELLS, render, variables, without_person

HELP = "Print the variables that make Claude Code export to this machine's server, for a shell."
EPILOG = """\
examples:
  eval "$(sp-telemetry env --shell bash)"                       bash, zsh
  sp-telemetry env --shell fish | source                        fish
  sp-telemetry env --shell powershell | Out-String | iex        PowerShell
  eval "$(sp-telemetry env --shell bash --off)"                 and away again

The user settings that `sp-telemetry setup` writes win over the shell. One session without telemetry, whatever they say:
  claude --settings '{"env": {"CLAUDE_CODE_ENABLE_TELEMETRY": ""}}'
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shell", choices=SHELLS, required=True)
    parser.add_argument("--off", action="store_true", help="take the variables away")
    parser.add_argument("--console", action="store_true", help="export to the terminal too, for debugging `claude -p`")
    parser.add_argument("--prometheus", action="store_true", help="serve the metrics to Prometheus too, on port 9464")
    parser.add_argument("--traces", action="store_true", help="export spans too (beta)")


def run(args: argparse.Namespace) -> int:
    there = os.environ.get(RESOURCE, "")  # other entries of the shell that asks stay
    if args.off:
        rest = without_person(there)
        print(render(args.shell, dict.fromkeys((name for name in OURS if not (rest and name == RESOURCE)), ""), off=True), end="")
        print(render(args.shell, {RESOURCE: rest} if rest else {}), end="")
        return 0
    home = Home.open()
    settings = home.settings()
    running = (home.server() or {}).get("ports", {})
    endpoint = f"http://127.0.0.1:{running.get('otlp_http') or settings.otlp_http_port or 4318}"
    found = variables(endpoint, settings.person, there, console=args.console, prometheus=args.prometheus, traces=args.traces)
    print(render(args.shell, found), end="")
    return 0
