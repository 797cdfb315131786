-- What fails, where, and a reason of the last one.
-- `share_of_failures` is within the campaign. A failure has a label and no score.
SELECT campaign, label, claimed_domain, count(*) AS trials,
  round(count(*) / sum(count(*)) OVER (PARTITION BY campaign), 3) AS share_of_failures,
  min(trial) AS first_trial, max(trial) AS last_trial, arg_max(reason, trial) AS last_reason
FROM trials
WHERE label IS NOT NULL
GROUP BY campaign, label, claimed_domain
ORDER BY campaign, trials DESC, label, claimed_domain;
