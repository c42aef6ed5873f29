"""Claude Code itself: its version, our plugin in it, what its hooks delivered."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from sp_telemetry import resources
from sp_telemetry.home import read_json
from sp_telemetry.setup import claude_settings, client_versions, layers, plugins
from sp_telemetry.setup.doctor import ERROR, OK, WARNING, Finding, Patient, ago

OLDEST_TESTED = (2, 1, 197)
FAILED_LATELY_S = 86_400


def version(patient: Patient) -> list[Finding]:
    patient.client = client = client_versions.installed(patient.environ)
    if client is None:
        what = "There is no `claude` on PATH."
        return [Finding(WARNING, "client", "no-client", what, "Its version can't be checked.", "Install Claude Code, or put it on PATH")]
    if not client.version:
        what = f"{client.path} does not say its version."
        return [Finding(WARNING, "client", "client-broken", what, "Sessions may not start at all.", "claude doctor")]
    text = ".".join(map(str, client.version))
    found = [Finding(OK, "client", "client", f"Claude Code {text} ({client.path})", facts={"version": text})]
    if client.version < OLDEST_TESTED:
        what = f"Claude Code {text} is older than what is tested with ({'.'.join(map(str, OLDEST_TESTED))})."
        found.append(Finding(WARNING, "client", "client-old", what, "Reports may lack columns.", "claude update", {"version": text}))
    return [*found, *spoiled(client.version, "This version"), _lasting()]


def spoiled(number: tuple[int, ...], who: str) -> list[Finding]:
    """What a version gets wrong: a warning for numbers that reports show, else only told."""
    found = []
    for flaw in client_versions.flaws(number):
        what = f"{who} ({flaw.versions}): {flaw.what}."
        level = WARNING if flaw.ours else OK
        why = f"Touched: {flaw.matters}. {flaw.source}"
        facts = {"versions": flaw.versions, "source": flaw.source}
        found.append(Finding(level, "client", "version-flaw", what, why, "claude update" if flaw.ours else "", facts))
    return found


def _lasting() -> Finding:
    """What no other version mends, in one: it is no news, and explains numbers that look wrong."""
    known = [flaw for flaw in client_versions.FLAWS if flaw.ours and flaw.lasts]
    what = "Every version: " + "; ".join(flaw.what for flaw in known) + "."
    why = "Touched: " + "; ".join(flaw.matters for flaw in known) + "."
    return Finding(OK, "client", "version-flaws-lasting", what, why, facts={flaw.what: flaw.source for flaw in known})


def hooks(patient: Patient) -> list[Finding]:
    seen = layers.layers(patient.environ, patient.directory, patient.managed)
    config = claude_settings.locate(patient.environ).parent
    off = next((layer for layer in seen if layer.settings.get("disableAllHooks") is True), None)
    if off:
        what = f"{off.place} sets disableAllHooks."
        why = "Sessions have no feature and no chapter: their cost is unattributed."
        return [Finding(WARNING, "hooks", "hooks-disabled", what, why, f"Remove disableAllHooks from {off.place}", {"layer": off.name})]
    if patient.environ.get("SP_TELEMETRY_HOOKS") == "0":
        what = "SP_TELEMETRY_HOOKS=0 switches our hooks off."
        return [Finding(WARNING, "hooks", "hooks-disabled", what, "Sessions have no feature and no chapter.", "unset SP_TELEMETRY_HOOKS")]
    enabled, installed = list(filter(plugins.is_ours, plugins.enabled(seen))), plugins.installed(config)
    if not enabled:
        known = next(filter(plugins.is_ours, installed), "")
        what = "The plugin is installed and not enabled." if known else "The plugin is not installed."
        why = "Cost is stored, but nothing says for which feature and chapter."
        mend = f"claude plugin enable {known}" if known else _install()
        return [Finding(WARNING, "hooks", "plugin-missing", what, why, mend), *_seen(patient)]
    found = []
    if not any(name in installed for name in enabled):
        name = enabled[0]
        what = f"{name} is enabled in the settings, and not installed."
        found.append(Finding(WARNING, "hooks", "plugin-missing", what, "Its hooks do not run.", f"claude plugin install {name}"))
    for file in (config / "plugins" / "data").glob("*/no-python"):
        if plugins.NAME in file.parent.name:
            what = "The hooks found no Python 3.9 or later."
            mend = "Install Python 3.9 or later, or name one in SP_TELEMETRY_PYTHON"
            found.append(Finding(ERROR, "hooks", "hooks-no-python", what, "Sessions have no feature and no chapter.", mend))
    return [*found, *_seen(patient)]


def _install() -> str:
    """The commands that install the plugin, from this checkout where it is one: a wheel holds none."""
    try:
        checkout = shlex.quote(str(resources.path(".claude-plugin").parent))
    except FileNotFoundError:
        checkout = "<a clone of sp-telemetry>"
    return f"claude plugin marketplace add {checkout}; claude plugin install sp-telemetry@sp-telemetry"


def _seen(patient: Patient) -> Iterator[Finding]:
    """When a hook last ran, and why one gave up."""
    folder = patient.home.path / "hooks"
    times = [file.stat().st_mtime for file in folder.glob("*.json") if not file.name.startswith("counters")]
    if times:
        age = time.time() - max(times)
        what = f"Hooks last noted a session {ago(age)}; {len(times)} sessions are known"
        yield Finding(OK, "hooks", "hooks", what, facts={"age_s": round(age), "sessions": len(times)})
    else:
        what = "No hook has run yet."
        why = "No session has a feature or chapter so far."
        yield Finding(WARNING, "hooks", "hooks-never-ran", what, why, "Start a session of Claude Code")
    failed = [line for line in _lines(patient.home.logs / "hooks.log") if " gave up: " in line and _age(line) < FAILED_LATELY_S]
    if failed:
        kinds = sorted({match[1] for line in failed if (match := re.search(r"gave up: (\w+)", line))})
        what = f"{len(failed)} hooks gave up within a day; the last: {failed[-1]}"
        why = "What a session worked on may be recorded late or not at all."
        mend = f"See {patient.home.logs / 'hooks.log'}"
        yield Finding(WARNING, "hooks", "hooks-gave-up", what, why, mend, {"count": len(failed), "kinds": kinds})


def spool(patient: Patient) -> list[Finding]:
    """Context records: delivered, waiting, dropped."""
    counters = read_json(patient.home.path / "hooks" / "counters.json")
    delivered, dropped = (value if isinstance(value := counters.get(name), int) else 0 for name in ("delivered", "dropped"))
    folder = patient.home.spool
    waiting = [file for file in folder.glob("*.json*") if file.name[:20].isdigit()] if folder.is_dir() else []
    oldest = (time.time() - min(int(file.name[:20]) for file in waiting) / 1e9) if waiting else 0.0
    facts = {"delivered": delivered, "waiting": len(waiting), "dropped": dropped, "oldest_s": round(oldest)}
    what = f"Context records: {delivered} delivered, {len(waiting)} waiting, {dropped} dropped"
    if dropped:
        why = "Those sessions have no feature and chapter for a while."
        return [Finding(WARNING, "spool", "spool-dropped", what + ".", why, "sp-telemetry up, and leave autostart on", facts)]
    if waiting and oldest > 3600:
        why = f"The oldest waits since {ago(oldest)}; they are kept for 30 days."
        mend = "Start a session: its hooks deliver them" if patient.server_runs else "sp-telemetry up"
        return [Finding(WARNING, "spool", "spool-waiting", what + ".", why, mend, facts)]
    return [Finding(OK, "spool", "spool", what, facts=facts)]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _age(line: str) -> float:
    """Seconds since the line of hooks.log was written; for ever where it has no time."""
    try:
        return time.time() - time.mktime(time.strptime(line[:20], "%Y-%m-%dT%H:%M:%SZ")) + time.timezone
    except ValueError:
        return float("inf")
