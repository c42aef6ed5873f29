"""Claude Code's own transcripts, for the audit and for backfill."""
