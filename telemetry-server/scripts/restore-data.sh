#!/bin/sh
# A backup back into the store: beside it, into an empty one, or in place of what is there.
set -u
here=$(CDPATH='' cd -- "${0%/*}" && pwd -P) || exit 2
# shellcheck source=telemetry-server/scripts/common.sh
. "$here/common.sh"

usage() {
    cat <<'TEXT'
usage: restore-data.sh BACKUP [--check | --beside | --replace]
                       [--backend embedded|compose] [--home DIR] [--url URL] [--secrets DIR] [--json]

BACKUP is a path, or a name in backups/ of the installation's directory; `backup-data.sh --list` shows them. Its checksums are tested first.

  (neither)   restore into an empty store: one with no events, summaries, usage or transcripts. Another one is refused
  --check     test the checksums, and nothing else
  --beside    restore as the database telemetry_restored, to look at; the store stays as it is
  --replace   restore in place of what is there. That is backed up before, as before-restore-<UTC>. What arrives meanwhile is kept
  --backend, --home, --url, --secrets, --json   as for test-connection.sh

The restored store is brought to this version's shape: the embedded server is restarted, a ClickHouse server migrated. That runs
`sp-telemetry`, from PATH or from this checkout. If it is interrupted, run it again with --replace.

exit codes: 0 restored, 1 it failed or was refused, 2 wrong usage, or no server to ask

examples:
  restore-data.sh telemetry-20261123T120000Z
  restore-data.sh /mnt/disk/telemetry/telemetry-20261123T120000Z --check
  restore-data.sh telemetry-20261123T120000Z --replace
TEXT
}

backup='' how=empty
while [ $# -gt 0 ]; do
    common_option "$@"
    if [ "$taken" = 0 ]; then
        taken=1
        case $1 in
            --check | --beside | --replace)
                [ "$how" = empty ] || fail 2 "Only one of --check, --beside, --replace." "--help shows examples."
                how=${1#--} ;;
            -*) fail 2 "'$1' is not an option." "--help shows examples." ;;
            *)
                [ -z "$backup" ] || fail 2 "One backup, not also '$1'." "--help shows examples."
                backup=$1 ;;
        esac
    fi
    shift "$taken"
done
need curl sed tr awk tar
hash_program
find_store
[ -n "$backup" ] || fail 2 "Which backup?" "'$here/backup-data.sh --list' shows those that are there."
case $backup in
    */*) backup=${backup%/} ;;
    *) backup=$home/backups/$backup ;;
esac
name=${backup##*/}
place=$(CDPATH='' cd -- "${backup%/*}" 2>/dev/null && pwd -P) || fail 2 "There is no ${backup%/*}."
[ -d "$place/$name" ] || fail 2 "There is no backup $backup." "'$here/backup-data.sh --list' shows those that are there."
[ -f "$place/$name.sha256" ] || fail 1 "$backup has no $name.sha256 beside it: it was never finished, or is not whole." "Choose another one."

# ---- is it what was backed up

# shellcheck disable=SC2086 # a program and its option
bad=$(cd "$place" && $sha256 -c "$name.sha256" 2>/dev/null | grep -v ': OK$' | head -n 3 | tr '\n' ' ')
[ -z "$bad" ] || fail 1 "$backup is damaged: ${bad% }" "Choose another one."
[ "$(find "$place/$name" -type f | wc -l)" -eq "$(awk 'END { print NR }' "$place/$name.sha256")" ] ||
    fail 1 "$backup has other files than $name.sha256 says." "Choose another one."
backup_is_whole "$place/$name" || fail 1 "$backup is not whole: files of it were cut short when it was made." "Choose another one."
if [ "$how" = check ]; then
    files=$(awk 'END { print NR }' "$place/$name.sha256")
    [ "$json" = yes ] && printf '{"name": "%s", "files": %s, "whole": true}\n' "$name" "$files"
    [ "$json" = yes ] || printf '%s is whole: %s files.\n' "$name" "$files"
    exit 0
fi

# ---- may it be restored here

