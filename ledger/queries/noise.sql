-- The spread between seeds of one recipe: what a gain has to be told from.
-- `pooled_std` joins the spreads of all trials with two or more seeds around their own means.
SELECT campaign, count(*) AS trials, sum(score_n)::BIGINT AS seeds,
  sqrt(sum(score_std ^ 2 * (score_n - 1)) / sum(score_n - 1)) AS pooled_std,
  min(score_std) AS least_std, median(score_std) AS median_std, max(score_std) AS greatest_std
FROM trials
WHERE score_n > 1
GROUP BY campaign
ORDER BY campaign;
