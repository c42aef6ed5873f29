"""What a person types, as the parameters of a query: ranges of time in a zone, groupings, filters.

A moment is worked out here, once, and given to each query of a report in UTC, so that all of them ask about the same range.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from sp_telemetry.errors import UsageError
from sp_telemetry.reports.catalogue import REPORTS, Report

_AGE = re.compile(r"(\d+)\s*(h|d|w)")
DEFAULT_SINCE = "30d"


@dataclass(frozen=True)
class Parameters:
    """What one report is asked. `start` is included, `end` is not; without `end` the range is open."""

    by: tuple[str, ...]
    start: datetime
    end: datetime | None
    zone: str
    filters: Mapping[str, str]
    limit: int

    def for_query(self) -> dict[str, str]:
        """As the typed parameters of the .sql files."""
        asked = {"by": ",".join(self.by), "from": _utc(self.start), "to": _utc(self.end) if self.end else "", "tz": self.zone}
        asked |= {name: self.filters.get(name, "") for name in FILTERS}
        return asked | {"limit": str(self.limit)}

    def as_dict(self) -> dict[str, object]:
        """As a program reads them back (`--format json`)."""
        end = self.end.isoformat() if self.end else None
        return {
            "by": list(self.by),
            "from": self.start.isoformat(),
            "to": end,
            "tz": self.zone,
            **{name: self.filters.get(name) for name in FILTERS},
            "limit": self.limit or None,
        }


FILTERS = ("user", "feature", "chapter", "session", "type")


def chosen(name: str) -> Report:
    """The report called `name`, or UsageError with those there are."""
    if name not in REPORTS:
        raise UsageError(f"There is no report {name!r}.{_meant(name, tuple(REPORTS))}", "Reports are " + _listed(tuple(REPORTS)) + ".")
    return REPORTS[name]


def parameters(
    report: Report,
    *,
    by: str | None = None,
    since: str | None = None,
    start: str | None = None,
    end: str | None = None,
    tz: str | None = None,
    filters: Mapping[str, str | None] | None = None,
    limit: int = 0,
    now: datetime | None = None,
) -> Parameters:
    """Checked parameters of `report`, or UsageError with what is allowed."""
    zone = zone_named(tz or machine_zone())
    now = now or datetime.now(UTC)
    if since and start:
        raise UsageError("--since and --from both say where the range begins.", "Give one of them.")
    begin = moment(start, zone, "--from") if start else age(since or DEFAULT_SINCE, zone, now)
    until = moment(end, zone, "--to", whole_day=True) if end else None
    if until and until <= begin:
        raise UsageError(f"The range ends ({until:%Y-%m-%d %H:%M}) before it begins ({begin:%Y-%m-%d %H:%M}).")
    if limit < 0:
        raise UsageError(f"--limit is {limit}; expected 0 (all) or more.")
    kept = {name: value.strip() for name, value in (filters or {}).items() if value and value.strip()}
    if kept.get("type") and report.types and kept["type"] not in report.types:
        raise UsageError(f"--type is {kept['type']!r}; the report {report.name} reads {_listed(report.types)}.")
    return Parameters(groupings(report, by), begin, until, zone.key, kept, limit)


def groupings(report: Report, by: str | None) -> tuple[str, ...]:
    """`chapter`, `day,chapter`, … as names that this report knows, in the order given."""
    names = tuple(dict.fromkeys(name.strip() for name in (by or report.default_by).split(",") if name.strip()))
    for name in names:
        if name not in report.groupings:
            raise UsageError(f"--by is {name!r}, which {report.name} can't be grouped by.{_meant(name, report.groupings)}",
                             "Allowed are " + ", ".join(report.groupings) + ", or up to three of them with commas.")
    if not 1 <= len(names) <= 3:
        raise UsageError(f"--by names {len(names)} groupings; expected one to three.")
    return names


def age(text: str, zone: ZoneInfo, now: datetime) -> datetime:
    """The moment `text` ago: hours to the minute; days and weeks from midnight in `zone`, so that days are whole."""
    found = _AGE.fullmatch(text.strip().lower())
    if not found or not int(found[1]):
        raise UsageError(f"--since is {text!r}; expected an age like 12h, 7d or 4w.", "A moment or a day goes to --from.")
    number, unit = int(found[1]), found[2]
    local = now.astimezone(zone)
    try:
        if unit == "h":
            return (now - timedelta(hours=number)).astimezone(zone)
        day = local.date() - timedelta(days=number * (7 if unit == "w" else 1))
        return _readable(datetime(day.year, day.month, day.day, tzinfo=zone), text)
    except OverflowError:
        raise UsageError(f"--since is {text!r}, which is before there was anything to store.") from None


def moment(text: str, zone: ZoneInfo, option: str, whole_day: bool = False) -> datetime:
    """A day or a moment in `zone` (or with an offset of its own). With `whole_day`, a day means its end."""
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{option} is {text!r}; expected a day (2026-11-16) or a moment (2026-11-16T09:30).") from None
    if parsed.tzinfo:
        return _readable(parsed.astimezone(zone), text)
    if whole_day and re.fullmatch(r"[\d-]+", text.strip()):
        parsed += timedelta(days=1)
    return _readable(parsed.replace(tzinfo=zone), text)


def machine_zone(environ: Mapping[str, str] = os.environ) -> str:
    """The name of the machine's time zone, UTC where it does not say one."""
    if environ.get("TZ"):
        return environ["TZ"].removeprefix(":")
    target = os.path.realpath("/etc/localtime")
    if "zoneinfo/" in target:
        return target.split("zoneinfo/", 1)[1].removeprefix("posix/").removeprefix("Etc/")
    return "UTC"


def zone_named(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        from zoneinfo import available_timezones

        meant = _meant(name, sorted(available_timezones()))
        raise UsageError(f"The time zone is {name!r}; expected a name like Europe/Berlin.{meant}") from None


def _readable(when: datetime, text: str) -> datetime:
    if not 1970 <= when.year < 2200:
        raise UsageError(f"{text!r} is outside of 1970 to 2199.")
    return when


def _utc(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _meant(name: str, allowed: tuple[str, ...] | list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, allowed, 1)
    return f" Did you mean {near[0]}?" if near else ""


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
