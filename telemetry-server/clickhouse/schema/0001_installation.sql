-- What this store is: its schema's history, and the salt of its hashes.
CREATE DATABASE IF NOT EXISTS telemetry;

CREATE TABLE IF NOT EXISTS telemetry.schema_migrations
(
    name       String,
    checksum   String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY name;

-- One row. Hashes are salted with it, so they can be compared inside this store and nowhere else. Readers never see it.
CREATE TABLE IF NOT EXISTS telemetry.installation
(
    salt       String,
    created_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY created_at;
