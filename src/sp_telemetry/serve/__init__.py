"""The embedded server: OTLP in, the ClickHouse HTTP interface out, one process that owns the store."""
