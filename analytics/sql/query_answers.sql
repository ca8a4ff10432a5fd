-- What did Alibaba say of the sends that no report had come for?
-- The latest answer to `sms-receipts reconcile` about each send. Delivered and failed count among the reports; awaiting and unknown (Alibaba has no such SMS) are asked about again; refused: Alibaba will not say.
WITH latest AS (
    SELECT *
    FROM query_answers
    QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY enqueued_at DESC, message_id) = 1
)
SELECT
    beijing_day(requested_at) AS day, answer, count(*) AS sends,
    strftime(max(enqueued_at), '%Y-%m-%d %H:%M:%S') AS last_asked_at_utc
FROM latest
WHERE is_asked_for(beijing_day(requested_at))
GROUP BY ALL
ORDER BY day DESC, sends DESC, answer;
