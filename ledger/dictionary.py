"""What each view and each of its columns means: DuckDB comments, and docs/views.md."""

import duckdb

DOCS: dict[str, tuple[str, dict[str, str]]] = {
    "campaigns": (
        "One row a campaign.",
        {
            "campaign": "Name of the campaign.",
            "started_at": "When it began, UTC.",
            "task": "Name of the task.",
            "metric": "What is optimised.",
            "unit": "Unit of the metric.",
            "direction": "minimize or maximize.",
            "proposer": "Who proposes: the program's own search, or an agent.",
            "isolation": "How recipes were confined when the campaign began.",
            "state": "`open`, or `stopped: ` and the stop rule.",
            "trials": "Trials with a verdict, the baseline not counted.",
            "kept": "Trials that became champion.",
            "failed": "Trials without a score that counts: failed or disqualified.",
            "unfinished": "Trials without a verdict: open or abandoned.",
            "baseline": "Mean score of the starting recipe, in the metric's unit.",
            "baseline_std": "Standard deviation of the baseline's score over seeds.",
            "champion": "The best trial so far; 0 is the starting recipe.",
            "champion_score": "Mean score of the champion.",
            "champion_std": "Standard deviation of the champion's score over seeds.",
            "seconds": "Wall-clock seconds of all runs, training and prediction.",
            "usd": "Dollars paid for language models.",
        },
    ),
    "trials": (
        "One row a trial; trial 0 is the baseline. A trial without a verdict is open or was abandoned.",
        {
            "campaign": "Name of the campaign.",
            "trial": "Number of the trial within its campaign.",
            "specialist": "Who proposed it; none for the baseline.",
            "claimed_domain": "The surface that the specialist says it changed.",
            "observed_domain": "The surface that the code shows as changed; none where nobody looked.",
            "kind": "How deep the edit goes: a value, a size, or what is computed; none where nobody looked.",
            "strict_arch": "Whether the model's forward computation changed structurally; none where nobody looked.",
            "undeclared": "Changes that the hypothesis does not mention; none where nobody looked.",
            "parent": "The trial that it was edited from.",
            "operator": "The program edit, where the proposer draws from a catalogue.",
            "hypothesis": "What the specialist expects, in its own words.",
            "rationale": "Why it expects that.",
            "expected_delta": "Expected change of the score against the parent, in the metric's unit.",
            "verdict": "baseline, kept, discarded, disqualified or failed.",
            "label": "Why there is no score that counts, from the closed set of failure labels.",
            "reason": "The verdict in a sentence.",
            "score": "Mean over seeds, in the metric's unit; none where the trial failed.",
            "score_std": "Standard deviation over seeds (n - 1).",
            "score_n": "How many seeds.",
            "trust": "Who stands behind the scores: measured, witnessed, self_reported, or mixed.",
            "delta_parent": "Score minus the parent's score.",
            "delta_parent_se": "Standard error of delta_parent (Welch: unpooled, independent seeds).",
            "delta_champion": "Score minus the score of the champion it was judged against.",
            "delta_champion_se": "Standard error of delta_champion (Welch).",
            "champion": "The champion it was judged against.",
            "gain": "Improvement over that champion as the verdict has it; positive is better.",
            "p_value": "One-sided: how likely so large a gain is if the trial is no better.",
            "recipe": "Digest of its recipe.",
            "program": "Digest of the program up to comments and formatting.",
            "diff": "Digest of the diff, a blob of the ledger.",
            "session": "The session that proposed it.",
            "proposed_at": "When the hypothesis was recorded, UTC.",
            "decided_at": "When the verdict was recorded, UTC.",
            "elapsed_s": "Seconds from hypothesis to verdict.",
            "runs": "Executions begun, retries counted.",
            "seconds": "Wall-clock seconds of all its runs, training and prediction.",
            "train_s": "Wall-clock seconds of training.",
            "predict_s": "Wall-clock seconds of prediction.",
            "cpu_s": "CPU seconds of all its runs.",
            "accelerator_s": "Wall-clock seconds of training in runs that used an accelerator.",
            "input_tokens": "Tokens sent to language models in its session.",
            "output_tokens": "Tokens received in its session.",
            "usd": "Dollars paid for language models in its session.",
        },
    ),
    "runs": (
        "One row an execution: seed, clocks and memory as the runner saw them, and how it ended.",
        {
            "campaign": "Name of the campaign.",
            "trial": "Number of the trial.",
            "run": "Number of the run within its trial.",
            "seed": "The random seed.",
            "attempt": "0, or how often this seed was lost to the machine before.",
            "runner": "What executed it.",
            "isolation": "How it was confined.",
            "exit_code": "Of the training process; none where a signal ended it or nothing was recorded.",
            "signal": "The signal that ended training.",
            "killed_for": "The budget that training broke.",
            "train_wall_s": "Wall-clock seconds of training.",
            "train_cpu_s": "CPU seconds of training.",
            "predict_wall_s": "Wall-clock seconds of all predictions.",
            "predict_cpu_s": "CPU seconds of all predictions.",
            "max_rss_bytes": "Peak resident memory of training.",
            "accelerator_peak_bytes": "Peak device memory; none where no accelerator was used.",
            "artifact": "Digest of what training left; none where it left nothing.",
            "artifact_bytes": "Size of that.",
            "log": "Digest of the run's log, a blob of the ledger.",
            "load_1m": "Load average of the machine when the run began.",
            "label": "Failure label of this run.",
            "started_at": "When the run began, UTC.",
            "finished_at": "When its facts were recorded, UTC; none where it was lost.",
        },
    ),
    "scores": (
        "One row a metric of a scored run: the values per seed.",
        {
            "campaign": "Name of the campaign.",
            "trial": "Number of the trial.",
            "run": "Number of the run within its trial.",
            "seed": "The random seed.",
            "metric": "Name of the metric.",
            "value": "Its value.",
            "trust": "Who stands behind it.",
        },
    ),
    "sessions": (
        "One row a conversation of a specialist.",
        {
            "campaign": "Name of the campaign.",
            "session": "Id of the session.",
            "specialist": "Whose it is.",
            "domain": "The surface that the specialist answers for.",
            "proposer": "What proposes on the specialist's behalf.",
            "model": "The language model, if any.",
            "trial": "The trial that came of it.",
            "outcome": "submitted, declined or error; none while it is open.",
            "detail": "The outcome in words.",
            "as_of": "The event up to which its lineage text was rendered.",
            "model_calls": "Requests to language models.",
            "input_tokens": "Tokens sent.",
            "output_tokens": "Tokens received.",
            "usd": "Dollars paid.",
            "latency_s": "Seconds spent waiting for language models.",
            "started_at": "When it began, UTC.",
            "ended_at": "When it ended, UTC.",
            "seconds": "Seconds from begin to end.",
        },
    ),
    "lineage": (
        "One row a trial that descends from the baseline: its ancestors.",
        {
            "campaign": "Name of the campaign.",
            "trial": "Number of the trial.",
            "parent": "The trial that it was edited from.",
            "depth": "Edits between the baseline and this trial.",
            "path": "Trials from the baseline to this one.",
            "on_champion_path": "Whether it is the champion or one of the champion's ancestors.",
        },
    ),
    "current_champion": (
        "The best trial of each campaign so far.",
        {"campaign": "Name of the campaign.", "trial": "The champion; 0 is the starting recipe."},
    ),
    "champions": (
        "The history of the best: one row each time the champion changed.",
        {
            "campaign": "Name of the campaign.",
            "trial": "The trial that became champion.",
            "place": "1 for the baseline, 2 for the first that beat it, and so on.",
            "specialist": "Who proposed it.",
            "claimed_domain": "The surface that the specialist says it changed.",
            "score": "Mean over seeds, in the metric's unit.",
            "score_std": "Standard deviation over seeds.",
            "score_n": "How many seeds.",
            "delta_baseline": "Score minus the baseline's score.",
            "gain": "Improvement over the champion before; positive is better.",
            "p_value": "One-sided: how likely so large a gain is if it is no better.",
            "hypothesis": "What the specialist expected.",
            "decided_at": "When it became champion, UTC.",
            "replaced_at": "When the next one replaced it, UTC; none for the champion of today.",
        },
    ),
    "failures": (
        "Failures by label, claimed domain and day.",
        {
            "campaign": "Name of the campaign.",
            "label": "The failure label.",
            "claimed_domain": "The surface that the specialist says it changed.",
            "day": "Day of the verdict, UTC.",
            "trials": "How many trials.",
            "first_trial": "The first of them.",
            "last_trial": "The last of them.",
            "first_at": "Verdict of the earliest, UTC.",
            "last_at": "Verdict of the latest, UTC.",
            "seconds": "Wall-clock seconds that their runs took.",
        },
    ),
    "specialists": (
        "What each specialist achieved, and at what cost.",
        {
            "campaign": "Name of the campaign.",
            "specialist": "Name of the specialist.",
            "sessions": "Conversations begun.",
            "declined": "Conversations that ended without a proposal.",
            "trials": "Trials proposed.",
            "kept": "Trials that became champion.",
            "discarded": "Trials measured and not better.",
            "failed": "Trials failed or disqualified.",
            "yield": "Kept trials per judged trial.",
            "kept_gain": "Sum of the gains of kept trials, in the metric's unit.",
            "predictions": "Trials with an expected change and a measured one.",
            "sign_hit_rate": "Share of predictions with the right sign of the change against the parent.",
            "seconds": "Wall-clock seconds of all runs.",
            "cpu_s": "CPU seconds of all runs.",
            "input_tokens": "Tokens sent to language models.",
            "output_tokens": "Tokens received.",
            "usd": "Dollars paid for language models.",
            "usd_per_kept": "Dollars per kept trial; none where none was kept.",
            "seconds_per_kept": "Seconds of runs per kept trial; none where none was kept.",
        },
    ),
    "costs": (
        "What each campaign cost, and per verified gain: a kept trial whose scores are all measured.",
        {
            "campaign": "Name of the campaign.",
            "sessions": "Conversations of specialists.",
            "model_calls": "Requests to language models.",
            "input_tokens": "Tokens sent.",
            "output_tokens": "Tokens received.",
            "usd": "Dollars paid for language models.",
            "latency_s": "Seconds spent waiting for language models.",
            "runs": "Executions begun.",
            "seconds": "Wall-clock seconds of all runs.",
            "cpu_s": "CPU seconds of all runs.",
            "accelerator_s": "Wall-clock seconds of training in runs that used an accelerator.",
            "verified_gains": "How many verified gains.",
            "verified_gain": "Their sum, in the metric's unit.",
            "usd_per_verified_gain": "Dollars per verified gain; none without one.",
            "cpu_s_per_verified_gain": "CPU seconds per verified gain.",
            "accelerator_s_per_verified_gain": "Accelerator seconds per verified gain.",
        },
    ),
    "evidence": (
        "One row a trial: which kinds of evidence the ledger holds for it.",
        {
            "campaign": "Name of the campaign.",
            "trial": "Number of the trial.",
            "has_hypothesis": "Whether a hypothesis stands before the result.",
            "has_diff": "Whether the edit itself is there.",
            "has_refusal": "Whether a gate refused it before a run.",
            "runs": "Executions begun.",
            "runs_finished": "Executions whose facts and log are there.",
            "runs_failed": "Executions with a failure label.",
            "artifacts": "Executions that left an artifact whose digest is there.",
            "scores": "Signed scores.",
            "trust": "Who stands behind the scores: measured, witnessed, self_reported, or mixed.",
            "measured_scores": "Scores that the evaluator measured itself, where all of them are.",
            "has_verdict": "Whether it was judged.",
            "is_abandoned": "Whether its supervisor was lost.",
            "replicates": "Requests to measure it again.",
            "certifications": "Measurements on data and seeds that the search never used.",
            "corrections": "Statements about it or its events.",
            "records": "Imported records of another harness.",
        },
    ),
    "epochs": (
        "Measurement epochs: spans in which task, evaluator, data and environment stay the same.",
        {
            "campaign": "Name of the campaign.",
            "epoch": "1 for the first of the campaign.",
            "first_seq": "The event that opened it.",
            "started_at": "When it was opened, UTC.",
            "ended_at": "When the next one was opened, UTC; none for the last.",
            "supervisors": "Supervisor processes that worked in it.",
            "task": "Digest of the task.",
            "evaluator": "Digest of the evaluator.",
            "data": "Digest of the data.",
            "environment": "Digest of the environment.",
        },
    ),
    "events": (
        "One row an event: the envelope. The log itself holds what it says.",
        {
            "seq": "Place in the log, without gaps.",
            "campaign": "Name of the campaign, if it belongs to one.",
            "trial": "Number of the trial, if it belongs to one.",
            "type": "Type of the event; see events.md.",
            "version": "Version of the type, as stored.",
            "actor": "Who: `role:name`.",
            "recorded_at": "When it was recorded, UTC.",
        },
    ),
}