set_service
must_ask telemetry_reader "SELECT (SELECT count() FROM telemetry.telemetry_events WHERE event_type != 'sp_telemetry.setup_check') + (SELECT count() FROM telemetry.session_summaries) + (SELECT count() FROM telemetry.usage_hourly WHERE requests + prompts + tool_calls > 0) + (SELECT count() FROM telemetry.transcript_copies)"
held=$answer
[ "$how" != empty ] || [ "$held" = 0 ] || fail 1 "The store is not empty: it holds $held rows." "--beside restores beside them, --replace in their place."
program=''
if [ "$how" != beside ]; then
    program=$(command -v sp-telemetry || printf %s "$stack/../scripts/sp-telemetry")
    [ -x "$program" ] || fail 2 "There is no sp-telemetry on PATH." "It brings the restored store to this version's shape."
fi
mkdir -p "$home/backups" || fail 2 "$home/backups can't be made."
if [ "$backend" = embedded ]; then
    kib=$(du -sk "$place/$name" | awk '{ print $1 }')
    wanted=$((kib + kib / 10 + 10240)) room=$(free_kib "$home")
    [ "$place" = "$(CDPATH='' cd -- "$home/backups" && pwd -P)" ] || wanted=$((wanted + kib))
    if [ "$how" = replace ]; then
        must_ask telemetry_reader "SELECT intDiv(sum(bytes_on_disk), 1024) FROM system.parts WHERE active AND database = 'telemetry'"
        wanted=$((wanted + answer))
    fi
    [ "${room:-0}" -gt $wanted ] || fail 1 "To restore takes $wanted KiB, and $home has ${room:-0} KiB free." "Make room, then run this again."
fi
begun=$(date +%s) # what comes from now on may be in neither backup
before=''
if [ "$how" = replace ] && [ "$held" != 0 ]; then
    before=before-restore-$(date -u +%Y%m%dT%H%M%SZ)
    "$here/backup-data.sh" --home "$home" --backend "$backend" --url "$address" --secrets "$secrets" --keep 0 --name "$before" >/dev/null ||
        fail 1 "What the store holds now can't be backed up, so nothing was replaced."
fi
take_lock

# ---- to where the engine reads it, and beside the store

engine_name=$name
trap 'clear_copy; drop_lock' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
clear_copy() {
    if [ -n "$service" ]; then
        docker exec "$service" sh -c 'rm -rf /backups/partial-*' >/dev/null 2>&1
    else
        rm -rf "$home/backups/partial-restore"
    fi
}
clear_copy
if [ -n "$service" ]; then
    engine_name=partial-restore
    docker exec "$service" mkdir -m 700 /backups/partial-restore || fail 1 "The container's /backups can't be written."
    tar -C "$place/$name" -cf - . | docker exec -i "$service" tar -C /backups/partial-restore -xf - --no-same-owner ||
        fail 1 "The backup can't be brought into the container."
elif [ "$place" != "$(CDPATH='' cd -- "$home/backups" && pwd -P)" ]; then
    engine_name=partial-restore
    cp -R "$place/$name" "$home/backups/partial-restore" || fail 1 "The backup can't be brought to $home/backups."
fi
must_ask telemetry_user "DROP DATABASE IF EXISTS telemetry_restored SYNC"
ask telemetry_user "RESTORE DATABASE telemetry AS telemetry_restored FROM Disk('backups', '$engine_name')" || {
    said=$answer
    [ "$code" != 243 ] || said='The disk of the store is full.'
    ask telemetry_user "DROP DATABASE IF EXISTS telemetry_restored SYNC" # half of one is of no use, and takes the room
    fail 1 "$name was not restored, and the store is as it was: $said" "Mend that, then run this again."
}
case $answer in *RESTORED*) ;; *) fail 1 "The engine restored nothing: $answer" ;; esac
if [ "$backend" = compose ] && [ "$how" != beside ]; then
    # What the collector hashes and what the backup holds would never agree again.
    must_ask telemetry_user "SELECT salt FROM telemetry_restored.installation"
    if [ "$answer" != "$(cat "$secrets/telemetry_salt")" ]; then
        must_ask telemetry_user "DROP DATABASE telemetry_restored SYNC"
        fail 1 "$name hashes with another salt than the collector, so nothing was replaced." "Put the telemetry_salt of its installation into $secrets, run sp-telemetry restart, and then this again."
    fi
