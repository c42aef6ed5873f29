"""`sp-telemetry doctor`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sp_telemetry.errors import UsageError
from sp_telemetry.home import Home

HELP = "Look at server, ports, settings, client, hooks, store and clocks: what is wrong, why it matters, and what mends it."
EPILOG = """\
examples:
  sp-telemetry doctor                     in the directory where Claude Code is started
  sp-telemetry doctor --json
  sp-telemetry doctor --bundle report.json
  sp-telemetry doctor --server            may each user of the store do what it must, and nothing else

exit code 0 all is well · 1 warnings · 2 errors. The bundle holds numbers and codes only: no path, name, branch, prompt or session.
"""
MARKS = {"ok": "✓", "warning": "!", "error": "✗"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--server", action="store_true", help="also try what each of the store's users may and may not do; changes nothing")
    parser.add_argument("--bundle", metavar="FILE", help="write a report that can be passed on; - for the terminal")


def run(args: argparse.Namespace) -> int:
    from sp_telemetry.setup.doctor import examine

    home = Home.open()
    examination = examine(home)
    if args.server:
        from sp_telemetry.setup import doctor_access

        examination.findings.extend(doctor_access.examine(home, home.settings()))
    if args.bundle:
        from sp_telemetry.setup.doctor_bundle import as_text, bundle

        text = as_text(bundle(examination, home.settings()))
        if args.bundle == "-":
            print(text, end="")
            return examination.exit_code
        try:
            Path(args.bundle).write_text(text, "utf-8")
        except OSError as error:
            raise UsageError(f"--bundle: {args.bundle} can't be written: {error.strerror}.") from None
        print(f"Written to {args.bundle}. Look at it before you pass it on.", file=sys.stderr)
    if args.json:
        print(json.dumps(examination.as_dict()))
    elif not args.bundle:
        _show(examination)
    return examination.exit_code


def _show(examination) -> None:
    for finding in examination.findings:
        if finding.level == "ok" and finding.why:
            continue  # told by --json; nothing to do
        print(f" {MARKS[finding.level]} {finding.what}")
        if finding.level != "ok":
            print(f"     {finding.why}" + (f"\n     → {finding.mend}" if finding.mend else ""))
    wrong = [finding for finding in examination.findings if finding.level != "ok"]
    errors = sum(finding.level == "error" for finding in wrong)
    words = f"{errors} errors, {len(wrong) - errors} warnings" if wrong else "All is well"
    print(f"\n{words} ({examination.seconds:.1f} s)")
