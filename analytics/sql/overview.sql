-- How many SMS were sent, and what became of them?
-- An orphan is a report whose send the send log never had; orphans count among the reports, not among the sends.
WITH
sent AS (
    SELECT
        count(*) AS sends,
        count(*) FILTER (WHERE success) AS delivered_sends,
        count(*) FILTER (WHERE state = 'open') AS open,
        count(*) FILTER (WHERE state = 'unreported') AS unreported
    FROM sends
),
reported AS (
    SELECT
        count(*) AS reports,
        count(*) FILTER (WHERE success) AS delivered,
        count(*) FILTER (WHERE NOT success) AS failed,
        count(*) FILTER (WHERE match = 'orphan') AS orphans,
        count(*) FILTER (WHERE is_corrected) AS corrected
    FROM reports
)
SELECT
    sends,
    reports,
    delivered,
    failed,
    share(delivered, reports) AS delivery_rate_of_reports,
    share(delivered_sends, sends) AS delivery_rate_of_sends,
    orphans,
    share(orphans, reports) AS orphan_share,
    corrected,
    open,
    unreported,
    (SELECT count(*) FROM waiting) AS waiting,
    (SELECT count(*) FROM replies) AS replies,
    (SELECT count(*) FROM failures) AS failed_events
FROM sent, reported;
