#!/bin/sh
# Does the whole way work: a request in at one end, the same event out at the other?
set -u
here=$(CDPATH='' cd -- "${0%/*}" && pwd -P) || exit 2
# shellcheck source=telemetry-server/scripts/common.sh
. "$here/common.sh"

usage() {
    cat <<'TEXT'
usage: test-connection.sh [--backend embedded|compose] [--home DIR] [--url URL] [--secrets DIR] [--json]

Asks the store: is it there, does it know its two users and nobody else, is its database made, may the reader only read. Then the ports
for OTLP (HTTP and gRPC), health and metrics; and at last sends an event and reads it back. No report counts that event.

  --backend   which server [the setting `backend`, else embedded]
  --home      the installation's directory [SP_TELEMETRY_HOME, else the platform's place]
  --url       the store's HTTP interface [the one that the server has]
  --secrets   the directory with the passwords of telemetry_user and telemetry_reader [the one that the server has]
  --json      one JSON object

exit codes: 0 all is well, 1 something was found, 2 wrong usage

examples:
  test-connection.sh
  test-connection.sh --backend compose
  test-connection.sh --json
TEXT
}

while [ $# -gt 0 ]; do
    common_option "$@"
    [ "$taken" -gt 0 ] || fail 2 "'$1' is not an option." "--help shows examples."
    shift "$taken"
done
need curl sed tr
find_store

start='sp-telemetry up'
if [ "$(web --max-time 10 "$address/ping" 2>/dev/null)" = Ok. ]; then
    note ok ping "The store answers at $address"
else
    note error ping "Nobody answers at $address as ClickHouse does" "$start"
    conclude
fi

for user in telemetry_reader telemetry_user; do
    if ask "$user" "SELECT 1"; then
        note ok "$user" "$user is known by the password in $secrets"
    else
        note error "$user" "$user is refused: $answer" "Is it this installation's server that answers at $address? --secrets names another directory"
    fi
done
if ask telemetry_reader "SELECT 1" "no such password"; then
    note error password "Whoever gives a wrong password is answered" "Take the server from the network until you know why"
elif [ "$code" = 516 ]; then
    note ok password "A wrong password is refused"
else
    note error password "A wrong password is answered with: $answer" "'$here/verify-setup.sh'"
fi

if ask telemetry_reader "SELECT count() FROM system.tables WHERE database = 'telemetry' AND name IN ('telemetry_events', 'session_summaries', 'usage_hourly')" &&
    [ "$answer" = 3 ]; then
    ask telemetry_reader "SELECT count() FROM telemetry.telemetry_events"
    note ok database "The database telemetry is made; it has $answer events"
else
    note error database "The database telemetry is not what this version makes" "sp-telemetry migrate (the embedded server does it at its start)"
fi
if ask telemetry_reader "DROP TABLE IF EXISTS telemetry.no_table_has_this_name"; then
    note error reader "telemetry_reader may drop tables" "sp-telemetry doctor --server says what its users may"
else
    note ok reader "telemetry_reader may not change anything"
fi

if [ "$(web --max-time 10 --output /dev/null --write-out '%{http_code}' --header 'Content-Type: application/json' --data '{}' "http://$host:$otlp_http/v1/logs" 2>/dev/null)" = 200 ]; then
    note ok otlp_http "OTLP over HTTP is taken at $host:$otlp_http"
else
    note error otlp_http "OTLP over HTTP is not taken at $host:$otlp_http" "$start"
fi
if curl -q --version | grep -q HTTP2; then
    # An empty message: a byte that says it is not compressed, four for its length.
    if printf '\0\0\0\0\0' | web --max-time 10 --http2-prior-knowledge --header 'Content-Type: application/grpc' --header 'TE: trailers' --data-binary @- \
        --dump-header - --output /dev/null "http://$host:$otlp_grpc/opentelemetry.proto.collector.logs.v1.LogsService/Export" 2>/dev/null |
        tr -d '\r' | grep -q '^grpc-status: 0$'; then
        note ok otlp_grpc "OTLP over gRPC is taken at $host:$otlp_grpc"
    else
        note error otlp_grpc "OTLP over gRPC is not taken at $host:$otlp_grpc" "$start"
    fi
else
    note warning otlp_grpc "This curl has no HTTP/2, so OTLP over gRPC was not tried" "Install a curl with HTTP2 in \`curl --version\`"
fi
for port in health metrics; do
    eval "number=\$$port"
    [ $port = health ] && path=/ || path=/metrics
    # shellcheck disable=SC2154 # eval sets it
    if [ "$(web --max-time 10 --output /dev/null --write-out '%{http_code}' "http://$host:$number$path" 2>/dev/null)" = 200 ]; then
        note ok $port "$port is answered at $host:$number"
    else
        note error $port "$port is not answered well at $host:$number" "sp-telemetry status says why"
    fi
done

# The same event that set-up sends: without a session, so no report counts it.
id=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n' | sed 's/^\(.\{8\}\)\(.\{4\}\).\(.\{3\}\).\(.\{3\}\)/\1-\2-4\3-8\4-/')
moment=$(date +%s)000000000
event="{\"resourceLogs\":[{\"resource\":{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":\"sp-telemetry-setup\"}}]},\"scopeLogs\":[{\"logRecords\":[{\"timeUnixNano\":\"$moment\",\"body\":{\"stringValue\":\"sp_telemetry.setup_check\"},\"attributes\":[{\"key\":\"event.name\",\"value\":{\"stringValue\":\"sp_telemetry.setup_check\"}},{\"key\":\"prompt.id\",\"value\":{\"stringValue\":\"$id\"}}]}]}]}]}"
if said=$(web --max-time 20 --output /dev/null --write-out '%{http_code}' --header 'Content-Type: application/json' --data-binary "$event" "http://$host:$otlp_http/v1/logs" 2>&1) && [ "$said" = 200 ]; then
    waited=0
    while ask telemetry_reader "SELECT count() FROM telemetry.telemetry_events WHERE event_type = 'sp_telemetry.setup_check' AND prompt_id = '$id'"; do
        [ "$answer" = 0 ] || break
        [ $waited -lt 20 ] || break
        waited=$((waited + 1))
        sleep 1
    done
    if [ "$answer" = 1 ]; then
        note ok event "An event that was sent to $host:$otlp_http was read back from the store"
    else
        note error event "An event was taken at $host:$otlp_http, and after 20 s the store does not have it" "sp-telemetry logs; does another program hold one of the ports?"
    fi
else
    note error event "An event was refused at $host:$otlp_http: $said" "sp-telemetry status says why"
fi
conclude
