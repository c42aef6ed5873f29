"""All targets that need no engine."""

from __future__ import annotations

from tests.fuzz import file_targets, home_targets, hooks_targets, server_targets
from tests.fuzz.targets import TARGETS

__all__ = ["TARGETS", "file_targets", "home_targets", "hooks_targets", "server_targets"]
