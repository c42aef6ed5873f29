-- Remembers the audit of {audited_at}, once its findings are written.
INSERT INTO telemetry.audits SELECT {audited_at:DateTime64(9, 'UTC')}, cityHash64({asked:String}), {state:UInt64}
