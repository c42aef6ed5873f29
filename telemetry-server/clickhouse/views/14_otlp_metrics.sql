-- OTLP metrics as they arrive: five kinds of points, brought to one shape. Never stored: see 10_otlp_logs.sql.
CREATE TABLE IF NOT EXISTS telemetry.otel_metric_points
(
    MetricName             String,
    MetricUnit             String,
    ResourceAttributes     Map(String, String),
    MetricType             LowCardinality(String),
    AggregationTemporality LowCardinality(String),
    IsMonotonic            Bool,
    StartTimeUnix          DateTime64(9),
    TimeUnix               DateTime64(9),
    Value                  Float64,
    Count                  UInt64,
    Min                    Nullable(Float64),
    Max                    Nullable(Float64),
    BucketCounts           Array(UInt64),
    ExplicitBounds         Array(Float64),
    Attributes             Map(String, String)
)
ENGINE = Null;

CREATE TABLE IF NOT EXISTS telemetry.otlp_metrics_protobuf
(
    resource_metrics Array(Tuple(
        resource Tuple(attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64))))),
        scope_metrics Array(Tuple(
            scope Tuple(name String, version String),
            metrics Array(Tuple(
                name String,
                unit String,
                gauge Tuple(data_points Array(Tuple(start_time_unix_nano UInt64, time_unix_nano UInt64, as_double Nullable(Float64), as_int Nullable(Int64), attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64))))))),
                sum Tuple(data_points Array(Tuple(start_time_unix_nano UInt64, time_unix_nano UInt64, as_double Nullable(Float64), as_int Nullable(Int64), attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64)))))), aggregation_temporality Int32, is_monotonic Bool),
                histogram Tuple(data_points Array(Tuple(start_time_unix_nano UInt64, time_unix_nano UInt64, count UInt64, sum Nullable(Float64), bucket_counts Array(UInt64), explicit_bounds Array(Float64), min Nullable(Float64), max Nullable(Float64), attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64)))))), aggregation_temporality Int32),
                exponential_histogram Tuple(data_points Array(Tuple(start_time_unix_nano UInt64, time_unix_nano UInt64, count UInt64, sum Nullable(Float64), min Nullable(Float64), max Nullable(Float64), attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64)))))), aggregation_temporality Int32),
                summary Tuple(data_points Array(Tuple(start_time_unix_nano UInt64, time_unix_nano UInt64, count UInt64, sum Float64, attributes Array(Tuple(key String, value Tuple(string_value Nullable(String), bool_value Nullable(Bool), int_value Nullable(Int64), double_value Nullable(Float64)))))))))))))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otlp_metrics_protobuf_mv TO telemetry.otel_metric_points AS
SELECT
    metric.name AS MetricName,
    metric.unit AS MetricUnit,
    mapFromArrays(by_resource.resource.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), by_resource.resource.attributes.value)) AS ResourceAttributes,
    point.1 AS MetricType,
    ['', 'delta', 'cumulative'][point.2 + 1] AS AggregationTemporality,
    point.3 AS IsMonotonic,
    fromUnixTimestamp64Nano(toInt64(point.4)) AS StartTimeUnix,
    fromUnixTimestamp64Nano(toInt64(point.5)) AS TimeUnix,
    point.6 AS Value,
    point.7 AS Count,
    point.8 AS Min,
    point.9 AS Max,
    point.10 AS BucketCounts,
    point.11 AS ExplicitBounds,
    point.12 AS Attributes
FROM telemetry.otlp_metrics_protobuf
ARRAY JOIN resource_metrics AS by_resource
ARRAY JOIN by_resource.scope_metrics AS by_scope
ARRAY JOIN by_scope.metrics AS metric
ARRAY JOIN arrayConcat(
        arrayMap(p -> ('gauge', 0, false, p.start_time_unix_nano, p.time_unix_nano, coalesce(p.as_double, toFloat64(p.as_int), 0.), toUInt64(1), CAST(NULL AS Nullable(Float64)), CAST(NULL AS Nullable(Float64)), CAST([] AS Array(UInt64)), CAST([] AS Array(Float64)), mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), p.attributes.value))), metric.gauge.data_points),
        arrayMap(p -> ('sum', metric.sum.aggregation_temporality, metric.sum.is_monotonic, p.start_time_unix_nano, p.time_unix_nano, coalesce(p.as_double, toFloat64(p.as_int), 0.), toUInt64(1), CAST(NULL AS Nullable(Float64)), CAST(NULL AS Nullable(Float64)), CAST([] AS Array(UInt64)), CAST([] AS Array(Float64)), mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), p.attributes.value))), metric.sum.data_points),
        arrayMap(p -> ('histogram', metric.histogram.aggregation_temporality, false, p.start_time_unix_nano, p.time_unix_nano, ifNull(p.sum, 0.), p.count, p.min, p.max, p.bucket_counts, p.explicit_bounds, mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), p.attributes.value))), metric.histogram.data_points),
        arrayMap(p -> ('exponential_histogram', metric.exponential_histogram.aggregation_temporality, false, p.start_time_unix_nano, p.time_unix_nano, ifNull(p.sum, 0.), p.count, p.min, p.max, CAST([] AS Array(UInt64)), CAST([] AS Array(Float64)), mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), p.attributes.value))), metric.exponential_histogram.data_points),
        arrayMap(p -> ('summary', 0, false, p.start_time_unix_nano, p.time_unix_nano, p.sum, p.count, CAST(NULL AS Nullable(Float64)), CAST(NULL AS Nullable(Float64)), CAST([] AS Array(UInt64)), CAST([] AS Array(Float64)), mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.string_value, toString(v.int_value), toString(v.double_value), toString(v.bool_value), ''), p.attributes.value))), metric.summary.data_points)) AS point;

