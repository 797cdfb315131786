"""The supervisor in one process: each kind of outcome with its label, and failures of the machine."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents.proposal import Brief, Proposal
from agents.supervisor import Bench, CampaignError, StopRules, Supervisor
from audit.verify import verify
from evaluators.task import Task
from ledger.campaign import Campaign, Phase
from ledger.events import CampaignStopped, Event, FailureLabelled
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.recipes import Recipe
from ledger.vocabulary import FailureLabel, Verdict
from runners.local import LocalRunner
from runners.protocol import InfrastructureError, RunResult, RunSpec
from tests.conftest import copy_toy

Edit = Callable[[str], str]


class Scripted:
    """Submits the given edits of its specialist's first file, in order, then declines."""

    name = "scripted"

    def __init__(self, *edits: Edit) -> None:
        self._edits = list(edits)

    def propose(self, brief: Brief) -> Proposal | None:
        if not self._edits:
            return None
        parent = brief.lineage.champion
        recipe = brief.recipe_of(parent)
        edit = self._edits.pop(0)
        files = {name: edit(text) if name == "train.py" else text for name, text in recipe.files.items()}
        return Proposal(parent, Recipe(files), "an edit", "scripted", None, None)


@pytest.fixture(scope="module")
def runner() -> Iterator[LocalRunner]:
    """The tier in which a recipe can reach data and processes: what becomes of it is the supervisor's to tell."""
    with LocalRunner("process") as runner:
        yield runner


@pytest.fixture
def bench(tmp_path: Path, log: EventLog, evaluator_key: SigningKey, runner: LocalRunner) -> Bench:
    task = copy_toy(tmp_path / "task") / "task.toml"
    contract, *specialists = task.read_text().split("[[specialists]]")
    # One specialist, so that the script decides what is edited.
    task.write_text(f"{contract}[[specialists]]{specialists[1]}")
    key = tmp_path / "keys" / "evaluator.key"
    return Bench(Task.load(task.parent), log, Scripted(), runner, key, tmp_path / "work", "test")


def ignore(event: Event, campaign: Campaign) -> None:
    """An observer that does not look."""


def campaign_of(bench: Bench, *edits: Edit) -> Campaign:
    done = Supervisor(replace(bench, proposer=Scripted(*edits)), "toy-1", 1, ignore).run(StopRules(len(edits)))
    faults = [finding for check in verify(bench.log.path).checks for finding in check.findings if finding.is_fault]
    assert faults == []
    return done


