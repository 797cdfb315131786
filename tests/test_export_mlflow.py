"""MLflow runs through the real client and a store in a folder; skipped where MLflow is not installed."""

import os
from pathlib import Path
from typing import Any

import pytest

from ledger.export.runs import export_mlflow
from ledger.log import EventLog, LedgerError
from ledger.views import Views
from tests.campaigns import write_campaign

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture
def filled(log: EventLog) -> EventLog:
    write_campaign(log, name="toy-1", trials=5, seed=0)
    return log


def store(folder: Path) -> tuple[Any, str]:
    """A client, and the one experiment that an export made."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=folder.absolute().as_uri())
    (experiment,) = (found for found in client.search_experiments() if found.name.startswith("labtrail/"))
    return client, experiment.experiment_id


def test_each_trial_is_a_run_below_its_parents(filled: EventLog, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    views = Views.of(filled)
    assert "6 runs added" in export_mlflow(filled, views, "toy-1", str(tmp_path / "ml"))
    client, experiment = store(tmp_path / "ml")
    runs = {int(run.data.tags["labtrail.trial"]): run for run in client.search_runs([experiment])}
    trials = views.query("FROM trials").records()
    assert runs.keys() == {row["trial"] for row in trials}
    for row in trials:
        run = runs[row["trial"]]
        assert run.info.status == "FINISHED"
        assert run.data.tags["labtrail.verdict"] == row["verdict"]
        assert run.data.metrics.get("score") == row["score"]
        if row["parent"] is not None:
            assert run.data.tags["mlflow.parentRunId"] == runs[row["parent"]].info.run_id
        seeds = client.get_metric_history(run.info.run_id, "seed/val_loss") if row["score"] is not None else []
        assert len(seeds) == (row["score_n"] or 0)


def test_a_second_export_adds_what_is_new_and_mends_what_is_half_written(filled: EventLog, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    half = Views.of(filled, filled.size // 2)
    export_mlflow(filled, half, "toy-1", str(tmp_path / "ml"))
    client, experiment = store(tmp_path / "ml")
    torn = client.search_runs([experiment])[0]
    client.set_terminated(torn.info.run_id, status="KILLED")
    export_mlflow(filled, Views.of(filled), "toy-1", str(tmp_path / "ml"))
    runs = client.search_runs([experiment])
    assert sorted(int(run.data.tags["labtrail.trial"]) for run in runs) == list(range(6))
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert "0 runs added" in export_mlflow(filled, Views.of(filled), "toy-1", str(tmp_path / "ml"))


def test_without_mlflow_it_says_what_to_install(
    filled: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LedgerError, match=r"pip install 'labtrail\[mlflow\]'"):
        export_mlflow(filled, Views.of(filled), "toy-1", str(tmp_path / "ml"))
    assert not (tmp_path / "ml").exists()
