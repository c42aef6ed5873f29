#!/bin/sh
# Has this machine what the server needs, and is nothing in its way? Changes nothing.
set -u
here=$(CDPATH='' cd -- "${0%/*}" && pwd -P) || exit 2
# shellcheck source=telemetry-server/scripts/common.sh
. "$here/common.sh"

usage() {
    cat <<'TEXT'
usage: verify-setup.sh [--backend embedded|compose] [--home DIR] [--secrets DIR] [--json]

Looks at programs and their versions (Docker and Compose, or Python), at the files of the installation and who may read them, at the
ports and who holds them, at disk and memory. It can be run before and after set-up, while the server runs or not; it changes nothing.

  --backend   for which server [the setting `backend`, else embedded]
  --home      the installation's directory [SP_TELEMETRY_HOME, else the platform's place]
  --secrets   the directory with the passwords [the one that the server has]
  --json      one JSON object

exit codes: 0 all is well, 1 something was found, 2 wrong usage

examples:
  verify-setup.sh
  verify-setup.sh --backend compose
  verify-setup.sh --json
TEXT
}

while [ $# -gt 0 ]; do
    common_option "$@"
    [ "$taken" -gt 0 ] || fail 2 "'$1' is not an option." "--help shows examples."
    shift "$taken"
done
need sed tr awk
find_store

at_least() { # at_least WANTED HAD, of versions like 2.20
    printf '%s %s\n' "$1" "${2#v}" | awk '{ split($1, w, "."); split($2, h, "."); exit !(h[1] + 0 > w[1] + 0 || (h[1] + 0 == w[1] + 0 && h[2] + 0 >= w[2] + 0)) }'
}

# ---- programs

if command -v curl >/dev/null 2>&1; then
    note ok curl "$(curl -q --version | awk 'NR == 1 { print $1, $2 }')"
else
    note error curl "There is no curl, which the scripts here use" "Install curl"
fi
answers=no
if [ "$backend" = compose ]; then
    if ! command -v docker >/dev/null 2>&1; then
        note error docker "There is no docker on PATH" "Install Docker, or use the embedded server: --backend embedded"
    else
        if version=$(docker version --format '{{.Server.Version}}' 2>/dev/null) && [ -n "$version" ]; then
            answers=yes
            if at_least 20.10 "$version"; then
                note ok docker "Docker Engine $version"
            else
                note error docker "Docker Engine $version is older than 20.10" "Update Docker"
            fi
        else
            note error docker "Docker does not answer" "Start it, and see that you may use it: \`docker version\` says why not"
        fi
        version=$(docker compose version --short 2>/dev/null)
        if [ -z "$version" ]; then
            note error compose "Docker has no Compose plugin" "Install docker-compose-plugin, at least 2.20"
        elif at_least 2.20 "$version"; then
            note ok compose "Docker Compose $version"
        else
            note error compose "Docker Compose $version is older than 2.20" "Update docker-compose-plugin"
        fi
    fi
else
    python=''
    for one in python3.14 python3.13 python3.12 python3.11 python3; do
        version=$("$one" -c 'import platform; print(platform.python_version())' 2>/dev/null) || continue
        at_least 3.11 "$version" && python=$one && break
    done
    if [ -n "$python" ]; then
        note ok python "Python $version ($python)"
    else
        note error python "There is no Python 3.11 or newer on PATH" "Install one of 3.11 to 3.14"
    fi
fi

# ---- files

private() { # private NAME PATH: a file that nobody else may read
    case $(mode_of "$2") in
        '') note error "$1" "$2 is not there" "sp-telemetry setup$([ "$backend" != compose ] || printf ' --backend compose')" ;;
        ????------) note ok "$1" "$2 is yours alone" ;;
        *) note warning "$1" "$2 may be read by others" "chmod go-rwx '$2'" ;;
    esac
}

