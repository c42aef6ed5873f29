"""What is wrong, why it matters, and what mends it. Looks only; each part looks by itself, so that one broken thing hides no other.

A finding's `facts` hold nothing private (numbers, versions, names of variables, words from fixed lists): what a person may pass on is
made of them and of the code, never of the sentences.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sp_telemetry.errors import SpTelemetryError
from sp_telemetry.home import Home, here
from sp_telemetry.settings import Settings
from sp_telemetry.setup import client_versions

OK, WARNING, ERROR = "ok", "warning", "error"
EXIT_CODES = {OK: 0, WARNING: 1, ERROR: 2}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `code` is stable; `mend` is a command, or what to do."""

    level: str
    area: str
    code: str
    what: str
    why: str = ""
    mend: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Patient:
    """What the parts look at, and what one of them found out for the next."""

    home: Home
    settings: Settings
    environ: Mapping[str, str]
    directory: Path
    managed: tuple[Path, ...] | None
    client: client_versions.Client | None = None
    #: what to export to, and whether a server of this home answers
    endpoint_port: int = 0
    server_runs: bool = False
    telemetry_on: bool = False

    @property
    def version(self) -> tuple[int, ...] | None:
        return self.client.version or None if self.client else None


@dataclass(frozen=True)
class Examination:
    """All findings, in the order in which a person would ask."""

    findings: list[Finding]
    seconds: float

    @property
    def level(self) -> str:
        return max((finding.level for finding in self.findings), key=EXIT_CODES.__getitem__, default=OK)

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.level]

    def as_dict(self) -> dict[str, Any]:
        return {"level": self.level, "seconds": self.seconds, "findings": [asdict(finding) for finding in self.findings]}


def examine(
    home: Home, environ: Mapping[str, str] = os.environ, directory: Path | None = None, managed: tuple[Path, ...] | None = None
) -> Examination:
    """Look at everything. Raises only for a config.toml that can't be read, and for a current directory that is gone."""
    from sp_telemetry.setup import doctor_client, doctor_server, doctor_settings, doctor_store, policy

    begun = time.monotonic()
    patient = Patient(home, home.settings(), environ, directory or here(), managed)
    findings: list[Finding] = []
    parts: tuple[Callable[[Patient], list[Finding]], ...] = (
        doctor_client.version,
        doctor_server.server,
        doctor_settings.settings,
        doctor_client.hooks,
        doctor_client.spool,
        doctor_store.store,
        doctor_store.own_prices,
        doctor_store.damaged,
        policy.look,
        policy.stored,
        doctor_server.disk,
    )
    for part in parts:
        try:
            findings.extend(part(patient))
        except (SpTelemetryError, OSError, ValueError) as error:
            what = f"{part.__name__} could not be looked at: {error}"
            facts = {"part": part.__name__, "error": type(error).__name__}
            why, mend = "What it would say is unknown.", getattr(error, "hint", "")
            findings.append(Finding(ERROR, part.__name__, "look-failed", what, why, mend, facts))
    return Examination(findings, round(time.monotonic() - begun, 2))


def ago(seconds: float) -> str:
    """`2 hours ago`, as findings say it."""
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
