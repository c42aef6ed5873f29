-- otel_metric_points -> telemetry_metrics and otel_traces -> telemetry_spans, under the same policy as the events.
-- Without a time that can be, the hour of arrival counts, so that a copy which comes within it is known as one; and in it a moment made of
-- what the time was instead, for that is part of the key. Words of OTLP itself are looked at too: in the exporter's tables they are texts.
CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.telemetry_metrics_mv TO telemetry.telemetry_metrics AS
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt,
    mapConcat(Attributes, mapFilter((k, v) -> NOT mapContains(Attributes, k), ResourceAttributes)) AS a,
    telemetry_words(salt, a) AS w,
    telemetry_identifiers(salt, a) AS i
SELECT
    if(toYear(TimeUnix, 'UTC') BETWEEN 2000 AND 2099, TimeUnix,
       toDateTime64(toStartOfHour(now64(9)), 9) + toIntervalNanosecond(sipHash64(TimeUnix) % 3600000000000)) AS timestamp,
    StartTimeUnix AS start_timestamp,
    now64(9) AS received_at,
    telemetry_name(MetricName) AS metric_name,
    telemetry_word(salt, MetricUnit) AS unit,
    if(MetricType IN ('sum', 'gauge', 'histogram', 'exponential_histogram', 'summary'), MetricType, '') AS metric_type,
    if(AggregationTemporality IN ('delta', 'cumulative'), AggregationTemporality, '') AS temporality,
    IsMonotonic AS is_monotonic,
    -- Of what is kept: a collector may have applied the policy before. And of itself and whose it is, for one may add to the resource.
    sipHash64(w['service.name'], w['user.id'], mapSort(mapFilter((k, v) -> mapContains(Attributes, k), w)),
              mapSort(mapFilter((k, v) -> mapContains(Attributes, k) AND k != 'session.id', i)), Value, Count) AS point_id,
    i['session.id'] AS session_id,
    if(empty(w['enduser.id']), w['user.id'], w['enduser.id']) AS user_id,
    w['user.id'] AS installation_id,
    w['service.name'] AS service_name,
    w['service.version'] AS service_version,
    Value AS value,
    Count AS count,
    Min AS min,
    Max AS max,
    BucketCounts AS bucket_counts,
    ExplicitBounds AS explicit_bounds,
    mapUpdate(telemetry_kept(w), mapFilter((k, v) -> k IN
        ('model', 'query_source', 'speed', 'effort', 'agent.name', 'skill.name', 'plugin.name', 'mcp_server.name',
         'mcp_tool.name', 'tool_name', 'decision', 'source'), w)) AS attributes
FROM telemetry.otel_metric_points;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.telemetry_spans_mv TO telemetry.telemetry_spans AS
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt,
    mapConcat(SpanAttributes, ResourceAttributes) AS a,
    telemetry_words(salt, a) AS w,
    telemetry_identifiers(salt, a) AS i
SELECT
    if(toYear(Timestamp, 'UTC') BETWEEN 2000 AND 2099, Timestamp,
       toDateTime64(toStartOfHour(now64(9)), 9) + toIntervalNanosecond(sipHash64(Timestamp, Duration, TraceId, SpanId) % 3600000000000)) AS timestamp,
    Duration AS duration_ns,
    now64(9) AS received_at,
    telemetry_name(SpanName) AS span_name,
    extract(TraceId, '^[0-9a-f]{32}$') AS trace_id,
    extract(SpanId, '^[0-9a-f]{16}$') AS span_id,
    extract(ParentSpanId, '^[0-9a-f]{16}$') AS parent_span_id,
    if(SpanKind IN ('Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer'), SpanKind, '') AS kind,
    if(StatusCode IN ('Unset', 'Ok', 'Error'), StatusCode, '') AS status_code,
    i['session.id'] AS session_id,
    if(empty(w['enduser.id']), w['user.id'], w['enduser.id']) AS user_id,
    w['user.id'] AS installation_id,
    w['service.name'] AS service_name,
    w['service.version'] AS service_version,
    i['prompt.id'] AS prompt_id,
    i['request_id'] AS request_id,
    i['tool_use_id'] AS tool_use_id,
    w['tool_name'] AS tool_name,
    w['model'] AS model,
    multiIf(w['success'] = 'true', true, w['success'] = 'false', false, NULL) AS success,
    multiIf(notEmpty(w['error']), w['error'], telemetry_taken('error'), telemetry_ruled(salt, 'error', StatusMessage),
            telemetry_error(StatusMessage)) AS error_message,
    mapConcat(telemetry_kept(w), telemetry_file(telemetry_path(a), w['vcs.repository.name']), mapApply((k, x) -> (k, toString(telemetry_count(x))), mapFilter((k, x) -> k IN
        ('duration_ms', 'ttft_ms', 'input_tokens', 'output_tokens', 'cache_read_tokens', 'cache_creation_tokens', 'attempt'), telemetry_numbers(a))))
        AS attributes,
    arrayZip(`Events.Timestamp`, arrayMap(n -> telemetry_name(n), `Events.Name`)) AS events
FROM telemetry.otel_traces;
