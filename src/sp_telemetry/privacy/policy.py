"""The privacy policy, defined once: what happens to each attribute that Claude Code can export.

An allow-list. What is not named here is not stored: of an unknown attribute the name is kept (so that a new client version is
noticed) and its value as a salted hash. `sql.py` renders this to the functions that the store's views use; nothing else decides.

Treatments:

- ``identifier``: kept when it looks like one of Claude Code's identifiers, else hashed;
- ``number``:     a non-negative number, whichever type it has on the wire;
- ``word``:       one line of text, the parts that match a pattern replaced, cut to `WORD_LIMIT` characters;
- ``person``:     a word too, but a text that is an e-mail address and nothing else stays: it names whoever chose it as their name;
- ``keep``:       a word too, in the map `attributes` rather than in a column;
- ``hash``:       salted SHA-256 (and its length, where the client sends one);
- ``drop``:       known, and never stored in any form.
"""

from __future__ import annotations

from dataclasses import dataclass

WORD_LIMIT = 300
TREATMENTS = ("identifier", "number", "word", "person", "keep", "hash", "drop")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


#: attribute -> treatment
ATTRIBUTES: dict[str, str] = {
    **dict.fromkeys(
        _words("""
            cost_usd input_tokens output_tokens cache_read_tokens cache_creation_tokens cache_creation_5m_tokens
            cache_creation_1h_tokens duration_ms total_duration_ms ttft_ms attempt total_attempts prompt_length response_length
            tool_input_size_bytes tool_result_size_bytes event.sequence
        """),
        "number",
    ),
    **dict.fromkeys(_words("enduser.id context.person"), "person"),
    **dict.fromkeys(_words("session.id prompt.id message.uuid request_id client_request_id tool_use_id"), "identifier"),
    **dict.fromkeys(
        _words("""
            user.id user.account_uuid organization.id app.entrypoint terminal.type service.name service.version
            os.type host.arch vcs.repository.name model query_source speed effort agent.name skill.name plugin.name
            mcp_server.name mcp_tool.name status_code error_type error_name command_name command_source tool_name decision
            decision_source source success error event.name
        """),
        "word",
    ),
    **dict.fromkeys(
        _words("""
            hook_event hook_type hook_source hook_name num_hooks num_success num_blocking num_non_blocking_error num_cancelled
            managed_only safe_mode stdout_chars additional_context_chars system_message_chars initial_user_message_chars
            num_outputs_persisted trigger pre_tokens post_tokens precompute_reuse agent_type agent.source is_built_in is_async
            total_tokens total_tool_uses final_model model_swapped agent_id parent_agent_id workflow.run_id workflow.name
            from_mode to_mode permission_mode tool_source mcp_server_scope server_scope transport_type status action auth_method
            error_category error_code server_fallback_hop has_category has_explanation category total_retry_duration_ms
            is_plugin plugin_id_hash plugin.version plugin.scope marketplace.name marketplace.is_official install.trigger
            enabled_via has_hooks has_mcp host_owned_mcp skill_path_count command_path_count agent_path_count
            invocation_trigger skill.source skill.kind mention_type event_type survey_type response_type
            enabled_via_override result period_days used_default skip_reason transcripts_deleted transcripts_exempted_desktop
            session_files_deleted artifacts_deleted files_retained_fresh files_past_cutoff error_count
            managed_settings.trigger managed_settings.source_behavior managed_settings.helper.state
            managed_settings.helper.applied body_length body_truncated request_body_id message.id cost_usd_micros
            anthropic.provider anthropic.custom_base_url identity.source ccr.session.id wsl.version vcs.provider.name
            vcs.ref.head.revision vcs.ref.head.name vcs.ref.head.type type start_type language app.version
            span.type interaction.sequence interaction.duration_ms user_prompt_length parent.source gen_ai.system
            gen_ai.request.model query_source_safe llm_request.context first_content_ms gen_ai.response.id error_class
            response.has_tool_call stop_reason tool_name_safe bash_command_class result_tokens gen_ai.tool.call.id
        """),
        "keep",
    ),
    **dict.fromkeys(_words("prompt prompt_text response tool_input tool_parameters user.email user_prompt full_command"), "hash"),
    **dict.fromkeys(
        _words("""
            body body_ref system_prompt hook_definitions hook_matcher managed_settings.sources managed_settings.settings
            managed_settings.settings_truncated managed_settings.resolved_sha256 managed_settings.helper.entry
            managed_settings.helper.path workspace.host_paths user.groups user.account_id os.version host.name host.id process.pid
            process.command process.command_args process.owner process.executable.path process.executable.name
            process.runtime.version process.runtime.name process.runtime.description server_name plugin_id file_path
            new_context system_reminders system_prompt_preview user_system_prompt response.model_output content output diff
            bash_command bash_argv0 vcs.repository.url.full vcs.owner.name event.timestamp appearance_id subagent_type skill_name
            gen_ai.response.finish_reasons telemetry.sdk.name telemetry.sdk.version telemetry.sdk.language
        """),
        "drop",
    ),
}

