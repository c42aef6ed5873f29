# The Python environment of this checkout: found when it is good, made when it is not. Sourced, POSIX sh.
#
# Expects `root` (the checkout, absolute). Sets `venv` and `python`, and exports what isolates us from the caller's Python.
#
#   SP_TELEMETRY_VENV   where the environment lies; default: .venv in the checkout, or `venv` in SP_TELEMETRY_HOME where the
#                       checkout can't be written, or is the client's copy of one version of the plugin
#
# It holds requirements.lock, the copy of the lock that it was made from. It is complete when that is there, for it is built
# beside its place and renamed into it. One without that file is not ours and is never touched.
#
# Exit codes, beside the command line's own (errors.py):
readonly NO_PYTHON=10 NO_VENV=11 NO_NETWORK=12 NO_SPACE=13 BUSY=14 INSTALL_FAILED=15 NOT_OURS=16

say() { printf 'sp-telemetry: %s\n' "$*" >&2; }

give_up() { # code, sentence
    code=$1 && shift
    say "$*"
    exit "$code"
}

choose_venv() {
    if [ -n "${SP_TELEMETRY_VENV:-}" ]; then
        case $SP_TELEMETRY_VENV in
            /*) venv=${SP_TELEMETRY_VENV%/} ;;
            *) venv=$PWD/${SP_TELEMETRY_VENV%/} ;;
        esac
    else
        case $root in
            # A copy that Claude Code keeps of one version of the plugin; the next version is another folder, and this one goes.
            */plugins/cache/*) in_home=yes ;;
            *) [ -w "$root" ] && in_home=no || in_home=yes ;;
        esac
        venv=$root/.venv
        [ $in_home = no ] || { home_directory && venv=$home/venv; }
    fi
    python=$venv/bin/python
}

home_directory() { # the same as settings.default_home
    # shellcheck disable=SC2088  # the tilde is text here: somebody wrote it in quotes
    case ${SP_TELEMETRY_HOME:-} in
        '') ;;
        '~/'*) home=$(user_directory)/${SP_TELEMETRY_HOME#??} && return ;;
        /*) home=$SP_TELEMETRY_HOME && return ;;
        *) home=$PWD/$SP_TELEMETRY_HOME && return ;;
    esac
    case $(uname -s) in
        Darwin) home="$(user_directory)/Library/Application Support/sp-telemetry" ;;
        *) home=${XDG_DATA_HOME:-$(user_directory)/.local/share}/sp-telemetry ;;
    esac
}

user_directory() { # HOME may be unset in a service or a container
    if [ -n "${HOME:-}" ]; then printf %s "$HOME"; else eval "printf %s ~$(id -un)"; fi
}

use_environment() { # lock ...: the environment holds them all when this returns; the last one includes the others
    choose_venv
    # PYTHONPATH makes a moved checkout work, and hides the caller's. PYTHONSAFEPATH keeps the working directory out of
    # sys.path: a book's repository may hold a rich.py. PYTHONHOME would point the environment at another Python's library.
    export PYTHONPATH="$root/src" PYTHONSAFEPATH=1 PYTHONUTF8=1
    unset PYTHONHOME
    [ -n "${HOME:-}" ] || unset HOME # empty would be taken for the root directory; without it the user's entry decides
    if ! holds "$@"; then make_environment "$@"; fi
}

holds() {
    [ -x "$python" ] || return 1 # also when the Python that it was made with is gone
    for lock in "$@"; do
        # cmp is one process; where a system lacks it (127), the shell compares.
        cmp -s "$root/$lock" "$venv/$lock" ||
            { [ $? -gt 1 ] && [ -e "$venv/$lock" ] && [ "$(cat "$root/$lock")" = "$(cat "$venv/$lock")" ]; } || return 1
    done
}

make_environment() {
    if [ -e "$venv" ] && [ ! -e "$venv/requirements.lock" ] && [ -n "$(ls -A "$venv")" ]; then
        give_up $NOT_OURS "$venv exists and was not made by this command; move it away, or name another place in SP_TELEMETRY_VENV."
    fi
    mkdir -p "${venv%/*}" 2>/dev/null ||
        give_up $NO_SPACE "${venv%/*} can't be made; name a place that can be written in SP_TELEMETRY_VENV."
    new=$venv.new.$$ old=$venv.old.$$ lock_dir=$venv.lock installer=
    trap 'abandon; exit 129' HUP
    trap 'abandon; exit 130' INT
    trap 'abandon; exit 143' TERM
    trap abandon EXIT
    take_lock
    if ! holds "$@"; then # another one may have made it while we waited
        if holds requirements.lock && [ ! -e "$venv/incomplete" ]; then
            add_locks "$@"
        else
            build "$@"
        fi
    fi
    abandon
    trap - EXIT HUP INT TERM
}

take_lock() {
    waited=0
    until mkdir "$lock_dir" 2>/dev/null; do
        [ -d "$lock_dir" ] || give_up $NO_SPACE "${venv%/*} can't be written, or is full; name another place in SP_TELEMETRY_VENV."
        owner=$(cat "$lock_dir/pid" 2>/dev/null)
        if [ -z "$owner" ] && [ $waited -lt 5 ]; then
            : # taken this moment, or by one that died in that moment
        elif [ -z "$owner" ] || ! alive "$owner"; then
            # Its owner died. Renamed first, so that of several who see it only one removes it.
            mv "$lock_dir" "$lock_dir.$$" 2>/dev/null && rm -rf "$lock_dir.$$"
            continue
        elif [ $waited -eq 1 ]; then
            say "another process ($owner) is making the environment; waiting for it"
        elif [ $waited -ge 900 ]; then
            give_up $BUSY "process $owner has held $lock_dir for 15 minutes; end it, or remove that directory."
        fi
        sleep 1
        waited=$((waited + 1))
    done
    lock_taken=yes
    echo $$ >"$lock_dir/pid" || give_up $NO_SPACE "$lock_dir can't be written: the disk is full."
    rm -rf "$venv".new.* "$venv".old.* # of those that were killed
}

alive() { # another user's process can't be signalled; a zombie, where nothing reaps orphans, can, and is dead
    kill -0 "$1" 2>/dev/null || [ -d "/proc/$1" ] || return 1
    case $(cat "/proc/$1/stat" 2>/dev/null) in *') Z '* | *') X '*) return 1 ;; esac
}

abandon() { # also the ordinary end
    if [ -n "$installer" ]; then kill "$installer" 2>/dev/null && wait "$installer" 2>/dev/null; fi
    installer=
    rm -rf "$new" "$old"
    if [ -n "${lock_taken:-}" ]; then rm -rf "$lock_dir"; fi
    lock_taken=
}

build() {
    find_installer
    say "making the environment in $venv with ${uv:+uv and }Python $version ($base)"
    say "  once: about 200 MB to fetch and 630 MB on the disk, nearly all of it chdb-core, the database engine"
    mkdir "$new" || give_up $NO_SPACE "$new can't be made; name a place that can be written in SP_TELEMETRY_VENV."
    if [ -n "$uv" ]; then
        watch "$uv" venv --quiet $no_cache --no-project --allow-existing --python "$base" "$new"
    else
        watch "$base" -I -m venv "$new"
    fi
    for lock in "$@"; do :; done
    install "$new" "$lock" # the last one: each holds what those before it hold
    # Scripts name the place where they were made; that changes now.
    "$new/bin/python" -I -c '
import pathlib, sys
old, new = (path.encode() for path in sys.argv[1:])
for file in pathlib.Path(sys.argv[1], "bin").iterdir():
    if not file.is_symlink() and file.stat().st_size < 100_000 and old in file.read_bytes():
        file.write_bytes(file.read_bytes().replace(old, new))' "$new" "$venv" ||
        give_up $INSTALL_FAILED "the scripts in $new/bin can't be written."
    for lock in "$@"; do stamp "$new" "$lock"; done
    rm -f "$new/log"
    if [ -e "$venv" ]; then mv "$venv" "$old"; fi
    mv "$new" "$venv" || give_up $NO_SPACE "$venv can't be put in place."
    say "environment ready after $seconds s"
}

add_locks() { # further packages at the same versions: what runs stays as it is, so this may be done in place
    find_installer
    : >"$venv/incomplete"
    for lock in "$@"; do
        if ! holds "$lock"; then
            say "adding what $lock names to $venv"
            install "$venv" "$lock"
            stamp "$venv" "$lock"
        fi
    done
    rm -f "$venv/incomplete" "$venv/log"
}

stamp() { cp "$root/$2" "$1/$2" || give_up $NO_SPACE "$1 can't be written: the disk is full."; }

install() { # environment, lock
    # Wheels only: building would need compilers, take minutes and run what the lock's hashes do not cover.
    if [ -n "$uv" ]; then
        watch "$uv" pip install $no_cache --no-progress --python "$1/bin/python" --no-deps --require-hashes --only-binary :all: \
            --compile-bytecode -r "$root/$2"
    else
        watch "$1/bin/python" -I -m pip install --progress-bar off --no-input --disable-pip-version-check --no-deps --require-hashes \
            --only-binary :all: -r "$root/$2"
    fi
}

# The newest Python that we run on and that can make an environment. Sets base (its path), version and uv (empty without).
find_installer() {
    uv=$(command -v uv) || uv=
    no_cache= # uv, unlike pip, fails without a cache that it can write
    if [ -n "$uv" ]; then
        cache=$("$uv" cache dir 2>/dev/null) && mkdir -p "$cache" 2>/dev/null && [ -w "$cache" ] || no_cache=--no-cache
    fi
    no_venv='' seen=''
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        command -v "$name" >/dev/null 2>&1 || continue
        probe "$name" && return
    done
    # uv knows Pythons that are not on PATH. It is not asked to fetch one: that would lie outside our directory.
    if [ -n "$uv" ] && name=$("$uv" python find --no-project --no-python-downloads '>=3.11,<3.15' 2>/dev/null); then
        probe "$name" && return
    fi
    if [ -n "$no_venv" ]; then
        version=${no_venv%% *}
        give_up $NO_VENV "Python $no_venv lacks the module ensurepip, which makes environments; install it" \
            "(Debian, Ubuntu: apt install python${version%.*}-venv) or uv, and run this again."
    fi
    give_up $NO_PYTHON "Python 3.11 to 3.14 is needed; found ${seen:-none}. Install one${uv:+ (uv python install 3.13)} and run this again."
}

probe() { # name or path: true when it will do
    # One line: where it really is (an update that takes it away is then noticed), version, whether it fits, whether it can
    # make environments. -I: neither the caller's variables nor the working directory change the answer.
    answer=$("$1" -I -c '
import os, sys
try:
    import ensurepip, venv
except ImportError:
    venv = None
fits = (3, 11) <= sys.version_info[:2] <= (3, 14)
base = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
print("%d.%d.%d" % sys.version_info[:3], "fits" if fits else "no", "venv" if venv else "no", base)' 2>/dev/null) || return 1
    version=${answer%% *} base=${answer#* * * }
    case $answer in
        *' fits venv '*) ;;
        *' fits no '*)
            if [ -z "$uv" ]; then
                no_venv=${no_venv:-"$version ($base)"}
                return 1
            fi
            ;;
        *)
            seen="${seen:+$seen, }$version ($1)"
            return 1
            ;;
    esac
}

watch() { # command ...: run it with its output in a log, say what it does now and then, and explain its failure
    log=${new}/log
    [ -d "$new" ] || log=$venv/log
    started=${started:-$(date +%s)} seconds=0 told=${told:-0}
    # In our directory, for uv reads settings from the project around it; and with none of pip's that aim elsewhere. Whatever
    # names an index or a proxy holds.
    (cd "$root" && unset PIP_TARGET PIP_PREFIX && export PIP_USER=0 && exec "$@") >"$log" 2>&1 &
    installer=$!
    while kill -0 $installer 2>/dev/null; do
        sleep 0.2 2>/dev/null || sleep 1
        seconds=$(($(date +%s) - started))
        if [ $((seconds - told)) -ge 5 ]; then
            told=$seconds
            say "  $seconds s: $(tail -n 1 "$log" | sed 's/^ *//; s/^$/unpacking/' | cut -c 1-100)"
        fi
    done
    wait $installer
    code=$?
    installer=
    [ $code -eq 0 ] || explain
}

