-- What was filled in are requests; so that prompts are counted too, the first of a prompt's says that it begins one.
ALTER TABLE telemetry.telemetry_events
    ADD COLUMN IF NOT EXISTS begins_prompt Bool DEFAULT false COMMENT 'of a row from a transcript: the first request of a prompt that no event tells of' AFTER prompt_id;
