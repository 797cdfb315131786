-- Programs that were submitted more than once, up to comments and formatting.
-- `spent_seconds` is what the later trials cost; a gate refuses a duplicate before it runs.
SELECT campaign, first_trial, again, labels, spent_seconds
FROM (
  SELECT campaign, program, min(trial) AS first_trial, list_sort(list(trial))[2:] AS again,
    list_sort(list(DISTINCT label)) AS labels, round(sum(seconds) - arg_min(seconds, trial), 2) AS spent_seconds
  FROM trials
  WHERE program IS NOT NULL
  GROUP BY campaign, program
  HAVING count(*) > 1)
ORDER BY campaign, first_trial;