explain() { # the log of the installer that failed, as one sentence
    has() { grep -qiE "$1" "$log"; }
    tail -n 5 "$log" | sed "s/^/    /" | cut -c 1-200 >&2
    if has 'no space left|errno 28|os error 28|disk quota'; then
        give_up $NO_SPACE "the disk is full: ${venv%/*} needs about 900 MB while the environment is made." \
            "Nothing was kept; make room and run this again."
    elif has 'THESE PACKAGES DO NOT MATCH THE HASHES|hash mismatch'; then
        give_up $INSTALL_FAILED "a package is not the one that the lock file names, so nothing was installed;" \
            "try again, and if it stays tell us."
    elif has 'name resolution|name or service not known|nodename nor servname|dns error|network is unreachable|no route to host' ||
        has 'connection (refused|reset|aborted)|failed to establish|connecttimeout|timed out|proxyerror' ||
        has 'error sending request|certificate verify failed|failed to fetch'; then
        give_up $NO_NETWORK "the package index can't be reached; check the network" \
            "(or PIP_INDEX_URL, UV_INDEX_URL, HTTPS_PROXY) and run this again."
    elif has 'no matching distribution|no solution found|no wheels|has no usable wheels|no compatible'; then
        give_up $INSTALL_FAILED "a package has no build for this machine with Python $version;" \
            "supported are Linux (glibc) and macOS, 64-bit Intel or ARM, Python 3.11 to 3.14."
    fi
    give_up $INSTALL_FAILED "the environment could not be made; the last lines above say why. Nothing was kept."
}
