-- What became of each program edit of the catalogue.
-- Trials of a specialist that does not draw from a catalogue stand in the row without an operator.
SELECT campaign, operator, count(*) AS trials, count(*) FILTER (verdict = 'kept') AS kept,
  count(*) FILTER (verdict = 'discarded') AS discarded,
  count(*) FILTER (verdict IN ('failed', 'disqualified')) AS failed, max(gain) AS best_gain
FROM trials
WHERE specialist IS NOT NULL
GROUP BY ALL
ORDER BY campaign, kept DESC, trials DESC, operator;
