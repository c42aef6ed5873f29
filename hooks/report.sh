#!/bin/sh
# A report as text that fits a session: `report.sh cost --chapter 33`; without arguments, what there is. Always exit 0, for a skill's
# shell line that fails takes the whole skill with it.
#
#   SP_TELEMETRY_CLI   the command line to call instead of this checkout's (tests)

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
root=${here%/*}
[ "${1:-}" != explain ] || shift

cli=${SP_TELEMETRY_CLI:-}
if [ -z "$cli" ]; then
    cli=$root/scripts/sp-telemetry
    # The launcher makes its environment at its first run, which takes minutes: not in the middle of a session.
    home=${SP_TELEMETRY_HOME:-${XDG_DATA_HOME:-${HOME:-}/.local/share}/sp-telemetry}
    ready=no
    for venv in "${SP_TELEMETRY_VENV:-$root/.venv}" "$home/venv" "${HOME:-}/Library/Application Support/sp-telemetry/venv"; do
        [ ! -x "$venv/bin/python" ] || ready=yes
    done
    if [ $ready = no ]; then
        echo "sp-telemetry is not set up on this machine yet: type /sp.telemetry-setup"
        exit 0
    fi
fi
format=text
for argument in "$@"; do
    case $argument in --format | --format=* | --json) format= ;; esac
done
# Claude Code tells its hooks how wide the terminal is, and keeps ten columns of it for itself.
case ${COLUMNS:-} in
    [1-9][0-9] | [1-9][0-9][0-9]) width=$((COLUMNS - 10)) ;;
    *) width=80 ;;
esac
NO_COLOR=1 COLUMNS=$width "$cli" report "$@" ${format:+--format "$format"} </dev/null 2>&1
exit 0
