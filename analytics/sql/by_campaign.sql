-- Which campaigns are delivered, and how fast?
-- Sends that the send log knows, by their campaign; orphans are not among them. p50 and p95 are of the total latency.
WITH
sent AS (
    SELECT
        campaign,
        count(*) AS sends,
        count(*) FILTER (WHERE state = 'reported') AS reported,
        count(*) FILTER (WHERE success) AS delivered,
        count(*) FILTER (WHERE state = 'open') AS open,
        count(*) FILTER (WHERE state = 'unreported') AS unreported
    FROM sends
    GROUP BY campaign
),
timed AS (
    SELECT
        campaign,
        quantile_disc(total_ms, 0.50) AS p50_ms,
        quantile_disc(total_ms, 0.95) AS p95_ms
    FROM reports
    WHERE match = 'matched'
    GROUP BY campaign
)
SELECT
    coalesce(sent.campaign, '(none)') AS campaign,
    sends,
    reported,
    delivered,
    share(delivered, reported) AS delivery_rate_of_reports,
    share(delivered, sends) AS delivery_rate_of_sends,
    open,
    unreported,
    p50_ms,
    p95_ms
FROM sent LEFT JOIN timed ON sent.campaign IS NOT DISTINCT FROM timed.campaign
ORDER BY sends DESC, campaign;
