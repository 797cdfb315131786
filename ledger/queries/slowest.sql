-- The ten trials of each campaign that took longest in their recipes.
SELECT campaign, trial, specialist, verdict, label, round(seconds, 2) AS seconds
FROM trials
QUALIFY row_number() OVER (PARTITION BY campaign ORDER BY seconds DESC, trial) <= 10
ORDER BY campaign, seconds DESC, trial;
