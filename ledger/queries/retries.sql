-- Runs that were done again because the machine failed, not the recipe.
SELECT campaign, trial, run, seed, attempt, runner, label
FROM runs
WHERE attempt > 0 OR label = 'infra_error'
ORDER BY campaign, trial, run;
