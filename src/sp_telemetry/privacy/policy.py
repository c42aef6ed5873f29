"""The privacy policy, defined once: what is kept, at each level, of each attribute that Claude Code can export.

An allow-list. What is not named here is not stored: of an unknown attribute nothing but the name is kept, so that a new client version
is noticed. `sql.py` renders this to the functions that the store's views use, `collector.py` to the processors of an OpenTelemetry
Collector; nothing else decides. What an attribute is (`ATTRIBUTES`) and how much is kept of such a thing (`KEPT`) are told apart, so a
level is one column. The policy is idempotent: applied to what it left, it changes nothing.

At `strict` nothing is kept that a person or a model wrote, and no name of a file. What the product is about is kept at every level
and goes through the same redaction: the person, the model, project, branch, feature, chapter, directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sp_telemetry.privacy.patterns import PATTERNS, Pattern

LEVELS = ("strict", "standard", "full")
WORD_LIMIT = 300
CONTENT_LIMIT = 10_000

#: treatment -> what is done
TREATMENTS = {
    "number": "a non-negative number, whichever type it has on the wire",
    "identifier": "kept when it looks like one of Claude Code's identifiers, else its salted hash",
    "known": "kept when Claude Code's own vocabulary has it, else `other-` and the start of its salted hash",
    "version": "kept when it looks like a version, else `other-` and the start of its salted hash",
    "phrases": "fixed phrases for what is recognised in it (`overloaded`, `exit code 1`, …), else `other`; no part of the text itself",
    "person": "like text, but an e-mail address and nothing else stays: it names whoever chose it as their name",
    "text": f"one line, redacted, cut to {WORD_LIMIT} characters",
    "relative": "file extension, and the path relative to the repository where that is known; redacted",
    "content": f"redacted, cut to {CONTENT_LIMIT:,} characters, beside its salted hash",
    "hash": "salted SHA-256",
    "drop": "not stored in any form",
}

#: kind -> treatment at strict, standard, full
KEPT: dict[str, tuple[str, str, str]] = {
    "number": ("number", "number", "number"),
    "identifier": ("identifier", "identifier", "identifier"),
    "version": ("version", "text", "text"),
    "word": ("known", "text", "text"),
    "name": ("text", "text", "text"),
    "person": ("person", "person", "person"),
    "error": ("phrases", "text", "text"),
    "file": ("drop", "relative", "relative"),
    "content": ("hash", "hash", "content"),
    "repeated": ("drop", "drop", "content"),
    "address": ("hash", "hash", "hash"),
    "unused": ("drop", "drop", "drop"),
}


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: attribute -> what it is
ATTRIBUTES: dict[str, str] = {
    **dict.fromkeys(
        _words("""
            cost_usd input_tokens output_tokens cache_read_tokens cache_creation_tokens cache_creation_5m_tokens
            cache_creation_1h_tokens duration_ms total_duration_ms ttft_ms attempt total_attempts prompt_length response_length
            tool_input_size_bytes tool_result_size_bytes event.sequence
        """),
        "number",
    ),
    **dict.fromkeys(
        _words("""
            session.id prompt.id message.uuid request_id client_request_id tool_use_id agent_id parent_agent_id workflow.run_id
            request_body_id message.id ccr.session.id gen_ai.response.id gen_ai.tool.call.id gen_ai.conversation.id plugin_id_hash
            vcs.ref.head.revision user.account_uuid organization.id
        """),
        "identifier",
    ),
    **dict.fromkeys(_words("service.version app.version plugin.version wsl.version"), "version"),
    # What the product is about: who, for what, with which model. Kept at every level, redacted.
    **dict.fromkeys(
        _words("user.id model final_model gen_ai.request.model gen_ai.response.model vcs.repository.name vcs.ref.head.name"), "name"
    ),
    **dict.fromkeys(_words("enduser.id context.person"), "person"),
    # What the client says in words of its own, and the names that people give to tools, commands, skills, agents, plugins.
    **dict.fromkeys(
        _words("""
            app.entrypoint terminal.type service.name os.type host.arch query_source speed effort agent.name skill.name plugin.name
            mcp_server.name mcp_tool.name status_code error_type error_name command_name command_source tool_name decision
            decision_source source success event.name

            hook_event hook_type hook_source hook_name num_hooks num_success num_blocking num_non_blocking_error num_cancelled
            managed_only safe_mode stdout_chars additional_context_chars system_message_chars initial_user_message_chars
            num_outputs_persisted trigger pre_tokens post_tokens precompute_reuse agent_type agent.source is_built_in is_async
            total_tokens total_tool_uses model_swapped workflow.name from_mode to_mode permission_mode tool_source mcp_server_scope
            server_scope server_name transport_type status action auth_method error_category error_code server_fallback_hop
            has_category has_explanation category total_retry_duration_ms is_plugin plugin.scope marketplace.name
            marketplace.is_official install.trigger enabled_via has_hooks has_mcp host_owned_mcp skill_path_count
            command_path_count agent_path_count invocation_trigger skill.source skill.kind mention_type event_type survey_type
            response_type enabled_via_override result period_days used_default skip_reason transcripts_deleted
            transcripts_exempted_desktop session_files_deleted artifacts_deleted files_retained_fresh files_past_cutoff error_count
            managed_settings.trigger managed_settings.source_behavior managed_settings.helper.state
            managed_settings.helper.applied body_length body_truncated cost_usd_micros anthropic.provider
            anthropic.custom_base_url anthropic.plan anthropic.seat_type identity.source vcs.provider.name vcs.ref.head.type type
            start_type language span.type interaction.sequence interaction.duration_ms user_prompt_length parent.source gen_ai.system
            gen_ai.provider.name gen_ai.operation.name gen_ai.tool.name query_source_safe llm_request.context first_content_ms error_class
            error.type response.has_tool_call stop_reason tool_name_safe bash_command_class bash_argv0 result_tokens queued_sends
            subagent_type skill_name gen_ai.usage.input_tokens gen_ai.usage.output_tokens gen_ai.usage.cache_read.input_tokens
            gen_ai.usage.cache_write.input_tokens
        """),
        "word",
    ),
    "error": "error",
    "file_path": "file",
    **dict.fromkeys(_words("prompt response tool_input tool_parameters"), "content"),
    **dict.fromkeys(_words("user_prompt full_command"), "repeated"),  # of spans: their events have it, hashed
    "user.email": "address",
    **dict.fromkeys(
        _words("""
            body body_ref system_prompt hook_definitions hook_matcher managed_settings.sources managed_settings.settings
            managed_settings.settings_truncated managed_settings.resolved_sha256 managed_settings.helper.entry
            managed_settings.helper.path workspace.host_paths user.groups user.account_id os.version host.name host.id process.pid
            process.command process.command_args process.owner process.executable.path process.executable.name
            process.runtime.version process.runtime.name process.runtime.description plugin_id new_context system_reminders
            system_prompt_preview user_system_prompt response.model_output content output diff bash_command
            vcs.repository.url.full vcs.owner.name event.timestamp appearance_id gen_ai.response.finish_reasons
            prompt_text event.name telemetry.sdk.name telemetry.sdk.version telemetry.sdk.language

            context.project context.branch context.feature context.chapter context.part context.step context.directory
            context.spec_directory context.worktree context.feature_source context.chapter_source context.hook context.confidence
            context.record_id
            redaction.redacted.keys redaction.redacted.count redaction.masked.keys redaction.masked.count redaction.ignored.count
        """),
        "unused",
    ),
}

#: Of a context record (the hooks', `sp_telemetry.context`) what becomes of each attribute, at every level.
CONTEXT: dict[str, str] = {
    **dict.fromkeys(
        _words("""
            context.project context.branch context.feature context.chapter context.part context.step context.directory
            context.spec_directory context.worktree context.feature_source context.chapter_source context.hook
        """),
        "text",
    ),
    "context.person": "person",
    "context.confidence": "number",
    "context.record_id": "identifier",
    "session.id": "identifier",
}

#: Where a collector that applied the policy lists the names of attributes that it did not know, with commas between.
UNKNOWN_NAMES = "redaction.redacted.keys"

#: Attributes that have a column of their own in `telemetry_events`; the others that are kept go into its map `attributes`.
COLUMNS = frozenset(
    _words("""
    user.id enduser.id user.account_uuid organization.id app.entrypoint terminal.type service.name service.version os.type host.arch
    anthropic.plan anthropic.seat_type vcs.repository.name model query_source speed effort agent.name skill.name plugin.name
    mcp_server.name mcp_tool.name status_code error_type error_name command_name command_source tool_name decision decision_source source
    success error
