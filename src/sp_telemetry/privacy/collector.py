"""The policy as two processors of an OpenTelemetry Collector, `redaction/privacy` and `transform/privacy`, in that order in every pipeline.

What `telemetry-server/otel-collector/privacy/*.yaml` hold; `python -m sp_telemetry.privacy.collector [level]` prints one. The first
removes attributes that the policy does not name and lists their names; the second, in OTTL, makes of the rest what `sql.py` makes of it.
So nothing raw reaches the collector's queue on disk, and the store, which applies the policy again, writes the rows that it would have
written without a collector. Where OTTL can't do what SQL does it takes more away, not less; docs/privacy.md lists where.

A statement that fails drops the request (`error_mode: propagate`): nothing passes half made.
"""

from __future__ import annotations

import sys

from sp_telemetry.privacy.ottl import NAME_ENTRY, OTHER_ENTRY, SALT, Statements, literal
from sp_telemetry.privacy.policy import UNKNOWN_NAMES, Policy
from sp_telemetry.privacy.sql import KNOWN

#: the file that set-up writes; the store has the same salt
SALT_FILE = "${file:${env:TELEMETRY_SECRETS_DIR:-/run/secrets}/telemetry_salt}"
RECORD = "sp_telemetry.context"
MOMENT = r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{1,20}(?:Z|[+-][0-9:]{2,6})?$"


def render(policy: Policy = Policy()) -> str:  # noqa: B008 - it is frozen
    """YAML: `processors` with the two, for logs, metrics and traces."""
    resource = _group("resource", _resource(policy), anchor="resource")
    scope = _group(
        "scope", ['set(scope.name, "")', 'set(scope.version, "")', 'set(scope.schema_url, "")', "set(scope.attributes, {})"], anchor="scope"
    )
    lines = [
        "# Made from src/sp_telemetry/privacy/policy.py by `sp-telemetry privacy render --for collector`; a test keeps the two equal.",
        f"# Level {policy.level}. The second --config of the collector, beside config.yaml.",
        "processors:",
        "  redaction/privacy:",
        "    allow_all_keys: false",
        "    summary: debug # lists the names of what it removed; transform/privacy checks them",
        "    allowed_keys:",
        *(f"      - {name}" for name in sorted(policy.treatments)),
        "  transform/privacy:",
        "    error_mode: propagate # a request that can't be treated is refused, not let through",
        "    log_statements:",
        *resource,
        *scope,
        *_group("log", _file_path(policy, "log"), silent=True),
        *_group("log", _record(policy), f'log.attributes["event.name"] == {literal(RECORD)}'),
        *_group("log", _event(policy), f'log.attributes["event.name"] != {literal(RECORD)}'),
        "    metric_statements:",
        "      - *resource",
        "      - *scope",
        *_group("metric", _metric(policy)),
        *_group("datapoint", _point(policy)),
        *_group("exemplar", ["set(exemplar.filtered_attributes, {})"]),
        "    trace_statements:",
        "      - *resource",
        "      - *scope",
        *_group("span", _file_path(policy, "span"), silent=True),
        *_group("span", _span(policy)),
        *_group("spanevent", _span_event(policy)),
    ]
    return "\n".join(lines) + "\n"


def _group(context: str, statements: list[str], condition: str = "", anchor: str = "", silent: bool = False) -> list[str]:
    """The statements of one context as YAML. In it `$` is written twice, but for the salt's."""
    if not statements:
        return []
    first = f"- &{anchor}\n        context: {context}" if anchor else f"- context: {context}"
    lines = [f"      {first}"]
    if silent:
        lines.append("        error_mode: silent")
    if condition:
        lines += ["        conditions:", f"          - '{condition}'"]
    quoted = (one.replace("$", "$$").replace(SALT, SALT_FILE).replace("'", "''") for one in statements)
    return [*lines, "        statements:", *(f"          - '{one}'" for one in quoted)]


def _resource(policy: Policy) -> list[str]:
    made = Statements("resource", policy)
    made.add('set(resource.schema_url, "")')
    made.attributes(policy.treatments)
    return made.lines


