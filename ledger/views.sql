-- Lineage views over the typed tables of ledger/facts.py, as of the last event taken. A view stands after those it reads.
-- Sums are kept in whole microseconds and nano-dollars there, and become seconds and dollars here.

CREATE VIEW runs AS
SELECT s.campaign, s.trial, s.run, s.seed, s.attempt, s.runner, s.isolation, f.exit_code, f.signal, f.killed_for,
  f.train_wall_s, f.train_cpu_s, f.predict_wall_s, f.predict_cpu_s, f.max_rss_bytes, f.accelerator_peak_bytes,
  f.artifact, f.artifact_bytes, f.log, f.load_1m, l.label, s.recorded_at AS started_at, f.recorded_at AS finished_at
FROM (FROM facts.runs WHERE type = 'run_started') s
LEFT JOIN (FROM facts.runs WHERE type = 'run_finished') f
  ON f.campaign = s.campaign AND f.trial = s.trial AND f.run = s.run
LEFT JOIN (FROM facts.runs WHERE type = 'failure_labelled' AND run IS NOT NULL) l
  ON l.campaign = s.campaign AND l.trial = s.trial AND l.run = s.run
ORDER BY s.campaign, s.trial, s.run;

CREATE VIEW scores AS
SELECT campaign, trial, run, seed, metric, value, trust FROM facts.scores;

CREATE VIEW sessions AS
SELECT campaign, session, specialist, domain, proposer, model, trial, outcome, detail, as_of, model_calls, input_tokens,
  output_tokens, nano_usd / 1e9 AS usd, latency_us / 1e6 AS latency_s, started_at, ended_at,
  date_diff('us', started_at, ended_at) / 1e6 AS seconds
FROM facts.sessions
ORDER BY campaign, started_at, session;

CREATE VIEW trials AS
SELECT t.campaign, t.trial, t.specialist, t.claimed_domain, t.observed.observed_domain, t.observed.kind,
  t.observed.strict_arch, t.observed.undeclared, t.parent, t.operator, t.hypothesis, t.rationale, t.expected_delta,
  t.verdict, t.label, t.reason, t.score, t.score_std, t.score_n,
  CASE WHEN t.trust_least = t.trust_most THEN t.trust_least WHEN t.trust_least IS NOT NULL THEN 'mixed' END AS trust,
  t.score - p.score AS delta_parent,
  sqrt(t.score_std ** 2 / t.score_n + p.score_std ** 2 / p.score_n) AS delta_parent_se,
  t.score - c.score AS delta_champion,
  sqrt(t.score_std ** 2 / t.score_n + c.score_std ** 2 / c.score_n) AS delta_champion_se,
  t.champion, t.gain, t.p_value, t.recipe, t.program, t.diff, t.session, t.proposed_at, t.decided_at,
  date_diff('us', t.proposed_at, t.decided_at) / 1e6 AS elapsed_s, t.runs,
  (t.train_us + t.predict_us + t.told_us) / 1e6 AS seconds, t.train_us / 1e6 AS train_s, t.predict_us / 1e6 AS predict_s,
  t.cpu_us / 1e6 AS cpu_s, t.accelerator_us / 1e6 AS accelerator_s, coalesce(s.input_tokens, 0) AS input_tokens,
  coalesce(s.output_tokens, 0) AS output_tokens, coalesce(s.nano_usd, 0) / 1e9 AS usd
FROM facts.trials t
LEFT JOIN facts.trials p ON p.campaign = t.campaign AND p.trial = t.parent
LEFT JOIN facts.trials c ON c.campaign = t.campaign AND c.trial = t.champion
LEFT JOIN facts.sessions s ON s.campaign = t.campaign AND s.session = t.session
ORDER BY t.campaign, t.trial;

CREATE VIEW current_champion AS
SELECT campaign, max(trial) AS trial FROM facts.trials WHERE verdict IN ('baseline', 'kept') GROUP BY campaign;

CREATE VIEW champions AS
SELECT campaign, trial, row_number() OVER since_first AS place, specialist, claimed_domain, score, score_std, score_n,
  score - first_value(score) OVER since_first AS delta_baseline, gain, p_value, hypothesis, decided_at,
  lead(decided_at) OVER since_first AS replaced_at
FROM facts.trials
WHERE verdict IN ('baseline', 'kept')
WINDOW since_first AS (PARTITION BY campaign ORDER BY trial)
ORDER BY campaign, trial;

CREATE VIEW lineage AS
SELECT t.campaign, t.trial, t.parent, coalesce(p.depth + 1, 0) AS depth,
  list_append(coalesce(p.path, []), t.trial) AS path, best.trial IS NOT NULL AS on_champion_path
