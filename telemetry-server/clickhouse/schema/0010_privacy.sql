-- Which privacy policy has been in force since when, and when stored rows were brought down to it. The newest row of `what` = 'in force' holds.
CREATE TABLE IF NOT EXISTS telemetry.privacy_history
(
    since          DateTime64(3, 'UTC') DEFAULT now64(3),
    what           LowCardinality(String) COMMENT 'in force; tightening, tightened: stored rows, by table',
    level          LowCardinality(String),
    own_patterns   UInt16,
    own_attributes UInt16,
    checksum       String COMMENT 'of the functions that 00_privacy.sql renders to',
    detail         String
)
ENGINE = MergeTree
ORDER BY since;
