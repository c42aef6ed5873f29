-- The moment of an audit that asked the same of the same state, within the last day; no row where there is none.
SELECT toString(audited_at) FROM telemetry.audits
WHERE asked = cityHash64({asked:String}) AND state = {state:UInt64} AND audited_at > now64(9) - INTERVAL 1 DAY
ORDER BY audited_at DESC LIMIT 1
