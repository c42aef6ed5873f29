#!/bin/sh
# Runs as root in its own container, before the others: each service gets its secrets as its own user can read them, and nobody else,
# and folders that it may write to; the queue has its room reserved. ClickHouse is told hashes of the passwords only.
set -eu
umask 077
clickhouse=101:101 collector=10001:10001

read_secret() {
    value=$(cat "/run/secrets/$1")
    [ "${#value}" -ge 16 ] || { echo "prepare: the secret $1 has fewer than 16 characters." >&2 && exit 1; }
    printf %s "$value"
}

put() { # put FILE OWNER, its content from standard input: whole or not at all
    cat >"$1.new"
    chmod 0400 "$1.new"
    chown "$2" "$1.new"
    mv "$1.new" "$1"
}

hashed() {
    value=$(read_secret "$1")
    printf %s "$value" | sha256sum | cut -d' ' -f1
}

user=$(hashed telemetry_user) reader=$(hashed telemetry_reader)
printf '<clickhouse>\n<telemetry_user_sha256>%s</telemetry_user_sha256>\n<telemetry_reader_sha256>%s</telemetry_reader_sha256>\n</clickhouse>\n' \
    "$user" "$reader" | put /prepared/clickhouse/passwords.xml $clickhouse
for name in telemetry_user telemetry_salt; do
    read_secret $name | put /prepared/collector/$name $collector
done

chmod 0700 /prepared/clickhouse /prepared/collector
chown $clickhouse /prepared/clickhouse /var/lib/clickhouse /backups
# shellcheck disable=SC2086  # a word for each exporter
sh /reserve.sh /var/lib/otelcol "$TELEMETRY_QUEUE_BYTES" $TELEMETRY_QUEUES
chown $collector /prepared/collector /var/lib/otelcol /var/lib/otelcol/exporter_*
echo "prepare: done"