def comment(connection: duckdb.DuckDBPyConnection) -> None:
    """Give every view and column its comment, for `duckdb_views()` and `duckdb_columns()`."""
    statements = []
    for view, (meaning, columns) in DOCS.items():
        statements.append(f"COMMENT ON {'TABLE' if view == 'events' else 'VIEW'} {view} IS {_quoted(meaning)}")
        statements += [f'COMMENT ON COLUMN {view}."{name}" IS {_quoted(said)}' for name, said in columns.items()]
    connection.execute(";\n".join(statements))


def reference(connection: duckdb.DuckDBPyConnection) -> str:
    """Every view with its columns and types as Markdown. Raises ValueError where DOCS misses one or has too many."""
    lines = [
        "# Views",
        "",
        "Generated from `ledger/views.sql` and `ledger/dictionary.py`; `make docs` rewrites it.",
        "",
    ]
    lines += ["`labtrail sql` asks them. Times are UTC; a failure has no score."]
    found = connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE schema_name = 'main' AND NOT internal "
        "ORDER BY table_name, column_index"
    ).fetchall()
    types = {(view, column): kind for view, column, kind in found}
    said = {(view, column) for view, (_, columns) in DOCS.items() for column in columns}
    if types.keys() != said:
        raise ValueError(f"columns that are not documented, or documented and gone: {sorted(types.keys() ^ said)}")
    for view, (meaning, columns) in DOCS.items():
        lines += ["", f"## {view}", "", meaning, "", "| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{name}` | {types[view, name]} | {told} |" for name, told in columns.items()]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
