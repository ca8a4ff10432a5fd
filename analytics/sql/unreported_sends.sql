-- Which sends were given up on, because no report came within the patience?
-- Ask Alibaba's send status query about them: it knows the last 30 days.
SELECT day, template_code, campaign, count(*) AS unreported
FROM sends
WHERE state = 'unreported'
GROUP BY ALL
ORDER BY day DESC, unreported DESC, template_code, campaign;
