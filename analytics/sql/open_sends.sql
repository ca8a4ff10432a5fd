-- How long have open sends been waiting for their report?
-- Age at the last epoch, in whole hours.
SELECT
    CASE
        WHEN hours < 1 THEN 'under 1 h'
        WHEN hours < 6 THEN '1 to 6 h'
        WHEN hours < 24 THEN '6 to 24 h'
        WHEN hours < 72 THEN '24 to 72 h'
        ELSE 'over 72 h'
    END AS age,
    count(*) AS open,
    max(hours) AS oldest_hours
FROM (
    SELECT (epoch_ms(getvariable('as_of')) - epoch_ms(requested_at)) // 3600000 AS hours
    FROM sends
    WHERE state = 'open'
)
GROUP BY age
ORDER BY min(hours);
