-- What could not be used, and why?
-- The original bytes are kept in the tables failed_events and failed_sends.
SELECT origin, stage, reason, count(*) AS failed_events, max(day) AS last_day
FROM failures
GROUP BY ALL
ORDER BY failed_events DESC, origin, stage, reason;
