-- /clear and --continue begin a session within a process, whose numbers (event.sequence) go on: which number a session's begin with, where
-- there is no gap between them. A summary of before knows it where its numbers begin with 0.
ALTER TABLE telemetry.session_summaries ADD COLUMN IF NOT EXISTS numbers_from Nullable(UInt64) DEFAULT if(whole, 0, NULL)
    COMMENT 'their numbers are this one and those that follow it, once each; NULL: some are missing or there more than once' AFTER whole;
