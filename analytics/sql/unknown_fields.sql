-- Which fields come that no column is for?
-- Nothing of them is lost: the column unknown_fields maps their names to their JSON text. Status and SendStatus of international reports are always kept there; another field is new, or one that this version has no column for yet.
WITH records AS (
    SELECT 'delivery report' AS record, day, unknown_fields FROM reports
    UNION ALL
    SELECT 'delivery report' AS record, day, unknown_fields FROM waiting
    UNION ALL
    SELECT 'inbound SMS' AS record, day, unknown_fields FROM replies
),
fields AS (
    SELECT unnest(map_keys(unknown_fields)) AS field, record, day FROM records
)
SELECT field, record, count(*) AS records, min(day) AS first_day, max(day) AS last_day
FROM fields
GROUP BY ALL
ORDER BY records DESC, field, record;
