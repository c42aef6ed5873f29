-- OTLP logs as they arrive. Null tables: what lands here is seen by the views below and by nothing else, and is never stored.
-- Both encodings, and the OpenTelemetry Collector's ClickHouse exporter, end in one shape: otel_logs, the exporter's own.
CREATE TABLE IF NOT EXISTS telemetry.otel_logs
(
    Timestamp          DateTime64(9),
    TraceId            String,
    SpanId             String,
    TraceFlags         UInt8,
    SeverityText       LowCardinality(String),
    SeverityNumber     UInt8,
    ServiceName        LowCardinality(String),
    Body               String,
    ResourceSchemaUrl  LowCardinality(String),
    ResourceAttributes Map(String, String),
    ScopeSchemaUrl     LowCardinality(String),
    ScopeName          String,
    ScopeVersion       LowCardinality(String),
    ScopeAttributes    Map(String, String),
    LogAttributes      Map(String, String),
    EventName          String
)
ENGINE = Null;

-- ExportLogsServiceRequest as protobuf (FORMAT Protobuf, format_schema otlp.proto).
CREATE TABLE IF NOT EXISTS telemetry.otlp_logs_protobuf
(
    resource_logs Array(Tuple(
        resource Tuple(attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64))))),
        scope_logs Array(Tuple(
            scope Tuple(name String, version String),
            log_records Array(Tuple(
                time_unix_nano UInt64,
                observed_time_unix_nano UInt64,
                severity_number Int32,
                severity_text String,
                body Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64)),
                attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64)))),
                trace_id String,
                span_id String,
                event_name String))))))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otlp_logs_protobuf_mv TO telemetry.otel_logs AS
SELECT
    fromUnixTimestamp64Nano(toInt64(if(record.time_unix_nano = 0, record.observed_time_unix_nano, record.time_unix_nano))) AS Timestamp,
    lower(hex(record.trace_id)) AS TraceId,
    lower(hex(record.span_id)) AS SpanId,
    record.severity_text AS SeverityText,
    toUInt8(record.severity_number) AS SeverityNumber,
    ifNull(record.body.string_value, '') AS Body,
    mapFromArrays(by_resource.resource.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), by_resource.resource.attributes.value)) AS ResourceAttributes,
    by_scope.scope.name AS ScopeName,
    by_scope.scope.version AS ScopeVersion,
    mapFromArrays(record.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), record.attributes.value)) AS LogAttributes,
    record.event_name AS EventName
FROM telemetry.otlp_logs_protobuf
ARRAY JOIN resource_logs AS by_resource
ARRAY JOIN by_resource.scope_logs AS by_scope
ARRAY JOIN by_scope.log_records AS record;

-- The same request as OTLP/JSON (FORMAT JSONEachRow): camelCase, identifiers in hex, 64-bit numbers as strings.
CREATE TABLE IF NOT EXISTS telemetry.otlp_logs_json
(
    resourceLogs Array(Tuple(
        resource Tuple(attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64))))),
        scopeLogs Array(Tuple(
            scope Tuple(name String, version String),
            logRecords Array(Tuple(
                timeUnixNano UInt64,
                observedTimeUnixNano UInt64,
                severityNumber Int32,
                severityText String,
                body Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64)),
                attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64)))),
                traceId String,
                spanId String,
                eventName String))))))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otlp_logs_json_mv TO telemetry.otel_logs AS
SELECT
    fromUnixTimestamp64Nano(toInt64(if(record.timeUnixNano = 0, record.observedTimeUnixNano, record.timeUnixNano))) AS Timestamp,
    lower(record.traceId) AS TraceId,
    lower(record.spanId) AS SpanId,
    record.severityText AS SeverityText,
    toUInt8(record.severityNumber) AS SeverityNumber,
    ifNull(record.body.stringValue, '') AS Body,
    mapFromArrays(by_resource.resource.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), by_resource.resource.attributes.value)) AS ResourceAttributes,
    by_scope.scope.name AS ScopeName,
    by_scope.scope.version AS ScopeVersion,
    mapFromArrays(record.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), record.attributes.value)) AS LogAttributes,
    record.eventName AS EventName
FROM telemetry.otlp_logs_json
ARRAY JOIN resourceLogs AS by_resource
ARRAY JOIN by_resource.scopeLogs AS by_scope
ARRAY JOIN by_scope.logRecords AS record;
