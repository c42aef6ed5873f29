-- Context records travel as OTLP logs named sp_telemetry.context, by the same road as the events they explain.
CREATE MATERIALIZED VIEW IF NOT EXISTS telemetry.session_context_mv TO telemetry.session_context AS
WITH
    assumeNotNull((SELECT any(salt) FROM telemetry.installation)) AS salt,
    mapApply((k, v) -> (k, if(telemetry_taken(k), telemetry_ruled(salt, k, v), telemetry_text(k, v))), LogAttributes) AS w
SELECT
    telemetry_identifier(salt, LogAttributes['session.id']) AS session_id,
    Timestamp AS at,
    now64(9) AS received_at,
    w['context.project'] AS project,
    w['context.branch'] AS branch,
    w['context.feature'] AS feature,
    w['context.chapter'] AS chapter,
    w['context.part'] AS part,
    w['context.step'] AS step,
    w['context.person'] AS person,
    w['context.directory'] AS directory,
    w['context.spec_directory'] AS spec_directory,
    w['context.worktree'] AS worktree,
    w['context.feature_source'] AS feature_source,
    w['context.chapter_source'] AS chapter_source,
    toFloat32OrZero(LogAttributes['context.confidence']) AS confidence,
    w['context.hook'] AS hook,
    telemetry_identifier(salt, LogAttributes['context.record_id']) AS record_id
FROM telemetry.otel_logs
WHERE LogAttributes['event.name'] = 'sp_telemetry.context';
