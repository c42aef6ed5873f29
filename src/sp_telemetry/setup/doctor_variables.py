"""How findings speak of a variable that is in force: what it says, who set it, what to do about it."""

from __future__ import annotations

from sp_telemetry.setup import layers
from sp_telemetry.setup.layers import Value

PROTOCOLS = ("http/protobuf", "http/json", "grpc")
ON = ("1", "true", "yes", "on")
SETUP = "sp-telemetry setup"
NO_DATA = "Telemetry is on, everything looks well, and no event arrives."


def mend_of(value: Value | None, name: str) -> str:
    """What to do about variable `name`, by who set it."""
    if value is None or value.layer.name == layers.USER:
        return SETUP if value is None else f"{SETUP} --force"
    if value.layer.name == layers.SHELL:
        return f"unset {name}; {SETUP}"
    if value.layer.name == layers.MANAGED:
        return "Only your administrator can change managed settings"
    return f"Remove {name} from {value.layer.place}"


def shown(name: str, value: Value) -> str:
    """`NAME=value (where)`, without what is a secret in it."""
    return f"{layers.shown(name, value.text)} ({value.layer.place})"


def text_of(force: dict[str, Value], name: str) -> str:
    """The variable's value, empty where it is not set."""
    return force[name].text.strip() if name in force else ""


def protocol_of(force: dict[str, Value]) -> str:
    """That of the events."""
    return text_of(force, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL") or text_of(force, "OTEL_EXPORTER_OTLP_PROTOCOL")
