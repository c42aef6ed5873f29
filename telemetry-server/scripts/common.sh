# shellcheck shell=sh disable=SC2034 # what is set here is used by the scripts
# What the scripts in this folder share, read by each of them: which store is meant, how it is asked with no password on a command
# line, and how they say what they found. Exit codes: 0 fine, 1 found something or failed, 2 wrong usage or nobody there.
umask 077
export LC_ALL=C
# shellcheck disable=SC2154 # set by who reads this file
stack=$(CDPATH='' cd -- "$here/.." && pwd -P) || exit 2
json=no backend='' url='' secrets='' home=''
newline='
'

fail() { # fail CODE SENTENCE [WHAT MENDS IT]
    printf '%s: %s\n' "${0##*/}" "$2" >&2
    [ -z "${3:-}" ] || printf '%s\n' "$3" >&2
    exit "$1"
}

# The options of all of them. Sets `taken` to how many words were read, 0 for an option of the script's own.
common_option() {
    taken=2
    case $1 in
        --home | --backend | --url | --secrets)
            [ -n "${2:-}" ] || fail 2 "$1 takes a value." "--help shows examples." ;;
    esac
    case $1 in
        --home) home=$2 ;;
        --url) url=${2%/} ;;
        --secrets) secrets=$2 ;;
        --backend)
            case $2 in
                embedded | compose) backend=$2 ;;
                *) fail 2 "--backend is '$2'; allowed are embedded, compose." ;;
            esac ;;
        --json) json=yes taken=1 ;;
        --help | -h) usage && exit 0 ;;
        *) taken=0 ;;
    esac
}

need() {
    for command; do
        command -v "$command" >/dev/null 2>&1 || fail 2 "There is no '$command' on PATH." "Install it, then run this again."
    done
}

# ---- which store

set_home() {
    home=${home:-${SP_TELEMETRY_HOME:-}}
    if [ -z "$home" ]; then
        case $(uname -s) in
            Darwin) home="$HOME/Library/Application Support/sp-telemetry" ;;
            *) home=${XDG_DATA_HOME:-$HOME/.local/share}/sp-telemetry ;;
        esac
    fi
    case $home in /*) ;; *) home=$PWD/$home ;; esac
}

# What config.toml says of a setting, unless its variable says something else.
setting() {
    variable=$(printf 'SP_TELEMETRY_%s' "$1" | tr '[:lower:]' '[:upper:]')
    eval "value=\${$variable:-}"
    # shellcheck disable=SC2154 # eval sets it
    [ -n "$value" ] || value=$(sed -n "s/^$1 *= *\"\{0,1\}\([^\"#]*[^\"# ]\)\"\{0,1\} *\(#.*\)\{0,1\}\$/\1/p" "$home/config.toml" 2>/dev/null)
    printf '%s' "${value:-$2}"
}

# A variable of the stack's .env, or its default.
of_env() {
    value=$(sed -n "s/^$1=//p" "$env_file" 2>/dev/null | tail -n 1)
    case $value in
        \'*\') value=${value#\'} value=${value%\'} ;;
        \"*\") value=${value#\"} value=${value%\"} ;;
    esac
    printf '%s' "${value:-$2}"
}

served() { # a port of the running embedded server, or the default
    found=$(sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" "$home/server.json" 2>/dev/null)
    [ -n "$found" ] || found=$(setting "$1_port" "$2")
    printf '%s' "$found"
}

# backend, home, secrets, host and ports, and the address of the store.
find_store() {
    set_home
    [ -n "$backend" ] || backend=$(setting backend embedded)
    env_file=$home/compose/.env folder=$home/compose
    if [ "$backend" = compose ]; then
        # By hand, the stack is run from this very folder.
        [ -f "$env_file" ] || { [ -f "$stack/.env" ] && env_file=$stack/.env folder=$stack; }
        host=$(of_env TELEMETRY_BIND 127.0.0.1)
        otlp_grpc=$(of_env OTLP_GRPC_PORT 4317) otlp_http=$(of_env OTLP_HTTP_PORT 4318) clickhouse=$(of_env CLICKHOUSE_PORT 8123)
        health=$(of_env HEALTH_PORT 13133) metrics=$(of_env METRICS_PORT 8888)
        native=$(of_env CLICKHOUSE_NATIVE_PORT 9000) prometheus=$(of_env PROMETHEUS_PORT 8889)
        given=$(of_env TELEMETRY_SECRETS ./secrets)
        case $given in /*) ;; *) given=$folder/$given ;; esac
        secrets=${secrets:-$given}
    else
        host=$(setting bind 127.0.0.1)
        otlp_grpc=$(served otlp_grpc 4317) otlp_http=$(served otlp_http 4318) clickhouse=$(served clickhouse 8123)
        health=$(served health 13133) metrics=$(served metrics 8888) native='' prometheus=''
        secrets=${secrets:-$home/secrets}
    fi
    case $host in
        0.0.0.0) host=127.0.0.1 ;;
        *:*) host="[$host]" ;;
    esac
    address=${url:-http://$host:$clickhouse} # --url, or the server's
}

container() { # of a service of the running stack; nothing where there is none
    docker ps --quiet --filter "label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-sp-telemetry}" \
        --filter "label=com.docker.compose.service=$1" 2>/dev/null | head -n 1
}

# ---- asking it

# curl with nothing of the user's own configuration and no proxy between.
web() { curl -q --silent --show-error --noproxy '*' --connect-timeout 5 "$@"; }

# ask USER SQL [PASSWORD]: the answer in $answer. Else false, and what was said in $answer, ClickHouse's code in $code (0: nobody answers).
# The name and the password go to curl through a pipe: on a command line every user of the machine could read them.
ask() {
    password=${3:-}
    [ -n "$password" ] || password=$(cat "$secrets/$1" 2>/dev/null) || {
        code=0 answer="$secrets/$1 can't be read"
        return 1
    }
    reply=$(printf 'user = "%s:%s"\n' "$1" "$(printf %s "$password" | sed 's/[\\"]/\\&/g')" |
        web --config - --write-out '\n%{http_code}' --data-binary "$2" "$address/" 2>&1)
    status=${reply##*"$newline"} answer=${reply%"$newline"*}
    answer=${answer%"$newline"}
    [ "$status" = 200 ] && return
    code=$(printf %s "$answer" | sed -n 's/.*Code: \([0-9][0-9]*\)\..*/\1/p' | head -n 1)
    code=${code:-0}
    answer=$(printf %s "$answer" | head -n 1 | cut -c 1-300)
    return 1
}

