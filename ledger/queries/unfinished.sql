-- Trials without a verdict: under way, or abandoned when a supervisor ended.
SELECT campaign, trial, specialist, hypothesis, round(seconds, 2) AS seconds
FROM trials
WHERE verdict IS NULL
ORDER BY campaign, trial;
