"""A campaign as runs of an MLflow tracking store: an experiment a campaign, a run a trial."""

import importlib
import importlib.util
import math
import os
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ledger.log import EventLog, LedgerError
from ledger.views import Views

TEXT_CHARS = 500
"""Of a parameter or tag: what every MLflow store takes."""
PARAMETERS = ("specialist", "claimed_domain", "operator", "parent", "expected_delta", "recipe")
TAGS = ("verdict", "label", "trust", "hypothesis", "reason")
METRICS = ("score", "score_std", "score_n", "gain", "p_value", "delta_parent", "seconds", "usd")


def export_mlflow(log: EventLog, views: Views, campaign: str, target: str) -> str:
    """Write the trials of a campaign into the store at `target`: a folder, or a tracking URI.

    A run that is there whole is left alone, one that a crash left half-written is replaced, so that the same command
    goes on where it stopped and adds what is new. Values per seed are the steps of a metric. Raises LedgerError where
    MLflow is not installed or its store refuses.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise LedgerError("MLflow is not installed; run `pip install 'labtrail[mlflow]'`")
    # MLflow reports its use to its makers unless told otherwise.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = importlib.import_module("mlflow")
    uri = target if "://" in target else Path(target).absolute().as_uri()
    try:
        return _Store(mlflow, uri, log.meta()["origin"], campaign).write(views, target)
    except mlflow.exceptions.MlflowException as error:
        raise LedgerError(f"{target}: MLflow refuses: {error}") from error


class _Store:
    """The experiment of one campaign."""

    def __init__(self, mlflow: Any, uri: str, origin: str, campaign: str) -> None:
        self.entities, self.client = mlflow.entities, mlflow.MlflowClient(tracking_uri=uri)
        self.origin, self.campaign = origin, campaign
        name = f"labtrail/{origin}/{campaign}"
        found = self.client.get_experiment_by_name(name)
        self.experiment = found.experiment_id if found else self.client.create_experiment(name)

    def write(self, views: Views, target: str) -> str:
        """Add what is missing; returns what was done in one line."""
        there = self._finished()
        ids = dict(there)
        values = self._values(views)
        trials = views.query("FROM trials WHERE campaign = ? ORDER BY trial", [self.campaign]).records()
        for row in trials:
            # A trial without verdict may still get one.
            if row["trial"] not in there and row["verdict"] is not None:
                ids[row["trial"]] = self._add(row, ids.get(row["parent"]), values[row["trial"]])
        return (
            f"{target}: {len(ids) - len(there)} runs added, {len(there)} were there, {len(trials) - len(ids)} are open"
        )

    def _finished(self) -> dict[int, str]:
        """Trial -> run, of runs that are whole; others are deleted."""
        whole: dict[int, str] = {}
        token = None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token)
            for run in page:
                if run.info.status == "FINISHED" and "labtrail.trial" in run.data.tags:
                    whole[int(run.data.tags["labtrail.trial"])] = run.info.run_id
                else:
                    self.client.delete_run(run.info.run_id)
            if not (token := page.token):
                return whole

    def _values(self, views: Views) -> dict[int, list[tuple[str, float, int]]]:
        """Trial -> (metric, value, step) of each seed."""
        found: dict[int, list[tuple[str, float, int]]] = defaultdict(list)
        query = "SELECT trial, metric, value, run FROM scores WHERE campaign = ? ORDER BY trial, run, metric"
        for trial, metric, value, run in views.query(query, [self.campaign]).rows:
            found[trial].append((f"seed/{metric}", value, run))
        return found

    def _add(self, row: dict[str, Any], parent: str | None, values: list[tuple[str, float, int]]) -> str:
        at = row["proposed_at"]
        start_ms = 0 if at is None else int(at.replace(tzinfo=UTC).timestamp() * 1000)
        tags = {"labtrail.trial": str(row["trial"]), "labtrail.ledger": self.origin, "labtrail.campaign": self.campaign}
        tags |= {f"labtrail.{name}": _text(row[name]) for name in TAGS if row[name] is not None}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        name = f"trial {row['trial']} ({row['label'] or row['verdict']})"
        run = self.client.create_run(self.experiment, start_time=start_ms, tags=tags, run_name=name)
        entities = self.entities
        metrics = [(key, row[key], 0) for key in METRICS if row[key] is not None]
        self.client.log_batch(
            run.info.run_id,
            metrics=[
                entities.Metric(key, float(value), start_ms, step)
                for key, value, step in [*metrics, *values]
                if math.isfinite(value)
            ],
            params=[entities.Param(key, _text(row[key])) for key in PARAMETERS if row[key] is not None],
        )
        end_ms = start_ms + int((row["seconds"] or 0) * 1000)
        self.client.set_terminated(run.info.run_id, status="FINISHED", end_time=end_ms)
        return str(run.info.run_id)


def _text(value: object) -> str:
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return text if len(text) <= TEXT_CHARS else text[: TEXT_CHARS - 1] + "…"
