-- Lineage views over the table `events` (seq, campaign, trial, type, actor, recorded_at, body), as of its last event.
-- A view stands after those that it reads.

-- One row an execution: seed, clocks and memory as the runner saw them, and how it ended.
CREATE VIEW runs AS
WITH
  started AS (
    SELECT campaign, trial, (body ->> 'run')::BIGINT AS run, (body ->> 'seed')::BIGINT AS seed,
      (body ->> 'attempt')::BIGINT AS attempt, body ->> 'runner' AS runner, body ->> 'isolation' AS isolation
    FROM events WHERE type = 'run_started'),
  finished AS (
    SELECT campaign, trial, (body ->> 'run')::BIGINT AS run,
      (body ->> '$.train.exit_code')::BIGINT AS exit_code, (body ->> '$.train.signal')::BIGINT AS signal,
      body ->> '$.train.killed_for' AS killed_for,
      (body ->> '$.train.wall_s')::DOUBLE AS train_wall_s, (body ->> '$.train.cpu_s')::DOUBLE AS train_cpu_s,
      coalesce(list_sum((body -> '$.predict[*].wall_s')::DOUBLE[]), 0) AS predict_wall_s,
      (body ->> '$.train.max_rss_bytes')::BIGINT AS max_rss_bytes,
      (body ->> 'artifact_bytes')::BIGINT AS artifact_bytes, body ->> 'log' AS log,
      (body ->> 'load_1m')::DOUBLE AS load_1m
    FROM events WHERE type = 'run_finished'),
  failed AS (
    SELECT campaign, trial, (body ->> 'run')::BIGINT AS run, body ->> 'label' AS label
    FROM events WHERE type = 'failure_labelled' AND body ->> 'run' IS NOT NULL)
SELECT s.*, f.* EXCLUDE (campaign, trial, run), l.label
FROM started s
LEFT JOIN finished f USING (campaign, trial, run)
LEFT JOIN failed l USING (campaign, trial, run)
ORDER BY s.campaign, s.trial, s.run;

-- One row a metric of a scored run.
CREATE VIEW scores AS
SELECT campaign, trial, (body ->> 'run')::BIGINT AS run, (body ->> 'seed')::BIGINT AS seed,
  metric, (body -> 'metrics' ->> metric)::DOUBLE AS value, body ->> 'trust' AS trust
FROM (SELECT *, unnest(json_keys(body, '$.metrics')) AS metric FROM events WHERE type = 'score_recorded')
ORDER BY campaign, trial, run, metric;

-- One row a trial; trial 0 is the baseline. A trial without verdict is open or was abandoned.
-- One pass gathers the events of each trial: a join for each kind of event would cost more to plan than to run.
CREATE VIEW trials AS
WITH
  gathered AS (
    SELECT campaign, trial,
      any_value(body) FILTER (type = 'hypothesis_proposed') AS proposed,
      any_value(recorded_at) FILTER (type = 'hypothesis_proposed') AS proposed_at,
      any_value(body) FILTER (type = 'diff_submitted') AS submitted,
      any_value(body) FILTER (type IN ('verdict_reached', 'baseline_measured')) AS judged,
      any_value(body ->> 'recipe') FILTER (type = 'run_started') AS run_recipe,
      any_value(body ->> 'trust') FILTER (type = 'score_recorded') AS trust,
      count(DISTINCT body ->> 'trust') FILTER (type = 'score_recorded') AS trusts,
      sum((body ->> '$.train.wall_s')::DOUBLE + coalesce(list_sum((body -> '$.predict[*].wall_s')::DOUBLE[]), 0))
        FILTER (type = 'run_finished') AS seconds,
      bool_or(type = 'baseline_measured') AS is_baseline
    FROM events WHERE trial IS NOT NULL GROUP BY campaign, trial),
  scored AS (
    SELECT campaign, trial, (judged ->> '$.score.mean')::DOUBLE AS score FROM gathered),
  paid AS (
    SELECT campaign, body ->> 'session' AS session, sum((body ->> 'usd')::DOUBLE) AS usd
    FROM events WHERE type = 'model_called' GROUP BY ALL)
SELECT g.campaign, g.trial, proposed ->> 'specialist' AS specialist, proposed ->> 'claimed_domain' AS claimed_domain,
  NULL::VARCHAR AS observed_domain, NULL::VARCHAR AS kind, NULL::BOOLEAN AS strict_arch,
  (proposed ->> 'parent')::BIGINT AS parent, proposed ->> 'operator' AS operator,
  proposed ->> 'hypothesis' AS hypothesis, proposed ->> 'rationale' AS rationale,
  (proposed ->> 'expected_delta')::DOUBLE AS expected_delta,
  CASE WHEN is_baseline THEN 'baseline' ELSE judged ->> 'verdict' END AS verdict,
  judged ->> 'label' AS label, judged ->> 'reason' AS reason,
  (judged ->> '$.score.mean')::DOUBLE AS score, (judged ->> '$.score.std')::DOUBLE AS score_std,
  (judged ->> '$.score.n')::BIGINT AS score_n, CASE WHEN trusts > 1 THEN 'mixed' ELSE trust END AS trust,
  (judged ->> '$.score.mean')::DOUBLE - parent_scored.score AS delta_parent,
  (judged ->> '$.score.mean')::DOUBLE - champion_scored.score AS delta_champion,
  (judged ->> 'champion')::BIGINT AS champion, (judged ->> 'gain')::DOUBLE AS gain,
  (judged ->> 'p_value')::DOUBLE AS p_value,
  coalesce(submitted ->> 'recipe', run_recipe) AS recipe, submitted ->> 'program' AS program,
  submitted ->> 'diff' AS diff, proposed ->> 'session' AS session, proposed_at,
  coalesce(seconds, 0) AS seconds, coalesce(usd, 0) AS usd
