"""Claude Code's own transcripts: read by the engine, held against the telemetry."""

GRACE_S = 60  # what is younger may still be under way
