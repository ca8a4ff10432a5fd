-- How did each day go?
-- Beijing days, the latest first. Sends count on the day of the request, reports on the day of Alibaba's send_time.
WITH
sent AS (
    SELECT
        day,
        count(*) AS sends,
        count(*) FILTER (WHERE state = 'open') AS open,
        count(*) FILTER (WHERE state = 'unreported') AS unreported
    FROM sends
    GROUP BY day
),
reported AS (
    SELECT
        day,
        count(*) AS reports,
        count(*) FILTER (WHERE success) AS delivered,
        count(*) FILTER (WHERE match = 'orphan') AS orphans,
        quantile_disc(total_ms, 0.50) AS p50_ms,
        quantile_disc(total_ms, 0.95) AS p95_ms
    FROM reports
    GROUP BY day
)
SELECT
    day,
    coalesce(sends, 0) AS sends,
    coalesce(reports, 0) AS reports,
    coalesce(delivered, 0) AS delivered,
    share(delivered, reports) AS delivery_rate_of_reports,
    coalesce(orphans, 0) AS orphans,
    coalesce(open, 0) AS open,
    coalesce(unreported, 0) AS unreported,
    p50_ms,
    p95_ms
FROM sent FULL JOIN reported USING (day)
ORDER BY day DESC;
