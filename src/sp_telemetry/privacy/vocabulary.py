"""Words that Claude Code itself uses: at level `strict` they are all that is kept of what could be somebody's own word.

A value is known when it is one of these, a number, or put together from them with colons, dots, slashes or commas (`PreToolUse:Write`,
`agent:builtin:general-purpose`). Anything else is kept as `other-` and the start of its salted hash: told apart, and not told.
Taken from Claude Code's documentation of its telemetry and from recordings of its versions 2.1.197 and 2.1.330,
and what a request may be for (`query_source`) from these versions themselves.
"""

# ruff: noqa: E501 - a phrase is one line
from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WORDS: frozenset[str] = _words("""
    true false unknown none other custom builtin built-in default mcp third-party merged success failure error ok

    claude-code claude-code-desktop sp-telemetry-setup sp-telemetry-context anthropic firstParty bedrock vertex foundry gateway
    gateway-oidc linux darwin windows win32 freebsd amd64 arm64 x86_64 x64 aarch64 ia32 github gitlab bitbucket azure gitea
    pro max team enterprise premium standard usage_based other
    cli sdk sdk-cli sdk-ts sdk-py claude-vscode claude-in-slack claude-desktop claude-jetbrains local-agent github-action remote
    iTerm.app vscode cursor windsurf zed tmux screen non-interactive Apple_Terminal WezTerm ghostty kitty alacritty
    xterm xterm-256color screen-256color konsole gnome-terminal windows-terminal cygwin ssh-session pycharm intellij webstorm goland
    vim neovim emacs warp WarpTerminal hyper tabby conhost dumb Hyper rio foot terminator tilix

    low medium high xhigh max auto minimal fast normal standard main subagent auxiliary agent repl_main_thread compact
    generate_session_title interaction llm_request tool hook standalone input output cacheRead cacheCreation added removed user
    tool.blocked_on_user tool.execution blocked_on_user execution session_memory prompt_suggestion web_search web_fetch
    side_question insights away_summary title summary hook_prompt hook_agent verification sideQuery side_query
    web_search_tool web_fetch_apply extract_memories extract_memories_first_look rename_generate_name teleport_generate_title auto_mode
    auto_mode_critique auto_mode_setup_propose auto_dream agent_summary agent_classifier agent_creation agent_namer model_validation
    tool_use_summary_generation resume_cache_warm permission_explainer bash_extract_prefix session_search speculation repl_sampling
    mcp_datetime_parse subagent_config_classifier context_tip_classifier context_tip_reception fleet_agent_suggestions first_tasks_read
    ship_pr_texts plugin_eval_mock plugin_eval_judge artifact_comment_reply artifact_comment_fast_ack artifact_comment_triage
    artifact_comment_analyst comparison_fork

    fresh resume continue agents_view startup clear change refused first-wins merge single env

    accept reject allow deny ask config hook user_permanent user_temporary user_abort user_reject plan acceptEdits bypassPermissions
    dontAsk shift_tab exit_plan_mode auto_gate_denied auto_opt_in login logout oauth api_key apiKey claudeai console token setup-token

    stdio sse http ws sse-ide ws-ide websocket sdk project local dynamic enterprise claudeai managed connected failed
    disconnected needs-auth pending sdk_host_builtin_mcp

    userSettings projectSettings localSettings flagSettings policySettings pluginHook bundled plugin official community org
    user-local default-bundle default-enable org-policy admin-install seed-mount user-install ui cli user-slash claude-proactive
    nested-skill workflow file directory mcp_resource peer appeared responded transcript_prompt_appeared session complete skipped
    user_source_disabled settings_unknowable settings_invalid_key_set hit miss_custom_instructions miss_hook miss_not_ready manual

    PreToolUse PostToolUse PostToolUseFailure PostToolBatch PermissionRequest PermissionDenied UserPromptSubmit UserPromptExpansion
    SessionStart SessionEnd Setup Stop StopFailure SubagentStart SubagentStop PreCompact PostCompact Notification ConfigChange CwdChanged
    FileChanged InstructionsLoaded WorktreeCreate WorktreeRemove Elicitation ElicitationResult TaskCreated TaskCompleted TeammateIdle
    PreModelSwitch PostModelSwitch MessageDisplay StatusLine command prompt mcp_tool

    Agent AskUserQuestion Bash BashOutput Brief Config CronCreate CronDelete CronList Edit EnterPlanMode EnterWorktree ExitPlanMode
    ExitWorktree Explore Glob Grep KillBash KillShell LS LSP ListMcpResourcesTool ListMcpResources ListPeers Monitor MultiEdit
    NotebookEdit NotebookRead Plan PowerShell PushNotification REPL Read ReadMcpResourceTool ReadMcpResource RemoteTrigger SendMessage
    SendUserFile SendUserMessage Skill SlashCommand Sleep SendFile StructuredOutput Task TaskCreate TaskGet TaskList TaskOutput TaskStop
    TaskUpdate TeamCreate TeamDelete TodoRead TodoWrite ToolSearch WebFetch WebSearch Workflow Write mcp_tool mcp_auth

    general-purpose statusline-setup output-style-setup claude-code-guide custom_skill claude claude-api simplify batch debug loop
    cc-plugin-agents-md cc-plugin-plugin-authoring cc-plugin-privacy claude-plugins-official claude-code-marketplace

    file_read file_write file_search text_transform vcs shell_builtin network package_manager build test process interpreter container
    database archive system compiler editor

    end_turn tool_use max_tokens stop_sequence pause_turn refusal model_context_window_exceeded branch tag commit execute_tool
    invoke_agent chat

    connection timeout rate_limit rate_limit_error overloaded overloaded_error authentication authentication_error permission_error
    not_found not_found_error invalid_request invalid_request_error request_too_large api_error server_error billing_error
    timeout_error server_overload client_error tool_error network_error aborted cancelled

    ShellError TelemetrySafeError Error TypeError RangeError SyntaxError ReferenceError URIError EvalError AggregateError AbortError
    APIError APIConnectionError APIConnectionTimeoutError APIUserAbortError AuthenticationError BadRequestError InternalServerError
    NotFoundError PermissionDeniedError RateLimitError UnprocessableEntityError ConflictError OverloadedError TimeoutError ValidationError
    InputValidationError ZodError McpError FetchError DOMException SystemError AxiosError ConfigParseError MaxFileReadTokenExceededError
    FileTooLargeError MalformedCommandError FallbackTriggeredError ImageSizeError CannotRetryError ExitError ENOENT EACCES EPERM EEXIST
    EISDIR ENOTDIR ENOTEMPTY EMFILE ENFILE ENOSPC EROFS EBUSY EXDEV ETIMEDOUT ECONNREFUSED ECONNRESET ECONNABORTED EHOSTUNREACH
    ENETUNREACH ENOTFOUND EAI_AGAIN EPIPE EADDRINUSE EINVAL ELOOP ENAMETOOLONG UND_ERR_CONNECT_TIMEOUT UND_ERR_HEADERS_TIMEOUT
    UND_ERR_BODY_TIMEOUT UND_ERR_SOCKET ERR_STREAM_PREMATURE_CLOSE CERT_HAS_EXPIRED SELF_SIGNED_CERT_IN_CHAIN
    UNABLE_TO_VERIFY_LEAF_SIGNATURE DEPTH_ZERO_SELF_SIGNED_CERT

    constitution specify clarify tasks analyze checklist implement validate review speckit sp spec-kit
    add-dir agents bashes btw bug chrome clear color compact config context copy cost desktop diff doctor effort exit
    export extra-usage fast feedback fork help hooks ide init install-github-app install-slack-app keybindings login logout memory
    mobile model output-style passes permissions plan plugin plugins pr-comments privacy-settings quit release-notes reload-plugins
    reload-skills remote-control remote-env rename resume rewind sandbox schedule security-review settings skills stats status statusline stickers
    teleport terminal-setup theme todos upgrade usage vim voice sp.telemetry-setup telemetry-setup telemetry-report telemetry

    Python TypeScript JavaScript Java Go Rust C C++ C# Ruby PHP Swift Kotlin Scala Shell Markdown JSON YAML TOML HTML CSS SCSS SQL
    Dockerfile Makefile XML Vue Svelte Dart Lua Perl R Haskell Elixir Erlang Clojure Zig GraphQL Text
    python typescript javascript java go rust c cpp csharp ruby php swift kotlin scala shell bash markdown json yaml toml html css sql
    typescriptreact javascriptreact plaintext

    USD tokens ms s By 1 sum gauge histogram exponential_histogram summary delta cumulative

    cd git grep sed wc ls cat head tail find rg awk echo npm npx node python python3 pip pytest make cargo docker kubectl gh curl wget jq
    mkdir rm cp mv touch chmod tar sort uniq diff test tsc eslint ruff uv pnpm yarn
""")

