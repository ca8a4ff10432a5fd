-- Which sends were given up on, because no report came within the patience?
-- `sms-receipts reconcile` asks Alibaba about them, which knows the last 30 days; query_answers has what it said.
SELECT day, template_code, campaign, count(*) AS unreported
FROM sends
WHERE state = 'unreported'
GROUP BY ALL
ORDER BY day DESC, unreported DESC, template_code, campaign;
