"""What arrived: the last event, the last context, clocks, names that nobody knows, who sent it; and what was damaged on its way."""

from __future__ import annotations

import shlex
import time
from typing import Any

from sp_telemetry.errors import QueryFailed, UsageError
from sp_telemetry.privacy.policy import EVENTS
from sp_telemetry.setup import claude_settings, client_versions
from sp_telemetry.setup.doctor import ERROR, OK, WARNING, Finding, Patient, ago
from sp_telemetry.setup.doctor_client import spoiled
from sp_telemetry.setup.verify import EVENT as CHECK
from sp_telemetry.store import journal, prices
from sp_telemetry.store.client import Statements, connect

SKEW_S = 300
STALE_S = 7 * 86_400
LOOK = """
    SELECT
        countIf(event_type != {check:String}) AS events,
        toUnixTimestamp64Milli(maxIf(received_at, event_type != {check:String})) / 1000 AS last_event,
        toUnixTimestamp64Milli(maxIf(received_at, event_type = 'api_request')) / 1000 AS last_request,
        countIf(event_type = 'api_request') AS requests,
        countIf(event_type = 'user_prompt' AND command_name = '' AND timestamp < now() - INTERVAL 10 MINUTE) AS prompts,
        countIf(event_type = 'api_error') AS api_errors,
        countIf(event_type = 'api_request' AND feature = '' AND chapter_context = '') AS unattributed,
        groupUniqArrayIf(10)(service_version, service_version != '' AND event_type != {check:String}) AS versions,
        groupUniqArrayIf(20)(event_type, event_type NOT IN {known:Array(String)} AND event_type != {check:String}) AS unknown_events,
        groupUniqArrayArray(20)(unknown_attributes) AS unknown_attributes,
        countIf(timestamp > received_at + INTERVAL 5 MINUTE) AS from_the_future
    FROM telemetry.telemetry_events
    WHERE received_at > now() - INTERVAL 30 DAY AND source != 'transcript'
"""
# Of the installation whose clock seems to be the furthest off: of a median over all, one among several is no part.
LAG = """
    SELECT argMax(lag, abs(lag)) AS lag_s, argMax(who, abs(lag)) AS whose, count() AS installations
    FROM
    (
        SELECT any(toString(user_id)) AS who, quantileExact(0.5)(dateDiff('second', timestamp, received_at)) AS lag
        FROM telemetry.telemetry_events
        WHERE received_at > now() - INTERVAL 1 DAY AND source != 'transcript'
        GROUP BY installation_id
    )
"""
OTHERS = """
    SELECT
        (SELECT toUnixTimestamp64Milli(max(received_at)) / 1000 FROM telemetry.session_context) AS last_context,
        (SELECT toUnixTimestamp64Milli(max(received_at)) / 1000 FROM telemetry.telemetry_metrics) AS last_metric
"""


def store(patient: Patient) -> list[Finding]:
    if not patient.server_runs and not patient.settings.url:
        return []
    client = connect(patient.home, patient.settings)
    try:
        seen = client.query(LOOK, {"check": CHECK, "known": list(EVENTS)}).records()[0]
        seen |= client.query(OTHERS).records()[0] | client.query(LAG).records()[0]
    except QueryFailed as error:
        code = "reader-refused" if error.code in (192, 193, 194, 516) else "store-refuses"
        mend = error.hint or "sp-telemetry restart"
        return [Finding(ERROR, "store", code, str(error), "No report can be made.", mend, {"code": error.code})]
    return [*_events(patient, seen), *_contexts(seen), *_clocks(seen), *_unknown(seen), *_versions(patient, seen)]


def own_prices(patient: Patient) -> list[Finding]:
    """Prices of one's own that are not in force: written since the server's start, or refused then."""
    file = prices.own_file(patient.home.path, patient.settings.prices)
    if file is None or not patient.server_runs:
        return []
    try:
        if prices.are_loaded(Statements(connect(patient.home, patient.settings)), file):
            return [Finding(OK, "prices", "own-prices", f"Own prices are those of {file}")]
        what, mend = f"{file} is not what costs are computed by.", "sp-telemetry restart; then sp-telemetry logs, if this stays"
    except UsageError as error:
        what, mend = str(error), error.hint
    why = "It is read at the server's start, and as a whole: where a line can't be, the prices of before stay."
    return [Finding(WARNING, "prices", "own-prices-unread", what, why, mend)]


def damaged(patient: Patient) -> list[Finding]:
    """Files of the journal that are kept because some of what was acknowledged can't be read in them."""
    files, lost = [], 0
    for path in (paths := journal.set_aside(patient.home.store / "journal")):
        seen, bad = path.stat(), journal.damage(path)
        written = time.strftime("%Y-%m-%d %H:%M", time.localtime(seen.st_mtime))
        files.append(f"{path.name} (last written {written}, {bad} of {seen.st_size} bytes can't be read)")
        lost += bad
    if not files:
        return []
    what = f"Records of the journal are damaged: {', '.join(files)}."
    why = "Events of then or shortly before were acknowledged, and what is on the disk of them can't be stored. Requests that Claude Code's"
    why += " transcripts hold are not lost: `sp-telemetry audit` tells which are missing, `sp-telemetry backfill` fills them in."
    mend = f"Then remove what is kept: rm {shlex.join(map(str, paths))}"
    return [Finding(WARNING, "store", "journal-damaged", what, why, mend, {"files": len(files), "damaged_bytes": lost})]


