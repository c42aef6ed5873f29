"""Asks a report and what stands under it, and puts both into one value that renderers and programs read."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from sp_telemetry.errors import NothingStored
from sp_telemetry.reports import catalogue
from sp_telemetry.reports.catalogue import ATTRIBUTED, UNATTRIBUTED, Report
from sp_telemetry.reports.coverage import counted
from sp_telemetry.reports.figures import cut
from sp_telemetry.reports.parameters import Parameters


class Answering(Protocol):
    """What a report asks of a client, from two threads: an answer whose `records()` are rows as dictionaries. See `store.client.Client`."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = ...) -> Any: ...


@dataclass(frozen=True)
class Result:
    """A report's answer. `rows` are the groups, unattributed last; `total` is over all groups, `more` counts those beyond the limit."""

    report: Report
    parameters: Parameters
    rows: list[dict[str, Any]]
    total: dict[str, Any]
    coverage: dict[str, Any]
    more: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "report": self.report.name,
            "parameters": self.parameters.as_dict(),
            "rows": self.rows,
            "total": self.total,
            "coverage": self.coverage,
        }


def ask(client: Answering, report: Report, parameters: Parameters) -> Result:
    """The answer to `report`. Raises NothingStored where there is nothing to answer with."""
    asked = parameters.for_query()
    answers, under = _both(client, report.sql(sums=False), catalogue.query("coverage.sql"), asked)
    events_since = _events_since(client, under[0]["events_since"], parameters.start)
    if events_since and report.sums:  # seldom
        answers = client.query(report.sql(), asked).records()
    total = next(row for row in answers if row["row"] == "total")
    groups = [row for row in answers if row["row"] != "total"]
    if not groups:
        raise _nothing(client, report, parameters)
    names = [column.name for column in report.columns]
    rows = [_row(parameters.by, names, row) for row in groups]
    if len(parameters.by) == 1 and parameters.by[0] in ATTRIBUTED and groups[-1]["row"] != "unattributed":
        rows.append({parameters.by[0]: UNATTRIBUTED} | {name: _none_of(total[name]) for name in names})  # that it is nothing is worth a row
    coverage = {
        **under[0],
        "events_since": events_since,
        "unattributed": total["unattributed"],
        "unattributed_share": total["unattributed"] / total[report.main] if total[report.main] else 0.0,
        "unpriced_requests": total.get("unpriced_requests"),
        "unpriced_tokens": total.get("unpriced_tokens"),
        "under_plan": total.get("under_plan"),
        "plans": total.get("plans"),
        "source": report.source,
    }
    return Result(report, parameters, rows, {name: total[name] for name in names}, coverage, total["groups"] - len(groups))


def _events_since(client: Answering, since: str, start: datetime) -> str | None:
    """The moment (UTC) from which on every event is there, in the zone of `start`; None where nothing that began since `start` has gone."""
    kept = datetime.fromisoformat(since).replace(tzinfo=UTC)
    if kept <= start:
        return None
    asked = {"from": math.ceil(start.timestamp()), "since": since}  # a start in 1970 may be in 1969 of UTC
    hours = "telemetry.usage_hourly WHERE toUnixTimestamp(hour) >= {from:Int64} AND hour < {since:DateTime('UTC')}"
    return kept.astimezone(start.tzinfo).isoformat() if client.query(f"SELECT count() AS n FROM {hours}", asked).records()[0]["n"] else None


def _both(client: Answering, first: str, second: str, asked: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Two questions at once: of a small store the engine's time is mostly planning, on one core each."""
    answers: list[Any] = [None, None]

    def put(place: int, sql: str) -> None:
        try:
            answers[place] = client.query(sql, asked).records()
        except BaseException as error:
            answers[place] = error

    beside = threading.Thread(target=put, args=(1, second), daemon=True)
    beside.start()
    put(0, first)
    beside.join()
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def _row(by: tuple[str, ...], names: list[str], row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[f"group_{place}"] for place, name in enumerate(by, 1)} | {name: row[name] for name in names}


def _none_of(value: Any) -> Any:
    """What a group of no events has in a column: 0 of what is counted, nothing of what is measured."""
    return type(value)() if isinstance(value, int | float) else None


def _nothing(client: Answering, report: Report, parameters: Parameters) -> NothingStored:
    stored = client.query("SELECT count() AS events, max(timestamp) AS newest FROM telemetry.telemetry_events").records()[0]
    if not stored["events"]:
        return NothingStored(
            "Nothing is stored yet.",
            "`/sp.telemetry-setup` in Claude Code switches telemetry on; `sp-telemetry demo` shows reports on recorded sessions.",
        )
    wanted = ", ".join(f"{name} {cut(value, 80)}" for name, value in parameters.filters.items())
    end = f"{parameters.end:%Y-%m-%d %H:%M}" if parameters.end else "now"
    range = f"from {parameters.start:%Y-%m-%d %H:%M} to {end} ({parameters.zone})"
    newest = f"The newest of {counted(stored['events'], 'stored event')} is of {str(stored['newest'])[:16]} UTC"
    named = [name for name in parameters.filters if name in report.groupings]
    if datetime.fromisoformat(str(stored["newest"])[:19]).replace(tzinfo=UTC) < parameters.start.replace(microsecond=0):
        hint = f"{newest}; --since goes further back."
    elif named:
        hint = f"{newest}. `sp-telemetry report {report.name} --by {named[0]}` shows which there are."
    else:
        hint = f"{newest}, and this report reads {report.source}. `sp-telemetry doctor` says whether there should be some."
    return NothingStored(f"Nothing for {report.name} {range}{' with ' + wanted if wanted else ''}.", hint)
