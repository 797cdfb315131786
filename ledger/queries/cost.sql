-- Where the time and the money went, by verdict.
-- A trial without verdict is open or was abandoned.
SELECT campaign, coalesce(verdict, 'none') AS verdict, count(*) AS trials,
  round(sum(seconds), 2) AS seconds, round(sum(usd), 4) AS usd,
  round(sum(seconds) / sum(sum(seconds)) OVER (PARTITION BY campaign), 3) AS share_of_seconds
FROM trials
GROUP BY campaign, verdict
ORDER BY campaign, seconds DESC, verdict;
