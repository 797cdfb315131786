"""Certification: once, on held-out data and new seeds, signed, and checked by the audit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import labtrail
from agents.certification import Certifier
from agents.record import Record
from agents.supervisor import Bench, CampaignError, StopRules, Supervisor
from audit.verify import verify
from evaluators.signing import sign
from ledger.campaign import Campaign
from ledger.events import CertificationRecorded
from ledger.keys import SigningKey
from ledger.vocabulary import FailureLabel
from runners.protocol import Runner
from tests.test_confirmation import BETTER, Crashing, confirming  # noqa: F401
from tests.test_supervisor import Scripted, campaign_of, ignore


@pytest.fixture
def finished(confirming: Bench) -> Bench:  # noqa: F811
    assert campaign_of(confirming, BETTER).champion == 1
    return confirming


def certify(bench: Bench, runner: Runner | None = None) -> CertificationRecorded:
    record = Record(bench.log, "toy-1", ignore)
    return Certifier(bench.task, record, runner or bench.runner, bench.key, bench.work).certify()


def faults(bench: Bench) -> list[str]:
    return [str(found) for check in verify(bench.log.path).checks for found in check.findings if found.is_fault]


def test_the_champion_is_measured_on_other_data_with_new_seeds(finished: Bench) -> None:
    body = certify(finished)
    campaign = Campaign.replay("toy-1", finished.log.events(campaign="toy-1"))
    assert campaign.trials[1].certification == body
    assert (body.legal, body.label, len(body.values)) == (True, None, 3)
    used = {run.started.seed for trial in campaign.trials.values() for run in trial.runs}
    assert not used & set(body.seeds)
    searched = {score.metrics["val_mse"] for score in campaign.trials[1].scores}
    assert not searched & set(body.values)
    assert faults(finished) == []
    assert not finished.work.exists()


def test_a_champion_is_certified_once(finished: Bench) -> None:
    certify(finished)
    size = finished.log.size
    with pytest.raises(CampaignError, match="certified already"):
        certify(finished)
    assert finished.log.size == size


def test_a_champion_that_crashes_on_new_seeds_is_not_certified(finished: Bench) -> None:
    body = certify(finished, Crashing(finished.runner, 2))
    assert (body.legal, body.label, body.score, len(body.seeds)) == (False, FailureLabel.CRASH, None, 2)
    assert faults(finished) == []


def test_a_machine_that_fails_records_nothing(finished: Bench) -> None:
    class Gone(Crashing):
        def run(self, spec: object, into: Path) -> object:  # type: ignore[override]
            raise OSError("no space left")

    size = finished.log.size
    with pytest.raises((CampaignError, OSError)):
        certify(finished, Gone(finished.runner))
    assert finished.log.size == size
    assert certify(finished).legal


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda body: {"values": ("0.001", *body.values[1:])}, "score of its values"),
        (lambda body: {"legal": False}, "legal by its gates"),
        (lambda body: {"gates": {}}, "legal by its gates"),
    ],
)
def test_a_certification_that_contradicts_itself_is_found_though_signed(
    finished: Bench,
    evaluator_key: SigningKey,
    change: Callable[[CertificationRecorded], dict[str, object]],
    found: str,
) -> None:
    body = certify(finished)
    forged = body.model_copy(update={**change(body), "signature": ""})
    forged = forged.model_copy(update={"signature": sign(evaluator_key, "toy-1", 1, forged)})
    campaign = Supervisor(replace(finished, proposer=Scripted()), "toy-2", 1, ignore).run(StopRules(1))
    assert campaign.champion == 0
    record = Record(finished.log, "toy-2", ignore)
    own = forged.model_copy(update={"recipe": record.recipe(0).digest, "signature": ""})
    own = own.model_copy(update={"signature": sign(evaluator_key, "toy-2", 0, own)})
    record.append("evaluator:toy", own, trial=0)
    assert any(found in fault for fault in faults(finished)), faults(finished)


def test_a_seed_of_the_search_is_found(finished: Bench, evaluator_key: SigningKey) -> None:
    body = certify(finished)
    Supervisor(replace(finished, proposer=Scripted()), "toy-2", 1, ignore).run(StopRules(1))
    record = Record(finished.log, "toy-2", ignore)
    used = record.trial(0).runs[0].started.seed
    own = body.model_copy(update={"recipe": record.recipe(0).digest, "seeds": (used, *body.seeds[1:]), "signature": ""})
    own = own.model_copy(update={"signature": sign(evaluator_key, "toy-2", 0, own)})
    record.append("evaluator:toy", own, trial=0)
    assert any("used in the search already" in fault for fault in faults(finished))


def test_the_command_says_what_it_found(finished: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LABTRAIL_HOME", str(tmp_path / "home"))
    finished.log.close()
    arguments = ["certify", "--ledger", str(finished.log.path), "--task", str(finished.task.folder)]
    shown = CliRunner().invoke(labtrail.cli, [*arguments, "--key", str(finished.key)])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("CERTIFIED: trial 1: val_mse")
    again = CliRunner().invoke(labtrail.cli, [*arguments, "--key", str(finished.key)])
    assert isinstance(again.exception, CampaignError)
    assert finished.log.path.with_name("ledger.db.checkpoint").exists()