must_ask() {
    ask "$@" && return
    [ "$code" != 243 ] || fail 1 "The disk of the store is full." "Make room, then run this again."
    fail "$([ "$code" = 0 ] && echo 2 || echo 1)" "$address refused: $answer" "'$here/test-connection.sh' says what is wrong."
}

# ---- saying it

quote() { printf '"%s"' "$(printf %s "$1" | tr '\n\t\r' '   ' | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')"; }

found=0 checks=''
# note ok|warning|error NAME SENTENCE [WHAT MENDS IT]
note() {
    [ "$1" = ok ] || found=1
    if [ "$json" = yes ]; then
        checks="$checks${checks:+, }{\"state\": \"$1\", \"name\": \"$2\", \"found\": $(quote "$3"), \"mend\": $(quote "${4:-}")}"
        return
    fi
    printf '%-8s %s\n' "$1" "$3"
    [ -z "${4:-}" ] || printf '         -> %s\n' "$4"
}

conclude() { # the end of a script of checks
    if [ "$json" = yes ]; then
        printf '{"well": %s, "backend": "%s", "checks": [%s]}\n' "$([ $found = 0 ] && echo true || echo false)" "$backend" "$checks"
    elif [ $found = 0 ]; then
        printf '\nAll is well.\n'
    else
        printf '\nSomething was found; the arrows say what mends it.\n'
    fi
    exit $found
}

free_kib() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }'; }

mode_of() { # -rw------- and the like
    # shellcheck disable=SC2012 # one path, of which only the first letters are read
    ls -ld "$1" 2>/dev/null | cut -c 1-10
}

# ---- backups

hash_program() { # sets $sha256: GNU's on Linux, Perl's on macOS; both write and check the same lines
    if command -v sha256sum >/dev/null 2>&1; then
        sha256=sha256sum
    else
        need shasum
        sha256='shasum -a 256'
    fi
}

backup_is_whole() { # DIR: whether all that .backup names is there to the byte. On a full disk the engine cuts files short and says that all is well
    noted=$(tr '<' '\n' <"$1/.backup" | awk '/^file>/ { size = 0; copy = 0 } /^size>/ { size = substr($0, 6) } /^data_file>/ { copy = 1 }
        /^\/file>/ && !copy { sum += size } /^\/config>/ { whole = 1 } END { if (whole) printf "%.0f", sum }') 2>/dev/null
    there=$(find "$1" -type f ! -name .backup -exec ls -ln {} + | awk '{ sum += $5 } END { printf "%.0f", sum }')
    [ -n "$noted" ] && [ "$noted" = "$there" ]
}

set_service() { # $service: the container whose /backups the engine writes to and reads from; empty with the embedded server
    service=''
    [ "$backend" = compose ] || return 0
    need docker
    service=$(container clickhouse)
    [ -n "$service" ] || fail 2 "No container of the stack runs." "sp-telemetry up"
}

# One backup or restore at a time. A lock whose process is gone is nobody's.
take_lock() {
    lock=$home/backups/.lock
    for _ in 1 2; do
        if mkdir "$lock" 2>/dev/null; then
            echo $$ >"$lock/pid"
            return
        fi
        holder=$(cat "$lock/pid" 2>/dev/null)
        [ -n "$holder" ] || { sleep 1 && holder=$(cat "$lock/pid" 2>/dev/null); }
        [ -z "$holder" ] || ! kill -0 "$holder" 2>/dev/null || fail 1 "Process $holder makes a backup or restores one." "Wait until it has ended."
        rm -rf "$lock"
    done
    fail 1 "$lock can't be taken."
}

drop_lock() { rm -rf "$lock"; }