def swap(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return edit


@pytest.mark.parametrize(
    ("edit", "verdict", "label"),
    [
        (swap("EPOCHS = 6", "EPOCHS = 60"), Verdict.KEPT, None),
        (swap("MOMENTUM = 0.8", "MOMENTUM = 0.79"), Verdict.DISCARDED, None),
        (swap("EPOCHS = 6", "EPOCHS = = 6"), Verdict.FAILED, FailureLabel.SYNTAX_ERROR),
        (swap("import argparse", "import subprocess"), Verdict.FAILED, FailureLabel.FORBIDDEN_EDIT),
        (lambda text: text, Verdict.FAILED, FailureLabel.EMPTY_DIFF),
        (lambda text: text + "# a comment\n", Verdict.FAILED, FailureLabel.DUPLICATE_RECIPE),
        (lambda text: text + "#" * 20_000, Verdict.FAILED, FailureLabel.SIZE_OVER_LIMIT),
        (swap("weights += velocity", "raise SystemExit(3)"), Verdict.FAILED, FailureLabel.CRASH),
        (swap("np.save(options.out", "0 and np.save(options.out"), Verdict.FAILED, FailureLabel.NO_ARTIFACT),
        (swap("weights += velocity", "weights *= np.nan"), Verdict.FAILED, FailureLabel.NONFINITE_METRIC),
        (swap("EPOCHS = 6", "EPOCHS = 10**9"), Verdict.FAILED, FailureLabel.TRAIN_OVER_BUDGET),
        (
            swap("steps = EPOCHS", "hog = [np.ones(10**7) for _ in range(10**4)]; steps = EPOCHS"),
            Verdict.FAILED,
            FailureLabel.OUT_OF_MEMORY,
        ),
        (swap("weights += velocity", "weights += 9"), Verdict.DISQUALIFIED, FailureLabel.BELOW_GATE),
        (
            swap("np.save(options.out", "np.save(options.out / 'b', np.ones(9999)); np.save(options.out"),
            Verdict.DISQUALIFIED,
            FailureLabel.SIZE_OVER_LIMIT,
        ),
    ],
)
def test_each_outcome_has_its_verdict_and_label(
    bench: Bench, edit: Edit, verdict: Verdict, label: FailureLabel | None
) -> None:
    trial = campaign_of(bench, edit).trials[1]
    assert trial.outcome is not None
    assert (trial.verdict, getattr(trial.outcome, "label", None)) == (verdict, label)
    if verdict is Verdict.FAILED:
        assert trial.outcome.score is None


def test_a_recipe_that_prints_scores_gains_nothing(bench: Bench) -> None:
    forge = "print('val_mse: 0.0'); open('result.json', 'w').write('{\"val_mse\": 0}'); np.save(options.out"
    campaign = campaign_of(bench, swap("np.save(options.out", forge))
    assert campaign.trials[1].verdict is Verdict.DISCARDED
    assert campaign.champion == 0


@pytest.mark.parametrize("name", ["y.npy", "extra.npy"])
def test_a_recipe_that_changes_the_data_is_labelled_and_the_next_run_finds_it_as_it_was(
    bench: Bench, name: str
) -> None:
    tamper = f"np.save(options.data / '{name}', np.zeros(200)); np.save(options.out"
    campaign = campaign_of(bench, swap("np.save(options.out", tamper), swap("MOMENTUM = 0.8", "MOMENTUM = 0.79"))
    assert campaign.trials[1].outcome is not None
    assert getattr(campaign.trials[1].outcome, "label", None) is FailureLabel.EVALUATOR_TAMPERING
    assert campaign.trials[1].verdict is Verdict.DISQUALIFIED
    assert campaign.trials[2].verdict is Verdict.DISCARDED


def test_a_recipe_that_removes_the_data_is_labelled(bench: Bench) -> None:
    remove = "import shutil; shutil.rmtree(options.data); np.save(options.out"
    campaign = campaign_of(bench, swap("np.save(options.out", remove), swap("MOMENTUM = 0.8", "MOMENTUM = 0.79"))
    assert getattr(campaign.trials[1].outcome, "label", None) is FailureLabel.EVALUATOR_TAMPERING
    assert campaign.trials[2].verdict is Verdict.DISCARDED


def test_a_recipe_that_kills_the_measuring_process_costs_its_own_trial_only(bench: Bench) -> None:
    kill = "import os; os.system(f'pkill -9 -f evaluators.measure.*{options.data}'); np.save(options.out"
    proposer = Scripted(swap("np.save(options.out", kill), swap("EPOCHS = 6", "EPOCHS = 60"))
    campaign = Supervisor(replace(bench, proposer=proposer), "toy-1", 1, ignore).run(StopRules(1))
    assert campaign.trials[1].phase is Phase.ABANDONED
    assert campaign.trials[2].verdict is Verdict.KEPT


def test_the_champion_changes_and_later_trials_start_from_it(bench: Bench) -> None:
    campaign = campaign_of(bench, swap("EPOCHS = 6", "EPOCHS = 60"), swap("MOMENTUM = 0.8", "MOMENTUM = 0.81"))
    assert campaign.champion == 1
    second = campaign.trials[2].proposal
    assert second is not None
    assert second.parent == 1


def test_a_campaign_whose_specialists_decline_is_exhausted(bench: Bench) -> None:
    campaign = Supervisor(bench, "toy-1", 1, ignore).run(StopRules(3))
    assert campaign.stopped is not None
    assert campaign.stopped.reason == "exhausted"


class Flaky:
    """A runner whose machine fails on the given calls."""

    name = "flaky"
    isolation = "process"

    def __init__(self, runner: LocalRunner, *failing: int) -> None:
        self._runner, self._failing, self._calls = runner, failing, 0

    def run(self, spec: RunSpec, into: Path) -> RunResult:
        self._calls += 1
        if self._calls in self._failing:
            raise InfrastructureError("the node went away")
        return self._runner.run(spec, into)


def test_a_failure_of_the_machine_is_retried_with_the_same_seed(bench: Bench, runner: LocalRunner) -> None:
    flaky = replace(bench, runner=Flaky(runner, 2, 5))  # type: ignore[arg-type]
    campaign = campaign_of(flaky, swap("EPOCHS = 6", "EPOCHS = 60"))
    runs = campaign.trials[0].runs
    assert [run.failure.label if run.failure else None for run in runs] == [None, FailureLabel.INFRA_ERROR, None, None]
    assert runs[1].started.seed == runs[2].started.seed
    assert (runs[1].started.attempt, runs[2].started.attempt) == (0, 1)
    assert campaign.trials[1].verdict is Verdict.KEPT


def test_a_trial_that_takes_the_machine_down_is_abandoned_and_the_campaign_goes_on(
    bench: Bench, runner: LocalRunner
) -> None:
    flaky = replace(bench, runner=Flaky(runner, 4, 5, 6))  # type: ignore[arg-type]
    proposer = Scripted(swap("EPOCHS = 6", "EPOCHS = 60"), swap("EPOCHS = 6", "EPOCHS = 70"))
    campaign = Supervisor(replace(flaky, proposer=proposer), "toy-1", 1, ignore).run(StopRules(1))
    assert campaign.trials[1].phase is Phase.ABANDONED
    assert campaign.trials[2].verdict is Verdict.KEPT


def test_a_machine_that_keeps_failing_stops_the_campaign_and_blames_no_trial(bench: Bench, runner: LocalRunner) -> None:
    flaky = replace(bench, runner=Flaky(runner, *range(4, 10)))  # type: ignore[arg-type]
    proposer = Scripted(swap("EPOCHS = 6", "EPOCHS = 60"), swap("EPOCHS = 6", "EPOCHS = 70"))
    with pytest.raises(CampaignError, match="the node went away"):
        Supervisor(replace(flaky, proposer=proposer), "toy-1", 1, ignore).run(StopRules(1))
    events = list(bench.log.events())
    assert isinstance(events[-1].body, CampaignStopped)
    assert events[-1].body.reason == "error"
    labels = {event.body.label for event in events if isinstance(event.body, FailureLabelled)}
    assert labels == {FailureLabel.INFRA_ERROR}
    resumed = campaign_of(bench, swap("EPOCHS = 6", "EPOCHS = 60"))
    assert resumed.concluded == 1


def test_seeds_differ_between_trials_and_runs(bench: Bench) -> None:
    campaign = campaign_of(bench, swap("EPOCHS = 6", "EPOCHS = 7"), swap("EPOCHS = 6", "EPOCHS = 8"))
    seeds = [run.started.seed for trial in campaign.trials.values() for run in trial.runs]
    assert len(set(seeds)) == len(seeds)


def test_the_work_folder_is_gone_afterwards(bench: Bench) -> None:
    campaign_of(bench, swap("EPOCHS = 6", "EPOCHS = 7"))
    assert not bench.work.exists()


def test_a_recipe_that_changes_the_data_and_crashes_is_blamed_itself(bench: Bench) -> None:
    tamper = "np.save(options.data / 'y.npy', np.zeros(200)); raise SystemExit(3)"
    campaign = campaign_of(
        bench,
        swap("np.save(options.out / ", f"{tamper}; np.save(options.out / "),
        swap("MOMENTUM = 0.8", "MOMENTUM = 0.79"),
    )
    assert getattr(campaign.trials[1].outcome, "label", None) is FailureLabel.EVALUATOR_TAMPERING
    assert campaign.trials[2].verdict is Verdict.DISCARDED


def test_a_link_in_place_of_the_data_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.txt").write_text("mine")
    link = f"import shutil, os; shutil.rmtree(options.data); os.symlink({str(elsewhere)!r}, options.data)"
    campaign = campaign_of(
        bench, swap("np.save(options.out", f"{link}; np.save(options.out"), swap("MOMENTUM = 0.8", "MOMENTUM = 0.79")
    )
    assert getattr(campaign.trials[1].outcome, "label", None) is FailureLabel.EVALUATOR_TAMPERING
    assert campaign.trials[2].verdict is Verdict.DISCARDED
    assert [path.name for path in elsewhere.iterdir()] == ["precious.txt"]


def test_a_file_where_the_scratch_folder_goes_is_left_alone(bench: Bench) -> None:
    bench.work.write_text("mine")
    with pytest.raises(CampaignError, match="is in the way"):
        Supervisor(bench, "toy-1", 1, ignore).run(StopRules(1))
    assert bench.work.read_text() == "mine"