FROM facts.trials t
LEFT JOIN facts.paths p ON p.campaign = t.campaign AND p.trial = t.parent
LEFT JOIN (
  SELECT c.campaign, unnest(list_append(coalesce(x.path, []), c.trial)) AS trial
  FROM current_champion c
  JOIN facts.trials own ON own.campaign = c.campaign AND own.trial = c.trial
  LEFT JOIN facts.paths x ON x.campaign = own.campaign AND x.trial = own.parent
) best ON best.campaign = t.campaign AND best.trial = t.trial
WHERE p.trial IS NOT NULL OR t.trial = 0
ORDER BY t.campaign, t.trial;

CREATE VIEW failures AS
SELECT campaign, label, claimed_domain, decided_at::DATE AS day, count(*) AS trials, min(trial) AS first_trial,
  max(trial) AS last_trial, min(decided_at) AS first_at, max(decided_at) AS last_at,
  sum(train_us + predict_us + told_us)::BIGINT / 1e6 AS seconds
FROM facts.trials
WHERE label IS NOT NULL
GROUP BY ALL
ORDER BY campaign, day, trials DESC, label, claimed_domain;

CREATE VIEW specialists AS
WITH
  told AS (
    SELECT campaign, specialist, count(*) AS sessions, count(*) FILTER (outcome = 'declined') AS declined,
      sum(input_tokens)::BIGINT AS input_tokens, sum(output_tokens)::BIGINT AS output_tokens,
      sum(nano_usd)::BIGINT / 1e9 AS usd
    FROM facts.sessions GROUP BY campaign, specialist),
  tried AS (
    SELECT t.campaign, t.specialist, count(*) AS trials, count(t.verdict) AS judged,
      count(*) FILTER (t.verdict = 'kept') AS kept, count(*) FILTER (t.verdict = 'discarded') AS discarded,
      count(*) FILTER (t.verdict IN ('failed', 'disqualified')) AS failed,
      coalesce(sum(t.gain ORDER BY t.trial) FILTER (t.verdict = 'kept'), 0) AS kept_gain,
      count(*) FILTER (t.expected_delta IS NOT NULL AND t.score - p.score IS NOT NULL) AS predictions,
      avg((sign(t.expected_delta) = sign(t.score - p.score))::INT)
        FILTER (t.expected_delta IS NOT NULL AND t.score - p.score IS NOT NULL) AS sign_hit_rate,
      sum(t.train_us + t.predict_us + t.told_us)::BIGINT / 1e6 AS seconds, sum(t.cpu_us)::BIGINT / 1e6 AS cpu_s
    FROM facts.trials t
    LEFT JOIN facts.trials p ON p.campaign = t.campaign AND p.trial = t.parent
    WHERE t.specialist IS NOT NULL GROUP BY t.campaign, t.specialist)
SELECT campaign, specialist, coalesce(sessions, 0) AS sessions, coalesce(declined, 0) AS declined,
  coalesce(trials, 0) AS trials, coalesce(kept, 0) AS kept, coalesce(discarded, 0) AS discarded,
  coalesce(failed, 0) AS failed, kept / nullif(judged, 0) AS yield, coalesce(kept_gain, 0) AS kept_gain,
  coalesce(predictions, 0) AS predictions, sign_hit_rate, coalesce(seconds, 0) AS seconds, coalesce(cpu_s, 0) AS cpu_s,
  coalesce(input_tokens, 0) AS input_tokens, coalesce(output_tokens, 0) AS output_tokens, coalesce(usd, 0) AS usd,
  usd / nullif(kept, 0) AS usd_per_kept, seconds / nullif(kept, 0) AS seconds_per_kept
FROM tried FULL JOIN told USING (campaign, specialist)
WHERE specialist IS NOT NULL
ORDER BY campaign, specialist;

CREATE VIEW costs AS
WITH
  spoken AS (
    SELECT campaign, count(*) AS sessions, sum(model_calls)::BIGINT AS model_calls,
      sum(input_tokens)::BIGINT AS input_tokens, sum(output_tokens)::BIGINT AS output_tokens,
      sum(nano_usd)::BIGINT / 1e9 AS usd, sum(latency_us)::BIGINT / 1e6 AS latency_s
    FROM facts.sessions GROUP BY campaign),
  executed AS (
    SELECT campaign, sum(runs)::BIGINT AS runs, sum(train_us + predict_us + told_us)::BIGINT / 1e6 AS seconds,
      sum(cpu_us)::BIGINT / 1e6 AS cpu_s, sum(accelerator_us)::BIGINT / 1e6 AS accelerator_s,
      count(*) FILTER (verdict = 'kept' AND trust_least = 'measured' AND trust_most = 'measured') AS verified_gains,
      coalesce(sum(gain ORDER BY trial)
        FILTER (verdict = 'kept' AND trust_least = 'measured' AND trust_most = 'measured'), 0) AS verified_gain
    FROM facts.trials GROUP BY campaign)