CREATE TABLE IF NOT EXISTS telemetry.otlp_metrics_json
(
    resourceMetrics Array(Tuple(
        resource Tuple(attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64))))),
        scopeMetrics Array(Tuple(
            scope Tuple(name String, version String),
            metrics Array(Tuple(
                name String,
                unit String,
                gauge Tuple(dataPoints Array(Tuple(startTimeUnixNano UInt64, timeUnixNano UInt64, asDouble Nullable(Float64), asInt Nullable(Int64), attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64))))))),
                sum Tuple(dataPoints Array(Tuple(startTimeUnixNano UInt64, timeUnixNano UInt64, asDouble Nullable(Float64), asInt Nullable(Int64), attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64)))))), aggregationTemporality Int32, isMonotonic Bool),
                histogram Tuple(dataPoints Array(Tuple(startTimeUnixNano UInt64, timeUnixNano UInt64, count UInt64, sum Nullable(Float64), bucketCounts Array(UInt64), explicitBounds Array(Float64), min Nullable(Float64), max Nullable(Float64), attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64)))))), aggregationTemporality Int32),
                exponentialHistogram Tuple(dataPoints Array(Tuple(startTimeUnixNano UInt64, timeUnixNano UInt64, count UInt64, sum Nullable(Float64), min Nullable(Float64), max Nullable(Float64), attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64)))))), aggregationTemporality Int32),
                summary Tuple(dataPoints Array(Tuple(startTimeUnixNano UInt64, timeUnixNano UInt64, count UInt64, sum Float64, attributes Array(Tuple(key String, value Tuple(stringValue Nullable(String), boolValue Nullable(Bool), intValue Nullable(Int64), doubleValue Nullable(Float64)))))))))))))
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otlp_metrics_json_mv TO telemetry.otel_metric_points AS
SELECT
    metric.name AS MetricName,
    metric.unit AS MetricUnit,
    mapFromArrays(by_resource.resource.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), by_resource.resource.attributes.value)) AS ResourceAttributes,
    point.1 AS MetricType,
    ['', 'delta', 'cumulative'][point.2 + 1] AS AggregationTemporality,
    point.3 AS IsMonotonic,
    fromUnixTimestamp64Nano(toInt64(point.4)) AS StartTimeUnix,
    fromUnixTimestamp64Nano(toInt64(point.5)) AS TimeUnix,
    point.6 AS Value,
    point.7 AS Count,
    point.8 AS Min,
    point.9 AS Max,
    point.10 AS BucketCounts,
    point.11 AS ExplicitBounds,
    point.12 AS Attributes
FROM telemetry.otlp_metrics_json
ARRAY JOIN resourceMetrics AS by_resource
ARRAY JOIN by_resource.scopeMetrics AS by_scope
ARRAY JOIN by_scope.metrics AS metric
ARRAY JOIN arrayConcat(
        arrayMap(p -> ('gauge', 0, false, p.startTimeUnixNano, p.timeUnixNano, coalesce(p.asDouble, toFloat64(p.asInt), 0.), toUInt64(1), CAST(NULL AS Nullable(Float64)), CAST(NULL AS Nullable(Float64)), CAST([] AS Array(UInt64)), CAST([] AS Array(Float64)), mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), p.attributes.value))), metric.gauge.dataPoints),
        arrayMap(p -> ('sum', metric.sum.aggregationTemporality, metric.sum.isMonotonic, p.startTimeUnixNano, p.timeUnixNano, coalesce(p.asDouble, toFloat64(p.asInt), 0.), toUInt64(1), CAST(NULL AS Nullable(Float64)), CAST(NULL AS Nullable(Float64)), CAST([] AS Array(UInt64)), CAST([] AS Array(Float64)), mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), p.attributes.value))), metric.sum.dataPoints),
        arrayMap(p -> ('histogram', metric.histogram.aggregationTemporality, false, p.startTimeUnixNano, p.timeUnixNano, ifNull(p.sum, 0.), p.count, p.min, p.max, p.bucketCounts, p.explicitBounds, mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), p.attributes.value))), metric.histogram.dataPoints),
        arrayMap(p -> ('exponential_histogram', metric.exponentialHistogram.aggregationTemporality, false, p.startTimeUnixNano, p.timeUnixNano, ifNull(p.sum, 0.), p.count, p.min, p.max, CAST([] AS Array(UInt64)), CAST([] AS Array(Float64)), mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), p.attributes.value))), metric.exponentialHistogram.dataPoints),
        arrayMap(p -> ('summary', 0, false, p.startTimeUnixNano, p.timeUnixNano, p.sum, p.count, CAST(NULL AS Nullable(Float64)), CAST(NULL AS Nullable(Float64)), CAST([] AS Array(UInt64)), CAST([] AS Array(Float64)), mapFromArrays(p.attributes.key, arrayMap(v -> coalesce(v.stringValue, toString(v.intValue), toString(v.doubleValue), toString(v.boolValue), ''), p.attributes.value))), metric.summary.dataPoints)) AS point;