if [ "$backend" = compose ]; then
    private env "$env_file"
    missing=''
    for file in docker-compose.yml prepare.sh clickhouse/config/config.xml clickhouse/config/users.xml otel-collector/config.yaml otel-collector/reserve.sh "$(of_env TELEMETRY_PRIVACY ./otel-collector/privacy/strict.yaml)"; do
        case $file in /*) ;; *) file=$folder/$file ;; esac
        [ -f "$file" ] || missing="$missing $file"
    done
    if [ -n "$missing" ]; then
        note error files "Not there:$missing" "sp-telemetry setup --backend compose"
    elif [ -z "$(docker compose version --short 2>/dev/null)" ]; then
        note warning files "The files of the stack are in $folder; without Compose nothing can say whether they fit"
    elif said=$(cd "$folder" && docker compose config --quiet 2>&1); then
        note ok files "docker compose takes the files in $folder"
    else
        note error files "docker compose refuses the files in $folder: $(printf %s "$said" | tail -n 1)" "Mend $env_file"
    fi
    names='telemetry_user telemetry_reader telemetry_salt'
else
    names='telemetry_user telemetry_reader'
fi
case $(mode_of "$home") in
    '') note warning home "$home is not there yet" "sp-telemetry setup" ;;
    d???------) note ok home "$home is yours alone" ;;
    *) note warning home "$home may be read by others" "chmod go-rwx '$home'" ;;
esac
for name in $names; do private "$name" "$secrets/$name"; done

# ---- ports

holder_of() { # who listens on this port; nothing where nobody does
    if [ -r /proc/net/tcp ]; then
        inodes=$(awk -v port="$(printf '%04X' "$1")" '$4 == "0A" && substr($2, length($2) - 3) == port { print $10 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null)
        [ -n "$inodes" ] || return 0
        for inode in $inodes; do
            pid=$(find /proc/[0-9]*/fd -maxdepth 1 -lname "socket:\[$inode\]" 2>/dev/null | sed -n '1s|^/proc/\([0-9]*\)/.*|\1|p')
            [ -z "$pid" ] || { printf '%s (pid %s)' "$(cat "/proc/$pid/comm" 2>/dev/null)" "$pid" && return; }
        done
        printf "another user's program"
    elif command -v lsof >/dev/null 2>&1; then
        lsof -nP -iTCP:"$1" -sTCP:LISTEN 2>/dev/null | awk 'NR == 2 { printf "%s (pid %s)", $1, $2 }'
    fi
}

own_pid=$(sed -n 's/.*"pid": *\([0-9][0-9]*\).*/\1/p' "$home/server.json" 2>/dev/null)
ours=' '
[ "$answers" = no ] || ours=" $(docker ps --filter "label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-sp-telemetry}" --format '{{.Ports}}' 2>/dev/null |
    tr ',' '\n' | sed -n 's/.*:\([0-9]*\)->.*/\1/p' | sort -u | tr '\n' ' ') "
for name in otlp_grpc otlp_http clickhouse health metrics native prometheus; do
    eval "number=\$$name"
    # shellcheck disable=SC2154 # eval sets it
    [ -n "$number" ] || continue
    holder=$(holder_of "$number")
    case "$backend:$ours" in
        compose:*" $number "*) holder_is=ours ;;
        *) holder_is=theirs ;;
    esac
    [ "$backend" != embedded ] || [ -z "$own_pid" ] || case $holder in *"(pid $own_pid)") holder_is=ours ;; esac
    if [ -z "$holder" ]; then
        note ok "port_$name" "Port $number ($name) is free"
    elif [ $holder_is = ours ]; then
        note ok "port_$name" "Port $number ($name) is held by our server"
    else
        note error "port_$name" "Port $number ($name) is held by $holder" "End that program, or take another port: sp-telemetry setup --port $name=1$number"
    fi
done

# ---- room

place=$home
while [ ! -d "$place" ]; do place=${place%/*}; place=${place:-/}; done
room=$(free_kib "$place") well=5
[ "$backend" != compose ] || well=8
if [ "${room:-0}" -lt 1048576 ]; then
    note error disk "$((${room:-0} / 1024)) MiB are free in $place; under 1 GiB the store can't be kept up" "Make room, or name another directory: SP_TELEMETRY_HOME"
elif [ "$room" -lt $((well * 1048576)) ]; then
    note warning disk "$((room / 1024)) MiB are free in $place; $well GiB are well" "Make room"
else
    note ok disk "$((room / 1048576)) GiB are free in $place"
fi
wanted=1024
[ "$backend" != compose ] || wanted=3072 # 2 GiB for ClickHouse, 512 MiB for the collector, and the machine itself
if [ "$answers" = yes ]; then
    memory=$(($(docker info --format '{{.MemTotal}}' 2>/dev/null || echo 0) / 1048576))
elif [ -r /proc/meminfo ]; then
    memory=$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)
else
    memory=$(($(sysctl -n hw.memsize 2>/dev/null || echo 0) / 1048576))
fi
if [ "$memory" -ge $wanted ]; then
    note ok memory "$memory MiB of memory"
else
    note warning memory "$memory MiB of memory; $wanted are well" "$([ "$backend" = compose ] && echo "Lower CLICKHOUSE_MEMORY in $env_file" || echo "End other programs")"
fi
conclude
