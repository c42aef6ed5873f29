#!/bin/sh
# A copy of the whole store, made by the engine while it serves, with a checksum of each file.
set -u
here=$(CDPATH='' cd -- "${0%/*}" && pwd -P) || exit 2
# shellcheck source=telemetry-server/scripts/common.sh
. "$here/common.sh"

usage() {
    cat <<'TEXT'
usage: backup-data.sh [--to DIR] [--keep N] [--name NAME] [--list]
                      [--backend embedded|compose] [--home DIR] [--url URL] [--secrets DIR] [--json]

Makes DIR/telemetry-<UTC>/, a native ClickHouse backup of the database telemetry, and beside it telemetry-<UTC>.sha256 with the SHA-256 of
each of its files. The server goes on serving. A backup holds all that the store holds, the salt of its hashes too: only you may read it.
What has no .sha256 is no backup: that is written last.

  --to        where to [backups/ in the installation's directory]
  --keep      how many to keep; older ones that have the name telemetry-<UTC> are removed [7; 0 keeps all]
  --name      another name; it is not counted and not removed
  --list      list the backups that are there, the newest last, and make none
  --backend, --home, --url, --secrets, --json   as for test-connection.sh

exit codes: 0 made, 1 it failed, 2 wrong usage, or no server to ask

examples:
  backup-data.sh
  backup-data.sh --keep 30 --to /mnt/disk/telemetry
  backup-data.sh --backend compose --json
TEXT
}

to='' keep=7 name='' list=no
while [ $# -gt 0 ]; do
    common_option "$@"
    if [ "$taken" = 0 ]; then
        taken=2
        case $1 in
            --to | --keep | --name) [ -n "${2:-}" ] || fail 2 "$1 takes a value." "--help shows examples." ;;
        esac
        case $1 in
            --to) to=$2 ;;
            --keep) keep=$2 ;;
            --name) name=$2 ;;
            --list) list=yes taken=1 ;;
            *) fail 2 "'$1' is not an option." "--help shows examples." ;;
        esac
    fi
    shift "$taken"
done
case $keep in '' | *[!0-9]*) fail 2 "--keep is '$keep'; expected a number." ;; esac
case $name in *[!A-Za-z0-9_.-]* | [!A-Za-z]* | partial-*) fail 2 "--name is '$name'; expected letters, digits, . _ -, a letter first." ;; esac
need curl sed tr awk tar find sort
hash_program
find_store
to=${to:-$home/backups}
case $to in /*) ;; *) to=$PWD/$to ;; esac

finished() { # the names of the backups in $to, the oldest first
    for sums in "$to"/*.sha256; do
        [ -f "$sums" ] || continue
        one=${sums##*/} one=${one%.sha256}
        [ ! -d "$to/$one" ] || printf '%s\n' "$one"
    done
}

if [ $list = yes ]; then
    [ "$json" = no ] || printf '{"backups": ['
    comma=''
    for one in $(finished); do
        size=$(du -sk "$to/$one" | awk '{ print $1 }')
        if [ "$json" = yes ]; then
            printf '%s{"name": "%s", "path": %s, "kib": %s}' "$comma" "$one" "$(quote "$to/$one")" "$size"
            comma=', '
        else
            printf '%10s KiB  %s\n' "$size" "$to/$one"
        fi
    done
    [ "$json" = no ] || printf ']}\n'
    exit 0
fi

# ---- is there room, and are we alone

set_service
must_ask telemetry_reader "SELECT intDiv(sum(bytes_on_disk), 1024), sum(rows) FROM system.parts WHERE active AND database = 'telemetry'"
size=${answer%%	*} rows=${answer##*	}
mkdir -p "$to" "$home/backups" || fail 2 "$to can't be made." "--to names another directory."
for place in "$to" "$home/backups"; do # where it is made, and where it is brought
    [ "$place" = "$to" ] || [ "$backend" != compose ] || continue
    room=$(free_kib "$place")
    [ "${room:-0}" -gt $((size + size / 10 + 10240)) ] ||
        fail 1 "The store takes $size KiB, and $place has ${room:-0} KiB free." "$(
            [ "$place" = "$to" ] && echo "--to names a directory on another disk, --keep removes older backups." || echo "Make room: it is made there."
        )"
