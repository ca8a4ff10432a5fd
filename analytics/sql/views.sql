-- What do the words in the other files mean? Every question is asked of the views defined here.
--
-- The tables that they stand on are the dataset's own, each with all of its current files:
-- enriched_reports, inbound_sms, unreported_sends, failed_events, failed_sends, open_sends, waiting_reports,
-- query_answers.
-- `day` is the Beijing calendar day (UTC+8): what people and Alibaba's own totals mean by a day.
-- The variables first_day and last_day (NULL: no limit) choose the days that are asked about, and as_of is
-- the moment of the last epoch.

CREATE MACRO beijing_day(moment) AS CAST(make_timestamp(epoch_us(moment) + 28800000000) AS DATE);

CREATE MACRO is_asked_for(some_day) AS
    (getvariable('first_day') IS NULL OR some_day >= getvariable('first_day')::DATE)
    AND (getvariable('last_day') IS NULL OR some_day <= getvariable('last_day')::DATE);

-- A part of a whole; NULL where there is no whole.
CREATE MACRO share(part, whole) AS round(part / nullif(whole, 0), 6);

-- enriched_reports keeps every outcome of an SMS that was ever reported, and what a later epoch learned about
-- it. Few SMS have more than one row: only those are ranked, which makes the views below cheap. They are looked
-- for by a hash, which takes a third of the time and of the memory; ids that only share theirs fall out again.
CREATE TEMP TABLE repeated_events AS
SELECT event_id, count(DISTINCT (success, err_code)) > 1 AS is_corrected
FROM enriched_reports
WHERE hash(event_id) IN (SELECT hash(event_id) FROM enriched_reports GROUP BY ALL HAVING count(*) > 1)
GROUP BY event_id
HAVING count(*) > 1;

-- One row per SMS that was reported: the outcome that counts now.
CREATE VIEW all_reports AS
SELECT *, beijing_day(send_time) AS day, false AS is_corrected
FROM enriched_reports ANTI JOIN repeated_events USING (event_id)
UNION ALL
SELECT enriched_reports.*, beijing_day(send_time) AS day, is_corrected
FROM enriched_reports JOIN repeated_events USING (event_id)
QUALIFY row_number() OVER (
    PARTITION BY event_id
    ORDER BY revision DESC, origin <> 'query', enqueued_at, message_id, requested_at NULLS LAST
) = 1;

-- The same, of the days asked about.
CREATE VIEW reports AS
SELECT * FROM all_reports WHERE is_asked_for(day);

-- One row per SMS that the send log knows: reported, still open, or given up on (unreported). A report that
-- comes after a send was given up on makes it reported; an orphan's send came too late to be joined, or never.
CREATE VIEW sends AS
WITH silent_sends AS (
    SELECT
        md5(biz_id || '|' || phone_number) AS event_id, biz_id, phone_number, out_id, sign_name,
        template_code, campaign, tags, requested_at, 'open' AS state
    FROM open_sends
    UNION ALL
    SELECT
        event_id, biz_id, phone_number, out_id, sign_name,
        template_code, campaign, tags, requested_at, 'unreported' AS state
    FROM unreported_sends
),
still_silent_sends AS (
    SELECT *, CAST(NULL AS BOOLEAN) AS success
    FROM silent_sends ANTI JOIN enriched_reports USING (event_id)
    QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY state, requested_at) = 1
),
every_send AS (
    SELECT
        event_id, biz_id, phone_number, out_id, sign_name,
        template_code, campaign, tags, requested_at, 'reported' AS state, success
    FROM all_reports
    WHERE match = 'matched'
    UNION ALL
    SELECT * FROM still_silent_sends
)
SELECT *, beijing_day(requested_at) AS day
FROM every_send
WHERE is_asked_for(beijing_day(requested_at));

-- One row per text that a person sent.
CREATE VIEW replies AS
SELECT *, beijing_day(send_time) AS day
FROM inbound_sms
WHERE is_asked_for(beijing_day(send_time));

-- One row per report that still waits for its send.
CREATE VIEW waiting AS
SELECT *, beijing_day(send_time) AS day
FROM waiting_reports
WHERE is_asked_for(beijing_day(send_time));

-- One row per message or send log entry that could not be used and still cannot: its latest failure. What was
-- replayed with success is none any more.
CREATE VIEW failures AS
WITH latest_attempts AS (
    SELECT *, beijing_day(coalesce(enqueued_at, failed_at)) AS day
    FROM (
        SELECT *, 'message' AS origin FROM failed_events
        UNION ALL
        SELECT *, 'send log entry' AS origin FROM failed_sends
    )
    QUALIFY row_number() OVER (PARTITION BY event_id ORDER BY attempt DESC, failed_at DESC) = 1
)
SELECT * EXCLUDE (replayed_at)
FROM latest_attempts
WHERE replayed_at IS NULL AND is_asked_for(day);
