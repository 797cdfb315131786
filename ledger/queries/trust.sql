-- Who stands behind the scores: measured, witnessed or self-reported.
SELECT campaign, trust, count(*) AS trials, count(*) FILTER (verdict = 'kept') AS kept
FROM trials
WHERE score IS NOT NULL
GROUP BY ALL
ORDER BY campaign, trust;
