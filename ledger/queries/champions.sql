-- The history of the best: each trial that became champion.
-- `gain` is the improvement over the champion before it, `delta_baseline` the change since the start, both in the metric's unit.
SELECT campaign, trial, score, score_std, score_n, gain, p_value, delta_baseline, hypothesis
FROM champions
ORDER BY campaign, trial;
