-- What each specialist achieved, and what a kept trial of it costs.
-- Seconds are those of recipes, without measuring and thinking; a cost per kept trial is empty where none was kept.
SELECT campaign, specialist, count(*) AS trials,
  count(*) FILTER (verdict = 'kept') AS kept,
  count(*) FILTER (verdict IN ('failed', 'disqualified')) AS failed,
  round(count(*) FILTER (verdict = 'kept') / count(*), 3) AS kept_share,
  sum(gain) FILTER (verdict = 'kept') AS kept_gain,
  round(sum(seconds) / nullif(count(*) FILTER (verdict = 'kept'), 0), 2) AS seconds_per_kept,
  round(sum(usd) / nullif(count(*) FILTER (verdict = 'kept'), 0), 4) AS usd_per_kept
FROM trials
WHERE specialist IS NOT NULL
GROUP BY ALL
ORDER BY campaign, kept DESC, specialist;
