-- Which signs are delivered, and how fast?
-- Sends that the send log knows, by their sign_name; orphans are not among them. p50 and p95 are of the total latency.
WITH
sent AS (
    SELECT
        sign_name,
        count(*) AS sends,
        count(*) FILTER (WHERE state = 'reported') AS reported,
        count(*) FILTER (WHERE success) AS delivered,
        count(*) FILTER (WHERE state = 'open') AS open,
        count(*) FILTER (WHERE state = 'unreported') AS unreported
    FROM sends
    GROUP BY sign_name
),
timed AS (
    SELECT
        sign_name,
        quantile_disc(total_ms, 0.50) AS p50_ms,
        quantile_disc(total_ms, 0.95) AS p95_ms
    FROM reports
    WHERE match = 'matched'
    GROUP BY sign_name
)
SELECT
    coalesce(sent.sign_name, '(none)') AS sign_name,
    sends,
    reported,
    delivered,
    share(delivered, reported) AS delivery_rate_of_reports,
    share(delivered, sends) AS delivery_rate_of_sends,
    open,
    unreported,
    p50_ms,
    p95_ms
FROM sent LEFT JOIN timed ON sent.sign_name IS NOT DISTINCT FROM timed.sign_name
ORDER BY sends DESC, sign_name;
