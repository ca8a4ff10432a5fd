-- How long does delivery take?
-- Milliseconds. queueing: from our call to Alibaba's send_time; carrier: from there to the report_time; total: both. Alibaba's times have a resolution of one second, so single figures are good to a second, and a queueing time may be just below zero.
WITH latencies AS (
    UNPIVOT (SELECT queueing_ms AS queueing, carrier_ms AS carrier, total_ms AS total FROM reports)
    ON queueing, carrier, total INTO NAME latency VALUE ms
),
names AS (
    SELECT * FROM (VALUES (1, 'queueing'), (2, 'carrier'), (3, 'total')) AS names (position, latency)
)
SELECT
    latency,
    count(ms) AS reports,
    quantile_disc(ms, 0.50) AS p50_ms,
    quantile_disc(ms, 0.90) AS p90_ms,
    quantile_disc(ms, 0.95) AS p95_ms,
    quantile_disc(ms, 0.99) AS p99_ms,
    max(ms) AS max_ms
FROM names LEFT JOIN latencies USING (latency)
GROUP BY position, latency
ORDER BY position;
