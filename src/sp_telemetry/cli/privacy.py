"""`sp-telemetry privacy`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sp_telemetry.errors import ServerUnreachable, SpTelemetryError, UsageError
from sp_telemetry.home import Home
from sp_telemetry.privacy import own
from sp_telemetry.privacy.policy import ATTRIBUTES, CONTEXT, LEVELS, TREATMENTS, Policy
from sp_telemetry.setup.policy import describe, in_force

HELP = "What is kept of each attribute, at which level, by which rules; and how to keep less."
EPILOG = """\
examples:
  sp-telemetry privacy show                          the level in force, since when, own rules
  sp-telemetry privacy show --attributes             what becomes of each attribute
  sp-telemetry privacy check                         is privacy.toml good, and what does each of its rules do
  sp-telemetry privacy check 'see ACME-1234'         what becomes of this text, and by which pattern
  sp-telemetry privacy apply --level standard        from now on
  sp-telemetry privacy apply --to-stored             bring what is stored down to the policy, for good
  sp-telemetry privacy apply --to-stored --check     how many rows that would change
  sp-telemetry privacy render > policy.yaml          the policy for an OpenTelemetry Collector, own rules included
  sp-telemetry privacy render --for sql              the same as the store's functions

Own rules are in privacy.toml in the home directory; docs/privacy.md describes them.
"""
TIGHTEN = "tighten\n"
SAMPLES = (
    "mail grace.hopper@example.org from /home/grace/book", "curl -H 'Authorization: Bearer q7w8e9r0t1y2u3i4' https://example.org",
    "Exit code 1 bash: line 1: pytset: command not found", "claude-sonnet-5-5", "017-usage-data-collection",
)  # fmt: skip
WAIT_S = 30


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="show|check|apply|render", required=True)
    show = actions.add_parser("show", help="what is in force")
    show.add_argument("--attributes", action="store_true", help="each attribute, what it is and what becomes of it")
    show.add_argument("--json", action="store_true", help="for machines")
    check = actions.add_parser("check", help="prove the rules, and explain them on samples")
    check.add_argument("sample", nargs="*", help="texts to try")
    check.add_argument("--level", choices=LEVELS, help="as if this were the level")
    check.add_argument("--json", action="store_true", help="for machines")
    apply = actions.add_parser("apply", help="let the rules and the level apply")
    apply.add_argument("--level", choices=LEVELS, help="choose the level")
    apply.add_argument("--to-stored", action="store_true", help="what is stored too; it can't be undone")
    apply.add_argument("--check", action="store_true", help="change nothing, say what would change")
    apply.add_argument("--yes", action="store_true", help="ask nothing")
    render = actions.add_parser("render", help="print the policy for what applies it")
    render.add_argument("--for", dest="form", choices=("collector", "sql"), default="collector", help="default: %(default)s")
    render.add_argument("--level", choices=LEVELS, help="default: the level of this installation")


def run(args: argparse.Namespace) -> int:
    home = Home.open()
    return {"show": _show, "check": _check, "apply": _apply, "render": _render}[args.action](home, args)


def _show(home: Home, args: argparse.Namespace) -> int:
    settings = home.settings()
    policy = own.read(home.path / own.NAME).policy(settings.privacy_level)
    force = in_force(home)
    if args.json:
        shown: dict[str, Any] = {"level": policy.level, "in_force": force, "patterns": [pattern.name for pattern in policy.own_patterns]}
        shown |= {"attributes": dict(policy.own_attributes), "treatments": policy.treatments}
        print(json.dumps(shown))
        return 0
    print(f"level      {policy.level} ({settings.origins['privacy_level']})")
    print(f"in force   {describe(force)}" if force else "in force   no server answers; it applies from its next start")
    print(f"patterns   {len(policy.patterns)}, {len(policy.own_patterns)} of them your own" + _list(p.name for p in policy.own_patterns))
    print(f"attributes {len(policy.own_attributes)} rules of your own" + _list(f"{k} {v}" for k, v in policy.own_attributes.items()))
    if args.attributes:
        width = max(map(len, policy.treatments))
        for name, treatment in sorted(policy.treatments.items()):
            print(f"{name:{width}}  {ATTRIBUTES.get(name, 'own'):10}  {treatment}")
        print("\n" + "\n".join(f"{name:10}  {what}" for name, what in TREATMENTS.items()))
    return 0


def _list(names: Iterator[str]) -> str:
    text = ", ".join(names)
    return f": {text}" if text else ""


def _check(home: Home, args: argparse.Namespace) -> int:
    level = args.level or home.settings().privacy_level
    try:
        "".join(args.sample).encode()
    except UnicodeEncodeError:
        raise UsageError("What is to be tried is not UTF-8.", "Is it written in another encoding?") from None
    with _engine() as run:
        policy = own.load(home.path, level, run)
        samples = [*args.sample, *([] if args.sample else (*SAMPLES, *(text for p in policy.own_patterns for text in p.like)))]
        results = [{"text": text, "becomes": own.effect(policy, text, run), "patterns": own.hits(policy, text, run)} for text in samples]
    if args.json:
        print(json.dumps({"ok": True, "level": level, "samples": results}))
        return 0
    print(f"Good: level {level}, {_own_rules(policy)}.")
    for name, treatment in policy.own_attributes.items():
        before = (Policy(level).treatments | CONTEXT).get(name, "nothing but its name, for it is unknown")
        print(f"  {name}: {TREATMENTS[treatment]}; without the rule: {TREATMENTS.get(before, before)}")
    for result in results:
        by = ", ".join(result["patterns"])
        print(f"  {result['text']}\n    → {result['becomes']}  ({by})" if by else f"  {result['text']}\n    stays as it is")
    if level == "strict":
        print("At strict only names are kept as texts (branch, feature, chapter, person, model), redacted so; other texts are not.")
    return 0


def _own_rules(policy: Policy) -> str:
    from sp_telemetry.reports.coverage import counted

    return f"{counted(len(policy.own_patterns), 'pattern')} and {counted(len(policy.own_attributes), 'attribute rule')} of your own"


def _apply(home: Home, args: argparse.Namespace) -> int:
    from sp_telemetry.setup import configuration, service

    level = args.level or home.settings().privacy_level
    with _engine() as run:
        policy = own.load(home.path, level, run)
    if args.check and not args.to_stored:
        print(f"Good: level {level}, {_own_rules(policy)}.")
        return 0
    if os.environ.get("SP_TELEMETRY_PRIVACY_LEVEL") and args.level:
        raise UsageError("SP_TELEMETRY_PRIVACY_LEVEL is set and wins over config.toml.", "Unset it, and restart the server.")
    if args.level and not args.check:
        configuration.save(home.make(), {"privacy_level": level})
    server = service.running(home)
    if server is None:
        if args.to_stored:
            raise ServerUnreachable(f"No server runs for {home.path}; stored rows are its to change.", "`sp-telemetry up` starts it.")
        print(f"Level {level} and your own rules apply from the server's next start.")
        return 0
    if server.backend == service.COMPOSE and not args.check:
        service.up(home)  # its collector and its store follow no file
    if not args.check or level == home.settings().privacy_level:
        print(f"In force: {describe(_wait_for(home, policy))}.", flush=True)
    return _to_stored(home, policy, args) if args.to_stored else 0


def _render(home: Home, args: argparse.Namespace) -> int:
    from sp_telemetry.privacy import collector, sql

    with _engine() as run:
        policy = own.load(home.path, args.level or home.settings().privacy_level, run)
    print((collector if args.form == "collector" else sql).render(policy), end="")
    return 0


def _to_stored(home: Home, policy: Policy, args: argparse.Namespace) -> int:
    from sp_telemetry.setup import compose, service
    from sp_telemetry.store.client import connect
    from sp_telemetry.store.tightening import REQUEST

    client, composed = connect(home, home.settings()), service.backend(home) == service.COMPOSE
    request = home.path / REQUEST
    if not composed and _text(request) == TIGHTEN:
        print("What was asked for before is done first.", flush=True)  # another request in its place would take it back
        _ask(home, client, "tightened")
    print("Rows that the policy would keep otherwise than they are stored:")
    total = 0
    if not composed:
        home.write_atomically(request, "count\n")
    for table, rows in (compose.not_yet(home, policy) if composed else _ask(home, client, "counted")).items():
        print(f"  {table:20} {rows:>10,}")
        total += rows
    if args.check or not total:
        return 0
    if not args.yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError("There is nobody to ask.", "Add --yes, or --check to see only.")
        if input("What is taken from them can't be brought back. Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was changed.")
            return 0
    if not composed:
        home.write_atomically(request, TIGHTEN)
    done = compose.tighten(home, policy) if composed else _ask(home, client, "tightened")
    print(f"Done: {sum(done.values()):,} rows changed, the old bytes are off the disk.")
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:  # the server has done it
        return ""


def _ask(home: Home, client: Any, what: str) -> dict[str, int]:
    """Wait until the server has done what the request file asks, and read what it says."""
    from sp_telemetry.setup import service
    from sp_telemetry.store.tightening import REQUEST

    said = ""
    while (home.path / REQUEST).exists():
        if not service.is_held(home):
            raise ServerUnreachable("The server ended meanwhile; it goes on at its next start.", "`sp-telemetry up` starts it.")
        time.sleep(0.2)
        if (waits := _unanswered(home)) not in ("", said):
            print(f"sp-telemetry: {waits} It is tried again until it is done; Ctrl-C leaves it to the server.", file=sys.stderr)
            said = waits
    asked = "what NOT IN ('in force', 'under way')"
    rows = client.query(f"SELECT what, detail FROM telemetry.privacy_history WHERE {asked} ORDER BY since DESC LIMIT 1").rows
    if not rows or rows[0][0] != what:
        raise SpTelemetryError("The server could not do it.", "`sp-telemetry logs` says why.")
    return {name: int(number) for name, number in (one.split(": ") for one in rows[0][1].split(", "))}


def _unanswered(home: Home) -> str:
    """Why the server can't do yet what the request asks; '' where it can, or does not say."""
    from sp_telemetry.setup import service

    try:
        server = service.running(home)
    except ServerUnreachable:  # it is ending, or has much to do
        return ""
    return server.health.get("unanswered", "") if server else ""


def _wait_for(home: Home, policy: Policy) -> dict[str, Any]:
    from sp_telemetry.store import privacy

    wanted, deadline = privacy.checksum(policy), time.monotonic() + WAIT_S
    while True:
        force = in_force(home)
        if force and force["checksum"] == wanted:
            return force
        if time.monotonic() > deadline:
            raise SpTelemetryError(
                "The server has not taken the policy up.", "`sp-telemetry logs` says why; `sp-telemetry restart` tries again."
            )
        time.sleep(0.2)


@contextmanager
def _engine() -> Iterator[Callable[[str], bytes]]:
    """An engine of its own: a pattern is judged by what applies it, whether or not a server runs."""
    from sp_telemetry.store.engine import Engine

    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder))
        try:
            with engine.handle() as handle:
                yield handle.query
        finally:
            engine.close()
