-- Which templates are delivered, and how fast?
-- Sends that the send log knows, by their template_code; orphans are not among them. p50 and p95 are of the total latency.
WITH
sent AS (
    SELECT
        template_code,
        count(*) AS sends,
        count(*) FILTER (WHERE state = 'reported') AS reported,
        count(*) FILTER (WHERE success) AS delivered,
        count(*) FILTER (WHERE state = 'open') AS open,
        count(*) FILTER (WHERE state = 'unreported') AS unreported
    FROM sends
    GROUP BY template_code
),
timed AS (
    SELECT
        template_code,
        quantile_disc(total_ms, 0.50) AS p50_ms,
        quantile_disc(total_ms, 0.95) AS p95_ms
    FROM reports
    WHERE match = 'matched'
    GROUP BY template_code
)
SELECT
    coalesce(sent.template_code, '(none)') AS template_code,
    sends,
    reported,
    delivered,
    share(delivered, reported) AS delivery_rate_of_reports,
    share(delivered, sends) AS delivery_rate_of_sends,
    open,
    unreported,
    p50_ms,
    p95_ms
FROM sent LEFT JOIN timed ON sent.template_code IS NOT DISTINCT FROM timed.template_code
ORDER BY sends DESC, template_code;