def _file_path(policy: Policy, of: str) -> list[str]:
    """A tool's input names the file where no attribute does. What is no JSON names none; then this statement fails, and silently."""
    if policy.treatments["file_path"] != "relative":
        return []
    path, told = f'{of}.attributes["file_path"]', f'{of}.attributes["tool_input"]'
    wanted = f'({path} == nil or {path} == "") and IsString({told}) and IsMatch({told}, "file_path")'
    return [f'set({path}, ParseJSON({told})["file_path"]) where {wanted}']


def _record(policy: Policy) -> list[str]:
    """A context record of the hooks."""
    made = Statements("log", policy)
    made.attributes(policy.of_records, stay=["event.name"])
    made.add(f"delete_key(log.attributes, {literal(UNKNOWN_NAMES)})", *_bare("log"))
    return made.lines


def _event(policy: Policy) -> list[str]:
    made = Statements("log", policy)
    name, told, moment = made.cached("name"), made.attribute("event.name"), made.attribute("event.timestamp")
    has_name = f'IsString({told}) and {told} != ""'
    made.add(
        f'set({name}, "")',
        f"set({name}, log.body) where IsString(log.body)",
        f'set({name}, log.event_name) where log.event_name != ""',
        f"set({name}, {told}) where {has_name}",
    )
    made.in_text(name, r"(?s)^(.*?)claude_code\.", "${1}")
    made.attributes(policy.treatments, stay=["event.name", "event.timestamp"], texts=_unless_strict(policy, {NAME_ENTRY: name}))
    made.check_name(name)
    made.add(
        f'set({name}, "unnamed") where {name} == {literal(RECORD)} and {has_name}',
        *_bare("log"),
        f"set(log.event_name, {name}) where not ({has_name})",
        f"set({told}, {name}) where {has_name}",
        f'delete_key(log.attributes, "event.name") where not ({has_name})',
        f'delete_key(log.attributes, "event.timestamp") where not (IsString({moment}) and IsMatch({moment}, {literal(MOMENT)}))',
    )
    return made.lines


def _bare(of: str) -> list[str]:
    """What the store keeps nothing of."""
    return [f'set({of}.severity_text, "")', f'set({of}.body, "")', f'set({of}.event_name, "")']


def _unless_strict(policy: Policy, texts: dict[str, str]) -> dict[str, str]:
    return {} if policy.level == "strict" else texts


def _span(policy: Policy) -> list[str]:
    made = Statements("span", policy)
    made.add('set(span.trace_state, "")', "set(span.links, nil)")
    made.attributes(
        policy.treatments, texts=_unless_strict(policy, {NAME_ENTRY: "span.name", OTHER_ENTRY: "span.status.message"}), hashes=False
    )
    made.check_name("span.name")
    if policy.own_attributes.get("error", "text") != "text":
        made.add('set(span.status.message, "")')
    elif policy.level == "strict":
        made.phrases("span.status.message")
    else:
        made.add(f"set(span.status.message, {made.cached('text', OTHER_ENTRY)})")
    made.add(f"delete_key(span.attributes, {literal(UNKNOWN_NAMES)})")
    return made.lines


def _span_event(policy: Policy) -> list[str]:
    made = Statements("spanevent", policy)
    made.add("set(spanevent.attributes, {})")
    if policy.level != "strict":
        made.add(f"set({made.cached('text')}, {{}})", f"set({made.cached('text', NAME_ENTRY)}, spanevent.name)")
        made.redact()
    made.check_name("spanevent.name")
    return made.lines


def _metric(policy: Policy) -> list[str]:
    made = Statements("metric", policy)
    unit = made.cached("text", OTHER_ENTRY)
    made.add('set(metric.description, "")', "set(metric.metadata, {})", f"set({made.cached('text')}, {{}})")
    if policy.level == "strict":
        made.add(f'set({unit}, Concat(["=", metric.unit], ""))')
        made.judge("text", KNOWN, "other-", 8)
    else:
        made.add(f"set({made.cached('text', NAME_ENTRY)}, metric.name)", f"set({unit}, metric.unit)")
        made.redact()
    made.add(f"set(metric.unit, {unit})")
    made.check_name("metric.name")
    return made.lines


def _point(policy: Policy) -> list[str]:
    made = Statements("datapoint", policy)
    made.attributes(policy.treatments, hashes=False)
    made.add(f"delete_key(datapoint.attributes, {literal(UNKNOWN_NAMES)})")
    return made.lines


if __name__ == "__main__":
    print(render(Policy(*sys.argv[1:2])), end="")
