-- How well each specialist foresees what its edits do.
-- `sign_hits` is the share of trials whose score moved the way that was expected; the errors are in the metric's unit.
SELECT campaign, specialist, count(*) AS scored,
  round(avg((sign(expected_delta) = sign(delta_parent))::INT), 3) AS sign_hits,
  avg(expected_delta) AS mean_expected, avg(delta_parent) AS mean_observed,
  avg(delta_parent - expected_delta) AS mean_error, avg(abs(delta_parent - expected_delta)) AS mean_abs_error
FROM trials
WHERE expected_delta IS NOT NULL AND delta_parent IS NOT NULL
GROUP BY ALL
ORDER BY campaign, specialist;