#: What a name of an attribute or event that is not known may be made of at level `strict`, beside the words of those that are.
NAME_WORDS: frozenset[str] = _words("""
    sp setup check whole claude cloud commit exponential histogram gauge summary pull lines of edit decision make
    a an active actual another brand event one after age all api app args attribute auto average batch before begin bool bucket byte bytes call calls chars class
    client code column config cost count counter created current data date day days delay delta depth desktop detail details device
    blocked disabled disk done download duration elapsed enabled end engine entry env exit expired extra failed failures feature field file files
    final finished first flag flags format from full future global gpu group groups hash high hit hits host hour hours id idle ids index
    info initial inner input interval is item items job key kind label last latency length level limit line lines list local low main major
    max mean memory method micros millis min minor minutes miss misses mode models module ms name names network new next none now ns num number
    offset old on open operation option order os other outer output page pages parent part parts pending percent phase pid plan port
    previous priority process product protocol provider queue queued rate ratio raw reason received region remaining remote request requests
    reset resource response result results retries retry role root row rows rule run runs runtime sample scope score second seconds
    sends sent sequence server service session set shard shared signal size skipped slot source span speed stage start started state
    status step steps stop stream sub sum surface system table tag task team thread tier time timeout times timestamp to token
    tokens top total trace trigger turn turns type unit unknown update updated upload us usage used user value values variant version
    wait waiting warning week window with write year zone
""")

