-- Discarded trials that looked better than the champion, the surest first.
-- They are not evidence of a gain: `p_value` is how likely it is to see so much from a trial that is no better.
SELECT campaign, trial, champion, score, gain, p_value, hypothesis
FROM trials
WHERE verdict = 'discarded' AND gain > 0
ORDER BY campaign, p_value, trial;
