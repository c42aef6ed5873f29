-- Cost is a list price, also where nobody pays it: which of it was under a subscription is told by the client since some version up to 2.1.330.
-- Columns, for reports would otherwise read the whole map of attributes for two words of it.
ALTER TABLE telemetry.telemetry_events
    ADD COLUMN IF NOT EXISTS plan LowCardinality(String) COMMENT 'pro, max, team, enterprise: the subscription that the request counts against' AFTER organization_id,
    ADD COLUMN IF NOT EXISTS seat_type LowCardinality(String) COMMENT 'premium, standard, usage_based, other: of team and enterprise' AFTER plan;
