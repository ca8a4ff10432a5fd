-- Why do SMS fail?
-- The twenty most frequent codes of failed reports. The set of codes is open: one without a meaning is shown as Alibaba sent it.
WITH codes AS (
    SELECT nullif(err_code, '') AS err_code, count(*) AS failed
    FROM reports
    WHERE NOT success
    GROUP BY ALL
)
SELECT
    coalesce(err_code, '(none)') AS err_code,
    failed,
    share(failed, sum(failed) OVER ()) AS share_of_failed,
    meaning
FROM codes LEFT JOIN err_code_meanings USING (err_code)
ORDER BY failed DESC, err_code
LIMIT 20;