fi
must_ask telemetry_user "SELECT arrayStringConcat(groupArray(name), ' ') FROM (SELECT name FROM system.tables WHERE database = 'telemetry_restored' ORDER BY name = 'schema_migrations', name)"
restored=$answer

tell() { # tell WHERE: the restored tables and their rows
    must_ask telemetry_user "SELECT name, assumeNotNull(total_rows) FROM system.tables WHERE database = '$1' AND engine LIKE '%MergeTree' ORDER BY name"
    if [ "$json" = yes ]; then
        printf '{"name": "%s", "database": "%s", "before": "%s", "tables": {' "$name" "$1" "$before"
        printf %s "$answer" | awk -F '\t' '{ printf "%s\"%s\": %s", (NR > 1 ? ", " : ""), $1, $2 }'
        printf '}}\n'
    else
        printf '%s\n' "$answer" | awk -F '\t' '{ printf "%12d  %s\n", $2, $1 }'
        printf 'Restored %s as the database %s.\n' "$name" "$1"
        [ -z "$before" ] || printf 'What was there before: %s\n' "$home/backups/$before"
    fi
}
if [ "$how" = beside ]; then
    tell telemetry_restored
    exit 0
fi

# ---- in place of the store's own, table by table; what is there now is in telemetry_restored then

must_ask telemetry_user "SELECT arrayStringConcat(groupArray(name), ' ') FROM system.tables WHERE database = 'telemetry' AND engine LIKE '%MergeTree'"
present=" $answer "
for table in $restored; do
    case $present in
        *" $table "*) must_ask telemetry_user "EXCHANGE TABLES telemetry.$table AND telemetry_restored.$table" ;;
        *) must_ask telemetry_user "RENAME TABLE telemetry_restored.$table TO telemetry.$table" ;;
    esac
done
for table in $present; do # made by a newer version than the backup's: made anew, empty
    case " $restored " in
        *" $table "*) ;;
        *) must_ask telemetry_user "RENAME TABLE telemetry.$table TO telemetry_restored.$table" ;;
    esac
done
# The backup has no views, and those of the store are of this version, not of the backup's.
must_ask telemetry_user "INSERT INTO telemetry.schema_migrations (name, checksum) VALUES ('views', 'restored')"
if [ "$backend" = embedded ]; then
    SP_TELEMETRY_HOME=$home "$program" restart >/dev/null || fail 1 "The server did not come back." "sp-telemetry up says why; then run this again with --replace."
    find_store
else
    SP_TELEMETRY_HOME=$home "$program" migrate --url "$address" --password-file "$secrets/telemetry_user" --salt-file "$secrets/telemetry_salt" >/dev/null ||
        fail 1 "The restored store was not brought to this version's shape." "Mend what is said above, then run sp-telemetry migrate."
fi
# What was acknowledged while tables changed places went into the old ones. It has its key, so taking it over twice does no harm.
for table in telemetry_events session_context telemetry_metrics telemetry_spans; do
    must_ask telemetry_user "SELECT arrayStringConcat(groupArray(name), ', ') FROM (SELECT name FROM system.columns WHERE (database = 'telemetry' OR database = 'telemetry_restored') AND table = '$table' AND default_kind NOT IN ('ALIAS', 'MATERIALIZED') GROUP BY name HAVING count() = 2)"
    [ -z "$answer" ] ||
        must_ask telemetry_user "INSERT INTO telemetry.$table ($answer) SELECT $answer FROM telemetry_restored.$table WHERE received_at >= fromUnixTimestamp($begun)"
done
must_ask telemetry_user "DROP DATABASE telemetry_restored SYNC"
tell telemetry