#: What is kept of an error's text at level `strict`: for each look that is found in it the phrase, and nothing of the text itself.
PHRASES: tuple[tuple[str, str], ...] = (
    *((f"HTTP {code}", rf"(^|[^0-9]){code}([^0-9]|$)") for code in (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)),
    ("overloaded", r"(?i)overloaded"),
    ("rate limit", r"(?i)rate[ _]limit|too many requests"),
    ("usage limit reached", r"(?i)usage limit reached|limit reached"),
    ("internal server error", r"(?i)internal server error|api_error"),
    ("service unavailable", r"(?i)service unavailable|bad gateway"),
    ("invalid request", r"(?i)invalid[ _]request|value is not allowed|field required"),
    ("prompt too long", r"(?i)prompt (is )?too long|context window|exceed context limit"),
    ("max_tokens too large", r"(?i)max_tokens( too large|: [0-9]+ >)"),
    ("request too large", r"(?i)request[ _]too[ _]large"),
    ("credit balance too low", r"(?i)credit balance (is )?too low"),
    ("authentication", r"(?i)authentication|invalid (x-)?api[ -]key|oauth token|please run /login"),
    ("permission denied", r"(?i)permission[ _](denied|error)|eacces|eperm|operation not permitted"),
    ("timed out", r"(?i)timed?[ _]?out"),
    ("connection", r"(?i)connection|econn|enotfound|eai_again|network|socket hang up"),
    ("certificate", r"(?i)certificate|self[ _]signed|(^|[^a-z])(ssl|tls)([^a-z]|$)"),
    ("aborted", r"(?i)abort|cancel+ed|interrupted"),
    ("rejected by the person", r"(?i)rejected by the person|user (rejected|denied|doesn't want)"),
    ("blocked by a hook", r"(?i)blocked by a hook|hook .*(blocked|denied)"),
    ("sandbox", r"(?i)sandbox"),
    ("command failed", r"(?i)command failed"),
    ("command not found", r"(?i)command not found"),
    *((f"exit code {code}", rf"(?i)exit(ed with)? (code|status) {code}([^0-9]|$)") for code in (1, 2, 3, 4, 5, 124, 126, 127, 128, 130, 134, 137, 139, 143)),
    ("file does not exist", r"(?i)file does not exist|no such file|enoent"),
    ("file not read yet", r"(?i)file not read yet|has not been read yet"),
    ("file was changed since", r"(?i)file was changed since|modified since read|unexpectedly modified"),
    ("file too large", r"(?i)file too large|exceeds maximum allowed"),
    ("text to replace not found", r"(?i)to replace not found"),
    ("text to replace found more than once", r"(?i)to replace found more|matches of the string to replace"),
    ("nothing to change", r"(?i)nothing to change|no changes to make"),
    ("is a directory", r"(?i)is a directory|eisdir"),
    ("no space left", r"(?i)no space left|enospc|quota exceeded"),
    ("out of memory", r"(?i)out of memory|enomem|heap limit"),
    ("invalid input", r"(?i)invalid input|inputvalidationerror|input should be"),
    ("ShellError", r"ShellError"),
    ("TelemetrySafeError", r"TelemetrySafeError"),
)
