"""What a person types, as the parameters of a query: ranges of time in a zone, groupings, filters.

A moment is worked out here, once, and given to each query of a report in UTC, so that all of them ask about the same range.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from sp_telemetry.errors import UsageError
from sp_telemetry.reports.catalogue import REPORTS, Report

_AGE = re.compile(r"(\d{1,18})\s*(h|d|w)")
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
    """The report called `name`, or UsageError with those there are: the audit, a command of its own, can be asked for as one."""
    if name not in REPORTS:
        known = (*REPORTS, "audit")
        raise UsageError(f"There is no report {name!r}.{_meant(name, known)}", "Reports are " + _listed(known) + ".")
    return REPORTS[name]


def parameters(
    report: Report,
    *,
    by: str | None = None,
    since: str | None = None,
    start: str | None = None,
    end: str | None = None,
    tz: str | None = None,
    timezone: str = "",
    filters: Mapping[str, str | None] | None = None,
    limit: int = 0,
    now: datetime | None = None,
) -> Parameters:
    """Checked parameters of `report`, or UsageError with what is allowed. `timezone`: the setting."""
    refuse_empty(by=by, tz=tz, **(filters or {}))
    zone = zone_in_force(tz, timezone)
    begin, until = time_range(since, start, end, zone, now or datetime.now(UTC))
    if limit < 0:
        raise UsageError(f"--limit is {limit}; expected 0 (all) or more.")
    kept = {name: value.strip() for name, value in (filters or {}).items() if value}
    if kept.get("type") and report.types and kept["type"] not in report.types:
        raise UsageError(f"--type is {kept['type']!r}; the report {report.name} reads {_listed(report.types)}.")
    return Parameters(groupings(report, by), begin, until, zone.key, kept, limit)


def refuse_empty(**options: str | None) -> None:
    """Raises UsageError for an option without a value, as a variable that a shell doesn't know leaves one: what it was to narrow is not
    everything."""
    for name, value in options.items():
        if value is not None and not value.strip():
            raise UsageError(f"--{name} is empty.", "Give it a value, or leave it out.")


def time_range(
    since: str | None, start: str | None, end: str | None, zone: ZoneInfo, now: datetime
) -> tuple[datetime, datetime | None]:
    """Where the range begins that --since, --from and --to name, and where it ends (None: open). Raises UsageError."""
    refuse_empty(**{"since": since, "from": start, "to": end})
    if since and start:
        raise UsageError("--since and --from both say where the range begins.", "Give one of them.")
    begin = moment(start, zone, "--from") if start else age(since or DEFAULT_SINCE, zone, now)
    until = moment(end, zone, "--to", whole_day=True) if end else None
    if until and until.timestamp() <= begin.timestamp():  # of one zone Python compares what its clock shows, and an hour comes twice
        raise UsageError(f"The range ends ({until:%Y-%m-%d %H:%M}) before it begins ({begin:%Y-%m-%d %H:%M}).")
    return begin, until


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
        return _readable(datetime(day.year, day.month, day.day, tzinfo=zone), text, "--since")
    except OverflowError:
        raise UsageError(f"--since is {text!r}, which is before there was anything to store.") from None


def moment(text: str, zone: ZoneInfo, option: str, whole_day: bool = False) -> datetime:
    """A day or a moment in `zone` (or with an offset of its own). With `whole_day`, a day means its end."""
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{option} is {text!r}; expected a day (2026-11-16) or a moment (2026-11-16T09:30).") from None
    try:
        if parsed.tzinfo:
            return _readable(parsed.astimezone(zone), text, option)
        if whole_day and _is_day(text.strip()):
            parsed += timedelta(days=1)
    except OverflowError:  # the first and the last of all days
        parsed = datetime.min
    return _readable(parsed.replace(tzinfo=zone), text, option)


def _is_day(text: str) -> bool:
    """Whether it names no time: 2026-11-30, 20261130, 2026-W49-1."""
    try:
        return bool(date.fromisoformat(text))
    except ValueError:
        return False


def zone_in_force(tz: str | None = None, timezone: str = "") -> ZoneInfo:
    """The zone in which days are cut: the one asked for, else that of the setting `timezone`, else the machine's."""
    if tz:
        return zone_named(tz, "--tz")
    return zone_named(timezone, "The setting timezone") if timezone else zone_named(machine_zone(), "TZ")


def machine_zone(environ: Mapping[str, str] = os.environ) -> str:
    """The name of the machine's time zone, UTC where it does not say one. TZ may name a file too: `:/etc/localtime`."""
    named = environ.get("TZ", "").removeprefix(":")
    if named and not named.startswith("/"):
        return named
    target = os.path.realpath(named or "/etc/localtime")
    if "zoneinfo/" in target:
        return target.split("zoneinfo/", 1)[1].removeprefix("posix/").removeprefix("Etc/")
    return "UTC"


def zone_named(name: str, origin: str) -> ZoneInfo:
    """The zone called `name`, or UsageError that says where the name came from."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        from zoneinfo import available_timezones

        meant = _meant(name, sorted(available_timezones()))
        hint = "" if origin == "--tz" else "The setting timezone (SP_TELEMETRY_TIMEZONE, or in config.toml) names the one to cut days in."
        raise UsageError(f"{origin} is {name!r}; expected a time zone by name, like Europe/Berlin.{meant}", hint) from None


def _readable(when: datetime, text: str, option: str) -> datetime:
    if not 1970 <= when.year < 2200:
        raise UsageError(f"{option} is {text!r}, which is outside of 1970 to 2199.")
    return when


def _utc(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _meant(name: str, allowed: tuple[str, ...] | list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, allowed, 1)
    return f" Did you mean {near[0]}?" if near else ""


def _listed(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