#: Every event of Claude Code that is known; others are kept under a checked name and reported as unknown.
EVENTS = _words("""
    user_prompt assistant_response api_request api_error api_refusal api_retries_exhausted api_request_body api_response_body
    tool_result tool_decision permission_mode_changed auth mcp_server_connection internal_error plugin_installed plugin_loaded
    skill_activated at_mention hook_registered hook_execution_start hook_execution_complete hook_plugin_metrics compaction
    subagent_completed feedback_survey retention_sweep managed_settings_resolved system_prompt
""")


@dataclass(frozen=True)
class Pattern:
    """A secret's or a person's mark in text: RE2 syntax, and what stands in its place."""

    name: str
    regex: str
    replacement: str = ""

    @property
    def text(self) -> str:
        return self.replacement or f"<{self.name}>"


#: Applied in this order to every text that is kept. The specific ones come first.
PATTERNS: tuple[Pattern, ...] = (
    Pattern("private-key", r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)"),
    Pattern("url-password", r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@:]*:[^\s/@]+@", r"\1<credentials>@"),
    Pattern("jwt", r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*"),
    Pattern("anthropic-key", r"\bsk-ant-[A-Za-z0-9_-]{8,}"),
    Pattern("openai-key", r"\bsk-[A-Za-z0-9_-]{16,}"),
    Pattern("github-token", r"\b(gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,})"),
    Pattern("gitlab-token", r"\bgl(pat|ptt|dt|rt|cbt|soat)-[A-Za-z0-9_-]{10,}"),
    Pattern("aws-key", r"\b(AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{12,}"),
    Pattern("google-key", r"\b(AIza[A-Za-z0-9_-]{20,}|ya29\.[A-Za-z0-9_-]{10,})"),
    Pattern("slack-token", r"\bxox[abeoprs]-[A-Za-z0-9-]{8,}"),
    Pattern("stripe-key", r"\b(sk|rk|pk)_(live|test)_[A-Za-z0-9]{8,}"),
    Pattern("package-token", r"\b(npm_[A-Za-z0-9]{20,}|pypi-[A-Za-z0-9_-]{16,})"),
    Pattern("hub-token", r"\b(hf_[A-Za-z0-9]{16,}|dckr_pat_[A-Za-z0-9_-]{16,}|dop_v1_[a-f0-9]{32,})"),
    Pattern(
        "assigned-secret",
        r"(?i)\b(password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key|authorization)(\"?\s*[=:]\s*\"?(bearer\s+|basic\s+)?)[^\s\"',;]{3,}",
        r"\1\2<secret>",
    ),
    Pattern("bearer", r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]{8,}", "bearer <secret>"),
    Pattern("email", r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"),
    Pattern("home", r"(/home/|/Users/|/root\b/?|[A-Za-z]:\\+Users\\+)[^/\\\s\"']*", "~"),
    Pattern("iban", r"\b[A-Z]{2}[0-9]{2}( ?[A-Z0-9]{4}){3,7}( ?[A-Z0-9]{1,3})?\b"),
    Pattern("card", r"\b[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{1,7}\b"),
    Pattern("ip-address", r"\b[0-9]{1,3}(\.[0-9]{1,3}){3}\b"),
)