def _events(patient: Patient, seen: dict[str, Any]) -> list[Finding]:
    now, last, metric = time.time(), seen["last_event"], seen["last_metric"]
    facts = {"events": seen["events"], "requests": seen["requests"], "age_s": round(now - last) if last else None}
    if not seen["events"]:
        if metric:
            what = f"Metrics arrive (the last {ago(now - metric)}), and not one event."
            why = "Cost and tokens come from events; every report is empty."
            return [Finding(ERROR, "events", "metrics-only", what, why, "sp-telemetry setup", facts)]
        what = "No event of Claude Code has arrived in 30 days."
        why = "Claude Code reads its settings once, at its start." if patient.telemetry_on else "Telemetry is off."
        mend = "Restart Claude Code and type something" if patient.telemetry_on else "sp-telemetry setup"
        return [Finding(WARNING, "events", "no-event-yet", what, why, mend, facts)]
    what = f"{seen['events']:,} events in 30 days, {seen['requests']:,} of them requests; the last {ago(now - last)}"
    found = [Finding(OK, "events", "events", what, facts=facts)]
    if seen["prompts"] and not seen["requests"] and not seen["api_errors"]:
        what = f"Events arrive, {seen['prompts']:,} prompts among them, and not one request."
        why = f"Cost and tokens are those of requests. Claude Code sends none on Microsoft Foundry ({client_versions.ISSUES}55984)."
        found.append(Finding(WARNING, "events", "no-requests", what, why, "sp-telemetry audit; then sp-telemetry backfill", facts))
    made = claude_settings.note(patient.home)
    if made:
        try:
            set_up = (patient.home.path / "backups" / "claude-settings.note").stat().st_mtime
        except OSError:
            set_up = 0.0
        if set_up > last and now - set_up > 60:
            what = f"Nothing has arrived since the set-up {ago(now - set_up)}."
            mend = "Restart Claude Code and type something"
            found.append(Finding(WARNING, "events", "not-restarted", what, "Running sessions keep their old settings.", mend, facts))
    if now - last > STALE_S:
        what = f"The last event came {ago(now - last)}."
        mend = "Type something in Claude Code, then: sp-telemetry doctor"
        found.append(Finding(WARNING, "events", "stale", what, "Were there no sessions since, or is something wrong?", mend, facts))
    return found


def _contexts(seen: dict[str, Any]) -> list[Finding]:
    requests, unattributed = seen["requests"], seen["unattributed"]
    facts = {"requests": requests, "unattributed": unattributed, "any": bool(seen["last_context"])}
    if not requests:
        return []
    share = unattributed / requests
    what = f"{share:.0%} of the requests have neither feature nor chapter"
    if seen["last_context"]:
        last = ago(time.time() - seen["last_context"])
        return [Finding(OK, "context", "context", f"The last context record came {last}; {what}", facts=facts)]
    why = "Reports show their cost as (unattributed)."
    mend = "Install the plugin, or see: sp-telemetry context"
    return [Finding(WARNING, "context", "no-context", f"No context record has ever come; {what}.", why, mend, facts)]


def _clocks(seen: dict[str, Any]) -> list[Finding]:
    lag, among = seen["lag_s"], seen["installations"]
    facts = {"lag_s": lag, "from_the_future": seen["from_the_future"], "installations": among}
    if abs(lag) > SKEW_S or seen["from_the_future"]:
        when = f"{abs(lag):.0f} s {'late' if lag >= 0 else 'early'}"
        whose = f" of {seen['whose'][:40]}, one of {among} installations," if among > 1 else ""
        what = f"Events{whose} come {when} (median of a day), {seen['from_the_future']} from the future."
        why = "Days and features are cut by the event's own time: it may stand in the wrong day, or outside a report's range."
        return [Finding(WARNING, "clock", "clock-skew", what, why, "Set the clock of the machine that runs Claude Code", facts)]
    what = f"Clocks agree: events arrive {lag:.0f} s after they happened"
    return [Finding(OK, "clock", "clock", what, facts=facts)] if seen["events"] else []


def _unknown(seen: dict[str, Any]) -> list[Finding]:
    events, attributes = sorted(seen["unknown_events"]), sorted(seen["unknown_attributes"])
    if not events and not attributes:
        return []
    parts = [f"{kind}: {', '.join(names)}" for kind, names in (("events", events), ("attributes", attributes)) if names]
    what = f"Claude Code sends what is not known here ({'; '.join(parts)})."
    why = "Reports leave it out; nothing is stored of an unknown value. Nothing known is lost."
    facts = {"events": len(events), "attributes": len(attributes)}
    return [Finding(OK, "events", "unknown-names", what, why, "Update sp-telemetry", facts)]


def _versions(patient: Patient, seen: dict[str, Any]) -> list[Finding]:
    """Flaws of versions that sent events and are not the installed one."""
    found = []
    for text in sorted(seen["versions"]):
        number = client_versions.parse(text)
        if number and number != patient.version:
            found += [finding for finding in spoiled(number, f"Events of the last 30 days come from {text}") if finding.level != OK]
    return found