done
take_lock
trap 'drop_lock' EXIT
name=${name:-telemetry-$(date -u +%Y%m%dT%H%M%SZ)}
for one in "$to/$name" "$to/$name.sha256"; do
    [ ! -e "$one" ] || fail 1 "$one is there already." "Run this again, or choose another --name."
done
part=partial-$name
trap 'clear_partial; drop_lock' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
# Nobody else is at it, so what lies half-made was left by one that was killed.
clear_partial() {
    rm -rf "$to"/partial-* "$to"/.partial-*.sha256 "$home"/backups/partial-*
    [ "$backend" != compose ] || docker exec "$service" sh -c 'rm -rf /backups/partial-*' >/dev/null 2>&1
}
clear_partial

# ---- made by the engine, then brought to where it is wanted

# What holds data. Views are made anew from the files of this program; restored, they would run beside the store's own.
must_ask telemetry_user "SELECT arrayStringConcat(groupArray('telemetry.' || name), ', ') FROM system.tables WHERE database = 'telemetry' AND engine NOT LIKE '%MergeTree'"
without=${answer:+ EXCEPT TABLES $answer}
must_ask telemetry_user "BACKUP DATABASE telemetry$without TO Disk('backups', '$part')"
case $answer in *BACKUP_CREATED*) ;; *) fail 1 "The engine made no backup: $answer" ;; esac
if [ -n "$service" ]; then
    docker exec "$service" tar -C /backups -cf - "$part" | tar -C "$to" -xf - || fail 1 "The backup can't be brought out of the container."
elif [ "$to" != "$home/backups" ]; then
    cp -R "$home/backups/$part" "$to/$part" 2>/dev/null || fail 1 "The backup can't be brought to $to." "It has $(free_kib "$to") KiB free."
fi
backup_is_whole "$to/$part" || fail 1 "The backup is not whole, as where a disk is full." "Make room in $to and $home/backups, then run this again."
chmod -R go-rwx "$to/$part"

# ---- checked, and only then called a backup

# shellcheck disable=SC2086 # a program and its option
(cd "$to/$part" && find . -type f -exec $sha256 {} +) | sed "s|  \./|  $name/|" | sort -k 2 >"$to/.$part.sha256"
files=$(find "$to/$part" -type f | wc -l | tr -d ' ')
[ "$(awk 'END { print NR }' "$to/.$part.sha256")" = "$files" ] || fail 1 "The checksums can't be written to $to."
sync
mv "$to/$part" "$to/$name" || fail 1 "The backup can't be given its name in $to."
mv "$to/.$part.sha256" "$to/$name.sha256" || fail 1 "The backup can't be given its name in $to."
sync

removed=''
if [ "$keep" -gt 0 ]; then
    for one in $(finished | grep -E '^telemetry-[0-9]{8}T[0-9]{6}Z$' | sort -r | tail -n +$((keep + 1))); do
        rm -f "$to/$one.sha256" && rm -rf "${to:?}/$one" && removed="$removed${removed:+, }\"$one\""
    done
fi
kib=$(du -sk "$to/$name" | awk '{ print $1 }')
if [ "$json" = yes ]; then
    printf '{"name": "%s", "path": %s, "files": %s, "kib": %s, "rows": %s, "removed": [%s]}\n' "$name" "$(quote "$to/$name")" "$files" "$kib" "$rows" "$removed"
else
    printf 'Backup of %s rows: %s (%s files, %s KiB)\n' "$rows" "$to/$name" "$files" "$kib"
    [ -z "$removed" ] || printf 'Removed: %s\n' "$(printf %s "$removed" | tr -d '"')"
fi
