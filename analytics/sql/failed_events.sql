-- What could not be used, and why?
-- What is still open. The original bytes, and every attempt of a replay, are in the tables failed_events and failed_sends; `sms-receipts replay` tells what could be used now.
SELECT
    origin, stage, reason, count(*) AS failed_events,
    max(attempt) AS most_attempts, max(day) AS last_day
FROM failures
GROUP BY ALL
ORDER BY failed_events DESC, origin, stage, reason;