""")
)
#: Identifiers that have one, and are looked up by.
ID_COLUMNS = frozenset(_words("session.id prompt.id message.uuid request_id client_request_id tool_use_id"))
#: Attributes whose hash has a column.
HASH_COLUMNS = frozenset(_words("prompt response tool_input tool_parameters user.email"))

#: Every event of Claude Code that is known; others are kept under a checked name and reported as unknown.
EVENTS = _words("""
    user_prompt assistant_response api_request api_error api_refusal api_retries_exhausted api_request_body api_response_body
    tool_result tool_decision permission_mode_changed auth mcp_server_connection internal_error plugin_installed plugin_loaded
    skill_activated at_mention hook_registered hook_execution_start hook_execution_complete hook_plugin_metrics compaction
    subagent_completed feedback_survey retention_sweep managed_settings_resolved system_prompt
""")


@dataclass(frozen=True)
class Policy:
    """What is in force: a level, and the rules of this installation (`own.py`): more patterns, and treatments by attribute."""

    level: str = "strict"
    own_patterns: tuple[Pattern, ...] = ()
    own_attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """Own patterns first: what they name is then named so."""
        return (*self.own_patterns, *PATTERNS)

    @property
    def treatments(self) -> dict[str, str]:
        """attribute -> treatment"""
        number = LEVELS.index(self.level)
        return {name: KEPT[kind][number] for name, kind in ATTRIBUTES.items()} | dict(self.own_attributes)

    @property
    def of_records(self) -> dict[str, str]:
        """The same of a context record. Identifiers stay, by which it is told from a copy and belongs to its session."""
        rules = {name: treatment for name, treatment in self.own_attributes.items() if CONTEXT.get(name) not in (None, "identifier")}
        return CONTEXT | rules

    def keeps_all_of(self, other: Policy) -> bool:
        """Whether all that `other` keeps is kept by this one too. Never said of other rules of one's own, which can't be compared."""
        rules = (self.own_patterns, self.own_attributes) == (other.own_patterns, other.own_attributes)
        return rules and LEVELS.index(self.level) >= LEVELS.index(other.level)
