-- OTLP traces as they arrive, in the shape of the Collector's ClickHouse exporter. Never stored: see 10_otlp_logs.sql.
CREATE TABLE IF NOT EXISTS telemetry.otel_traces
(
    Timestamp          DateTime64(9),
    TraceId            String,
    SpanId             String,
    ParentSpanId       String,
    TraceState         String,
    SpanName           LowCardinality(String),
    SpanKind           LowCardinality(String),
    ServiceName        LowCardinality(String),
    ResourceAttributes Map(String, String),
    ScopeName          String,
    ScopeVersion       String,
    SpanAttributes     Map(String, String),
    Duration           UInt64,
    StatusCode         LowCardinality(String),
    StatusMessage      String,
    Events             Nested(Timestamp DateTime64(9), Name LowCardinality(String), Attributes Map(String, String)),
    Links              Nested(TraceId String, SpanId String, TraceState String, Attributes Map(String, String))
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS telemetry.otlp_traces_protobuf
(
    resource_spans Array(Tuple(
        resource Tuple(attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64))))),
        scope_spans Array(Tuple(
            scope Tuple(name String, version String),
            spans Array(Tuple(
                trace_id String,
                span_id String,
                parent_span_id String,
                name String,
                kind Int32,
                start_time_unix_nano UInt64,
                end_time_unix_nano UInt64,
                attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64)))),
                events Array(Tuple(time_unix_nano UInt64, name String)),
                status Tuple(message String, code Int32)))))))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otlp_traces_protobuf_mv TO telemetry.otel_traces AS
SELECT
    fromUnixTimestamp64Nano(toInt64(span.start_time_unix_nano)) AS Timestamp,
    lower(hex(span.trace_id)) AS TraceId,
    lower(hex(span.span_id)) AS SpanId,
    lower(hex(span.parent_span_id)) AS ParentSpanId,
    span.name AS SpanName,
    ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer'][span.kind + 1] AS SpanKind,
    mapFromArrays(by_resource.resource.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), by_resource.resource.attributes.value)) AS ResourceAttributes,
    by_scope.scope.name AS ScopeName,
    by_scope.scope.version AS ScopeVersion,
    mapFromArrays(span.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), span.attributes.value)) AS SpanAttributes,
    toUInt64(greatest(toInt64(span.end_time_unix_nano) - toInt64(span.start_time_unix_nano), 0)) AS Duration,
    ['Unset', 'Ok', 'Error'][span.status.code + 1] AS StatusCode,
    span.status.message AS StatusMessage,
    arrayMap(e -> fromUnixTimestamp64Nano(toInt64(e.time_unix_nano)), span.events) AS `Events.Timestamp`,
    span.events.name AS `Events.Name`
FROM telemetry.otlp_traces_protobuf
ARRAY JOIN resource_spans AS by_resource
ARRAY JOIN by_resource.scope_spans AS by_scope
ARRAY JOIN by_scope.spans AS span;

CREATE TABLE IF NOT EXISTS telemetry.otlp_traces_json
(
    resourceSpans Array(Tuple(
        resource Tuple(attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64))))),
        scopeSpans Array(Tuple(
            scope Tuple(name String, version String),
            spans Array(Tuple(
                traceId String,
                spanId String,
                parentSpanId String,
                name String,
                kind Int32,
                startTimeUnixNano UInt64,
                endTimeUnixNano UInt64,
                attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64)))),
                events Array(Tuple(timeUnixNano UInt64, name String)),
                status Tuple(message String, code Int32)))))))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otlp_traces_json_mv TO telemetry.otel_traces AS
SELECT
    fromUnixTimestamp64Nano(toInt64(span.startTimeUnixNano)) AS Timestamp,
    lower(span.traceId) AS TraceId,
    lower(span.spanId) AS SpanId,
    lower(span.parentSpanId) AS ParentSpanId,
    span.name AS SpanName,
    ['Unspecified', 'Internal', 'Server', 'Client', 'Producer', 'Consumer'][span.kind + 1] AS SpanKind,
    mapFromArrays(by_resource.resource.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), by_resource.resource.attributes.value)) AS ResourceAttributes,
    by_scope.scope.name AS ScopeName,
    by_scope.scope.version AS ScopeVersion,
    mapFromArrays(span.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), span.attributes.value)) AS SpanAttributes,
    toUInt64(greatest(toInt64(span.endTimeUnixNano) - toInt64(span.startTimeUnixNano), 0)) AS Duration,
    ['Unset', 'Ok', 'Error'][span.status.code + 1] AS StatusCode,
    span.status.message AS StatusMessage,
    arrayMap(e -> fromUnixTimestamp64Nano(toInt64(e.timeUnixNano)), span.events) AS `Events.Timestamp`,
    span.events.name AS `Events.Name`
FROM telemetry.otlp_traces_json
ARRAY JOIN resourceSpans AS by_resource
ARRAY JOIN by_resource.scopeSpans AS by_scope
ARRAY JOIN by_scope.spans AS span;
