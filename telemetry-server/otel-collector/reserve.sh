#!/bin/sh
# reserve.sh FOLDER BYTES EXPORTER… reserves room on the disk for what may wait in the collector's queues, once and for good.
#
# BYTES is TELEMETRY_QUEUE_BYTES; each queue's file gets two and a half times that, for events that come one by one fill half a page (measured:
# 1.1 to 2.3 times). Without it, others may fill the disk, and a collector that can't write forgets what it is about to send, and on a restart
# what it was sending.
# `docker compose up` runs it (prepare.sh); for a collector of your own run it as the collector's user before its first start:
#
#     otel-collector/reserve.sh /var/lib/otelcol 536870912 clickhouse
set -eu
umask 077
folder=$1 bytes=$2
size=$((bytes * 5 / 2))
shift 2
mkdir -p "$folder"
for exporter; do
    for signal in logs metrics traces; do
        file=$folder/exporter_${exporter}__$signal # as file_storage names it, to which an empty one is a new one
        : >>"$file"
        if said=$(/usr/bin/fallocate --keep-size --length $size "$file" 2>&1); then continue; fi
        case $said in
            *"No space left"*)
                [ -s "$file" ] || rm "$file" # with the part that there was room for
                echo "reserve: $folder has no room for $((size / 1048576)) MiB for each of logs, metrics and traces. Make room, or have less wait: TELEMETRY_QUEUE_BYTES." >&2
                exit 1
                ;;
        esac
        echo "reserve: no room is reserved in $folder ($said); see that its disk does not become full." >&2
        exit 0
    done
done
