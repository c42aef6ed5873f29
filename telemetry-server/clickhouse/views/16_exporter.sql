-- Metrics as the OpenTelemetry Collector's ClickHouse exporter writes them: a table for each kind of points, named and shaped as its
-- own are but for times, which keep their nanoseconds. Null tables, as in 10_otlp_logs.sql. Its tables for logs and traces are otel_logs
-- and otel_traces themselves. It writes 0 for a smallest or largest value that is unknown; only where nothing was counted is that told.
CREATE TABLE IF NOT EXISTS telemetry.otel_metrics_gauge
(
    ResourceAttributes    Map(String, String),
    ResourceSchemaUrl     String,
    ScopeName             String,
    ScopeVersion          String,
    ScopeAttributes       Map(String, String),
    ScopeDroppedAttrCount UInt32,
    ScopeSchemaUrl        String,
    ServiceName           LowCardinality(String),
    MetricName            String,
    MetricDescription     String,
    MetricUnit            String,
    Attributes            Map(String, String),
    StartTimeUnix         DateTime64(9),
    TimeUnix              DateTime64(9),
    Value                 Float64,
    Flags                 UInt32,
    Exemplars             Nested(FilteredAttributes Map(String, String), TimeUnix DateTime64(9), Value Float64, SpanId String, TraceId String)
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otel_metrics_gauge_mv TO telemetry.otel_metric_points AS
SELECT MetricName, MetricUnit, ResourceAttributes, 'gauge' AS MetricType, '' AS AggregationTemporality, false AS IsMonotonic,
       StartTimeUnix, TimeUnix, Value, toUInt64(1) AS Count, Attributes
FROM telemetry.otel_metrics_gauge;

CREATE TABLE IF NOT EXISTS telemetry.otel_metrics_sum
(
    ResourceAttributes     Map(String, String),
    ResourceSchemaUrl      String,
    ScopeName              String,
    ScopeVersion           String,
    ScopeAttributes        Map(String, String),
    ScopeDroppedAttrCount  UInt32,
    ScopeSchemaUrl         String,
    ServiceName            LowCardinality(String),
    MetricName             String,
    MetricDescription      String,
    MetricUnit             String,
    Attributes             Map(String, String),
    StartTimeUnix          DateTime64(9),
    TimeUnix               DateTime64(9),
    Value                  Float64,
    Flags                  UInt32,
    Exemplars              Nested(FilteredAttributes Map(String, String), TimeUnix DateTime64(9), Value Float64, SpanId String, TraceId String),
    AggregationTemporality Int32,
    IsMonotonic            Bool
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otel_metrics_sum_mv TO telemetry.otel_metric_points AS
SELECT points.MetricName AS MetricName, points.MetricUnit AS MetricUnit, points.ResourceAttributes AS ResourceAttributes, 'sum' AS MetricType,
       ['', 'delta', 'cumulative'][points.AggregationTemporality + 1] AS AggregationTemporality, points.IsMonotonic AS IsMonotonic,
       points.StartTimeUnix AS StartTimeUnix, points.TimeUnix AS TimeUnix, points.Value AS Value, toUInt64(1) AS Count, points.Attributes AS Attributes
FROM telemetry.otel_metrics_sum AS points;

CREATE TABLE IF NOT EXISTS telemetry.otel_metrics_histogram
(
    ResourceAttributes     Map(String, String),
    ResourceSchemaUrl      String,
    ScopeName              String,
    ScopeVersion           String,
    ScopeAttributes        Map(String, String),
    ScopeDroppedAttrCount  UInt32,
    ScopeSchemaUrl         String,
    ServiceName            LowCardinality(String),
    MetricName             String,
    MetricDescription      String,
    MetricUnit             String,
    Attributes             Map(String, String),
    StartTimeUnix          DateTime64(9),
    TimeUnix               DateTime64(9),
    Count                  UInt64,
    Sum                    Float64,
    BucketCounts           Array(UInt64),
    ExplicitBounds         Array(Float64),
    Exemplars              Nested(FilteredAttributes Map(String, String), TimeUnix DateTime64(9), Value Float64, SpanId String, TraceId String),
    Flags                  UInt32,
    Min                    Float64,
    Max                    Float64,
    AggregationTemporality Int32
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otel_metrics_histogram_mv TO telemetry.otel_metric_points AS
SELECT points.MetricName AS MetricName, points.MetricUnit AS MetricUnit, points.ResourceAttributes AS ResourceAttributes, 'histogram' AS MetricType,
       ['', 'delta', 'cumulative'][points.AggregationTemporality + 1] AS AggregationTemporality, false AS IsMonotonic,
       points.StartTimeUnix AS StartTimeUnix, points.TimeUnix AS TimeUnix, points.Sum AS Value, points.Count AS Count,
       if(points.Count = 0, NULL, points.Min) AS Min, if(points.Count = 0, NULL, points.Max) AS Max,
       points.BucketCounts AS BucketCounts, points.ExplicitBounds AS ExplicitBounds, points.Attributes AS Attributes
FROM telemetry.otel_metrics_histogram AS points;

CREATE TABLE IF NOT EXISTS telemetry.otel_metrics_exponential_histogram
(
    ResourceAttributes     Map(String, String),
    ResourceSchemaUrl      String,
    ScopeName              String,
    ScopeVersion           String,
    ScopeAttributes        Map(String, String),
    ScopeDroppedAttrCount  UInt32,
    ScopeSchemaUrl         String,
    ServiceName            LowCardinality(String),
    MetricName             String,
    MetricDescription      String,
    MetricUnit             String,
    Attributes             Map(String, String),
    StartTimeUnix          DateTime64(9),
    TimeUnix               DateTime64(9),
    Count                  UInt64,
    Sum                    Float64,
    Scale                  Int32,
    ZeroCount              UInt64,
    PositiveOffset         Int32,
    PositiveBucketCounts   Array(UInt64),
    NegativeOffset         Int32,
    NegativeBucketCounts   Array(UInt64),
    Exemplars              Nested(FilteredAttributes Map(String, String), TimeUnix DateTime64(9), Value Float64, SpanId String, TraceId String),
    Flags                  UInt32,
    Min                    Float64,
    Max                    Float64,
    AggregationTemporality Int32
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otel_metrics_exponential_histogram_mv TO telemetry.otel_metric_points AS
SELECT points.MetricName AS MetricName, points.MetricUnit AS MetricUnit, points.ResourceAttributes AS ResourceAttributes,
       'exponential_histogram' AS MetricType,
       ['', 'delta', 'cumulative'][points.AggregationTemporality + 1] AS AggregationTemporality, false AS IsMonotonic,
       points.StartTimeUnix AS StartTimeUnix, points.TimeUnix AS TimeUnix, points.Sum AS Value, points.Count AS Count,
       if(points.Count = 0, NULL, points.Min) AS Min, if(points.Count = 0, NULL, points.Max) AS Max, points.Attributes AS Attributes
FROM telemetry.otel_metrics_exponential_histogram AS points;

CREATE TABLE IF NOT EXISTS telemetry.otel_metrics_summary
(
    ResourceAttributes    Map(String, String),
    ResourceSchemaUrl     String,
    ScopeName             String,
    ScopeVersion          String,
    ScopeAttributes       Map(String, String),
    ScopeDroppedAttrCount UInt32,
    ScopeSchemaUrl        String,
    ServiceName           LowCardinality(String),
    MetricName            String,
    MetricDescription     String,
    MetricUnit            String,
    Attributes            Map(String, String),
    StartTimeUnix         DateTime64(9),
    TimeUnix              DateTime64(9),
    Count                 UInt64,
    Sum                   Float64,
    ValueAtQuantiles      Nested(Quantile Float64, Value Float64),
    Flags                 UInt32
)
ENGINE = Null;

CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.otel_metrics_summary_mv TO telemetry.otel_metric_points AS
SELECT MetricName, MetricUnit, ResourceAttributes, 'summary' AS MetricType, '' AS AggregationTemporality, false AS IsMonotonic,
       StartTimeUnix, TimeUnix, Sum AS Value, Count, Attributes
FROM telemetry.otel_metrics_summary;
