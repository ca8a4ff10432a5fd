-- How many people replied, and to which number?
SELECT dest_code, count(*) AS replies, count(DISTINCT phone_number) AS people, max(day) AS last_day
FROM replies
GROUP BY dest_code
ORDER BY replies DESC, dest_code;