FROM gathered g
LEFT JOIN scored parent_scored
  ON parent_scored.campaign = g.campaign AND parent_scored.trial = (proposed ->> 'parent')::BIGINT
LEFT JOIN scored champion_scored
  ON champion_scored.campaign = g.campaign AND champion_scored.trial = (judged ->> 'champion')::BIGINT
LEFT JOIN paid ON paid.campaign = g.campaign AND paid.session = proposed ->> 'session'
ORDER BY g.campaign, g.trial;

-- The best kept trial of each campaign so far.
CREATE VIEW current_champion AS
SELECT campaign, max(trial) AS trial FROM trials WHERE verdict IN ('baseline', 'kept') GROUP BY campaign;

-- The history of the best: one row each time the champion changed.
CREATE VIEW champions AS
SELECT campaign, trial, score, score_std, score_n,
  score - first_value(score) OVER (PARTITION BY campaign ORDER BY trial) AS delta_baseline, gain, p_value, hypothesis
FROM trials
WHERE verdict IN ('baseline', 'kept')
ORDER BY campaign, trial;

-- One row a trial: its ancestors up to the baseline.
CREATE VIEW lineage AS
WITH RECURSIVE ancestry AS (
  SELECT campaign, trial, parent, 0 AS depth, [trial] AS path FROM trials WHERE parent IS NULL AND trial = 0
  UNION ALL
  SELECT t.campaign, t.trial, t.parent, a.depth + 1, list_append(a.path, t.trial)
  FROM trials t JOIN ancestry a ON t.campaign = a.campaign AND t.parent = a.trial)
SELECT a.campaign, a.trial, a.parent, a.depth, a.path,
  list_contains(best.path, a.trial) AS on_champion_path
FROM ancestry a
LEFT JOIN (SELECT c.campaign, x.path FROM current_champion c JOIN ancestry x USING (campaign, trial)) best USING (campaign)
ORDER BY a.campaign, a.trial;

-- Failures by label and domain, with the first and last trial that showed them.
CREATE VIEW failures AS
SELECT campaign, label, claimed_domain, count(*) AS trials, min(trial) AS first_trial, max(trial) AS last_trial
FROM trials
WHERE label IS NOT NULL
GROUP BY ALL
ORDER BY campaign, trials DESC, label;

-- What each specialist achieved.
CREATE VIEW specialists AS
SELECT campaign, specialist, count(*) AS trials,
  count(*) FILTER (verdict = 'kept') AS kept, count(*) FILTER (verdict = 'discarded') AS discarded,
  count(*) FILTER (verdict IN ('failed', 'disqualified')) AS failed,
  coalesce(sum(gain) FILTER (verdict = 'kept'), 0) AS kept_gain,
  avg((sign(expected_delta) = sign(delta_parent))::INT) FILTER (expected_delta IS NOT NULL AND delta_parent IS NOT NULL)
    AS sign_hit_rate,
  sum(seconds) AS seconds, sum(usd) AS usd
FROM trials
WHERE specialist IS NOT NULL
GROUP BY ALL
ORDER BY campaign, specialist;

-- One row a campaign.
CREATE VIEW campaigns AS
WITH
  started AS (
    SELECT campaign, recorded_at AS started_at, body ->> 'task' AS task, body ->> 'metric' AS metric,
      body ->> 'unit' AS unit, body ->> 'direction' AS direction, body ->> 'proposer' AS proposer,
      body ->> 'isolation' AS isolation
    FROM events WHERE type = 'campaign_started'),
  state AS (
    SELECT campaign, max_by(type, seq) AS last_state, max_by(body ->> 'reason', seq) AS reason
    FROM events WHERE type IN ('campaign_started', 'campaign_resumed', 'campaign_stopped') GROUP BY campaign),
  counted AS (
    SELECT campaign, count(*) FILTER (trial > 0 AND verdict IS NOT NULL) AS trials,
      count(*) FILTER (verdict = 'kept') AS kept,
      count(*) FILTER (verdict IN ('failed', 'disqualified')) AS failed,
      count(*) FILTER (verdict IS NULL) AS unfinished,
      any_value(score) FILTER (trial = 0) AS baseline, any_value(score_std) FILTER (trial = 0) AS baseline_std,
      sum(seconds) AS seconds, sum(usd) AS usd
    FROM trials GROUP BY campaign)
SELECT s.*, CASE WHEN t.last_state = 'campaign_stopped' THEN 'stopped: ' || t.reason ELSE 'open' END AS state,
  n.trials, n.kept, n.failed, n.unfinished, n.baseline, n.baseline_std,
  c.trial AS champion, best.score AS champion_score, best.score_std AS champion_std, n.seconds, n.usd
FROM started s
LEFT JOIN state t USING (campaign)
LEFT JOIN counted n USING (campaign)
LEFT JOIN current_champion c USING (campaign)
LEFT JOIN trials best ON best.campaign = c.campaign AND best.trial = c.trial
ORDER BY s.started_at;
