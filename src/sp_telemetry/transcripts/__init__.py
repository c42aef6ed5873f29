"""Claude Code's own transcripts: read by the engine, held against the telemetry."""
