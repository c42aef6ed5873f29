#!/bin/sh
# What hooks.json runs: finds a Python and hands the call on stdin to hook.py. Whatever happens: exit 0, nothing on stderr.
#
#   run.sh WHAT      session | prompt | cwd | edit | bash | report
#
# A prompt is looked at behind the client's back: it has nothing to be told, and its answer takes the model longer than this. It goes on
# after the start of a shell, a tenth of Python's. An edit and a moved HEAD are waited for: the next tool call may come within
# milliseconds, and what a file was edited on has to be seen before that.
#
# CLAUDE_PLUGIN_DATA holds two caches that keep this cheap; both can be deleted at any time:
#   python           the interpreter that hook.py last ran under (a version manager's shim costs ten times its start)
#   heads/SESSION    directory, HEAD file and its first line when the context was last looked at
# SP_TELEMETRY_HOOKS=0 switches every hook off, `wait` lets the client wait for each; SP_TELEMETRY_PYTHON names the only interpreter to try.

[ "${SP_TELEMETRY_HOOKS:-1}" != 0 ] || exit 0
data=${CLAUDE_PLUGIN_DATA:-}

# Most Bash calls leave directory and HEAD as they were. The shell alone can see that.
if [ "$1" = bash ] && [ -n "$data" ] &&
    { IFS= read -r directory && IFS= read -r head && IFS= read -r was; } 2>/dev/null <"$data/heads/${CLAUDE_CODE_SESSION_ID:-none}" &&
    [ "$directory" = "$PWD" ] && IFS= read -r is 2>/dev/null <"$head" && [ "$is" = "$was" ]; then
    exit 0
fi

what=$1
hook() { # interpreter, where it came from
    "$1" -I -S -X utf8 "${0%/*}/hook.py" "$what" "$2" "$PWD" 2>/dev/null
}

observe() { # interpreter ...: those to try
    if [ -z "${SP_TELEMETRY_PYTHON:-}" ] && [ -n "$data" ] && IFS= read -r python 2>/dev/null <"$data/python" && [ -x "$python" ]; then
        hook "$python" cache && return
        rm -f "$data/python" 2>/dev/null
    fi
    for python in "$@"; do
        found=$(command -v "$python" 2>/dev/null) || continue
        # Without the developer tools, macOS answers a call of its python3 with a window that offers to install them.
        if [ "$found" = /usr/bin/python3 ] && [ -x /usr/bin/xcode-select ] &&
            [ ! -d /Library/Developer/CommandLineTools ] && [ ! -d /Applications/Xcode.app ]; then
            continue
        fi
        hook "$found" "${SP_TELEMETRY_PYTHON:-path}" && return
    done
    # No Python of 3.9 or later ran. One small file says so to `sp-telemetry doctor`.
    if [ -n "$data" ]; then
        { mkdir -p "$data" && printf 'no Python 3.9 or later was found by the hooks\n' >"$data/no-python"; } 2>/dev/null
    fi
}

if [ -n "${SP_TELEMETRY_PYTHON:-}" ]; then
    set -- "$SP_TELEMETRY_PYTHON"
else
    set -- python3 /opt/homebrew/bin/python3 /usr/local/bin/python3 /usr/bin/python3
fi
case $what:${SP_TELEMETRY_HOOKS:-1} in
    prompt:1) # The call is read whole first: what the client has not written when we end, it never writes. And nobody may hold its stdout.
        { call=$(cat); } 2>/dev/null
        (exec >/dev/null 2>&1 && printf %s "$call" | observe "$@") &
        ;;
    *) observe "$@" ;;
esac
exit 0