SELECT campaign, coalesce(sessions, 0) AS sessions, coalesce(model_calls, 0) AS model_calls,
  coalesce(input_tokens, 0) AS input_tokens, coalesce(output_tokens, 0) AS output_tokens, coalesce(usd, 0) AS usd,
  coalesce(latency_s, 0) AS latency_s, coalesce(runs, 0) AS runs, coalesce(seconds, 0) AS seconds,
  coalesce(cpu_s, 0) AS cpu_s, coalesce(accelerator_s, 0) AS accelerator_s,
  coalesce(verified_gains, 0) AS verified_gains, coalesce(verified_gain, 0) AS verified_gain,
  usd / nullif(verified_gains, 0) AS usd_per_verified_gain, cpu_s / nullif(verified_gains, 0) AS cpu_s_per_verified_gain,
  accelerator_s / nullif(verified_gains, 0) AS accelerator_s_per_verified_gain
FROM executed FULL JOIN spoken USING (campaign)
ORDER BY campaign;

CREATE VIEW evidence AS
SELECT campaign, trial, hypothesis IS NOT NULL AS has_hypothesis, diff IS NOT NULL AS has_diff,
  refusals > 0 AS has_refusal, runs, runs_finished, runs_failed, artifacts, scores,
  CASE WHEN trust_least = trust_most THEN trust_least WHEN trust_least IS NOT NULL THEN 'mixed' END AS trust,
  CASE WHEN trust_least = 'measured' AND trust_most = 'measured' THEN scores ELSE 0 END AS measured_scores,
  verdict IS NOT NULL AS has_verdict, abandoned_at IS NOT NULL AS is_abandoned, replicates, certifications, corrections,
  records
FROM facts.trials
ORDER BY campaign, trial;

CREATE VIEW epochs AS
WITH
  starts AS (
    SELECT *, epoch IS DISTINCT FROM lag(epoch) OVER (PARTITION BY campaign ORDER BY seq) AS is_new
    FROM facts.campaigns WHERE type IN ('campaign_started', 'campaign_resumed')),
  numbered AS (SELECT *, sum(is_new::INT) OVER (PARTITION BY campaign ORDER BY seq)::BIGINT AS number FROM starts)
SELECT campaign, number AS epoch, min(seq) AS first_seq, min(recorded_at) AS started_at,
  lead(min(recorded_at)) OVER (PARTITION BY campaign ORDER BY number) AS ended_at, count(*) AS supervisors,
  any_value(epoch.task) AS task, any_value(epoch.evaluator) AS evaluator, any_value(epoch."data") AS data,
  any_value(epoch.environment) AS environment
FROM numbered GROUP BY campaign, number
ORDER BY campaign, number;

CREATE VIEW campaigns AS
WITH
  started AS (
    SELECT campaign, recorded_at AS started_at, task, metric, unit, direction, proposer, isolation
    FROM facts.campaigns WHERE type IN ('campaign_started', 'record_imported')),
  state AS (
    SELECT campaign, max_by(type, seq) AS last_state, max_by(reason, seq) AS reason FROM facts.campaigns GROUP BY campaign),
  counted AS (
    SELECT campaign, count(*) FILTER (trial > 0 AND verdict IS NOT NULL) AS trials,
      count(*) FILTER (verdict = 'kept') AS kept,
      count(*) FILTER (verdict IN ('failed', 'disqualified')) AS failed,
      count(*) FILTER (verdict IS NULL) AS unfinished,
      any_value(score) FILTER (trial = 0) AS baseline, any_value(score_std) FILTER (trial = 0) AS baseline_std,
      max(trial) FILTER (verdict IN ('baseline', 'kept')) AS champion,
      max_by(score, trial) FILTER (verdict IN ('baseline', 'kept')) AS champion_score,
      max_by(score_std, trial) FILTER (verdict IN ('baseline', 'kept')) AS champion_std,
      sum(train_us + predict_us + told_us)::BIGINT / 1e6 AS seconds
    FROM facts.trials GROUP BY campaign),
  paid AS (SELECT campaign, sum(nano_usd)::BIGINT / 1e9 AS usd FROM facts.sessions GROUP BY campaign)
SELECT s.*, CASE t.last_state WHEN 'campaign_stopped' THEN 'stopped: ' || t.reason WHEN 'record_imported' THEN 'imported' ELSE 'open' END
    AS state,
  n.trials, n.kept, n.failed, n.unfinished, n.baseline, n.baseline_std, n.champion, n.champion_score, n.champion_std,
  n.seconds, coalesce(p.usd, 0) AS usd
FROM started s
LEFT JOIN state t USING (campaign)
LEFT JOIN counted n USING (campaign)
LEFT JOIN paid p USING (campaign)
ORDER BY s.started_at;
