"""The round of confirmation: who runs when, what it decides under drift, and what the audit makes of a change."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agents.supervisor import Bench, StopRules, Supervisor
from audit.verify import verify
from evaluators.task import Contract, Seeds, Task, TaskError, find_task
from evaluators.verdict import Due, due, judge, judge_baseline
from ledger.campaign import Campaign, Phase, Request, Run, Trial
from ledger.events import Event, ReplicateRequested, RunStarted, ScoreRecorded, VerdictReached, decimal
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.vocabulary import FailureLabel, Trust, Verdict
from runners.local import LocalRunner
from runners.protocol import Runner, RunResult, RunSpec
from tests.campaigns import EPOCH
from tests.conftest import copy_toy
from tests.test_supervisor import Scripted, campaign_of, ignore, swap

AIRBENCH = find_task("airbench-cpu").contract
DIGEST = "0" * 64


class Game:
    """Campaigns on paper: `due` says who runs, `judge` what comes of it; only the numbers are drawn."""

    def __init__(self, contract: Contract, seed: int, drift: Callable[[int], float]) -> None:
        self._contract, self._random, self._drift = contract, random.Random(seed), drift
        self._means: dict[int, float] = {}
        self.runs = 0
        self.campaign = Campaign("game", epoch=EPOCH)

    def begin(self, mean: float) -> None:
        self._means[0], trial = mean, Trial(0, recipe=DIGEST)
        while due(self._contract, self.campaign, trial) is Due.RUN:
            trial = self._run(trial)
        outcome = judge_baseline(self._contract, trial)
        self.campaign.trials[0] = replace(trial, outcome=outcome, phase=Phase.JUDGED)
        self.campaign.champion = 0

    def play(self, mean: float) -> VerdictReached:
        number = len(self.campaign.trials)
        self._means[number] = mean
        trial = Trial(number, recipe=DIGEST, phase=Phase.BETWEEN_RUNS)
        trials, best = self.campaign.trials, self.campaign.champion or 0
        while (step := due(self._contract, self.campaign, trial)) is not Due.VERDICT:
            match step:
                case Due.RUN:
                    trial = self._run(trial)
                case Due.DEFENCE:
                    trials[best] = self._run(trials[best])
                case Due.REQUEST:
                    request = Request(number, self._contract.seeds.confirm, len(trials[best].runs))
                    trials[best] = replace(trials[best], requests=(*trials[best].requests, request))
        outcome = judge(self._contract, self.campaign, trial)
        trials[number] = replace(trial, outcome=outcome, phase=Phase.JUDGED)
        if outcome.verdict is Verdict.KEPT:
            self.campaign.champion = number
        return outcome

    def _run(self, trial: Trial) -> Trial:
        self.runs += 1
        value = self._random.gauss(self._means[trial.number], 0.01) * self._drift(self.runs)
        metrics = {"train_cpu_s": value, "accuracy": 0.98, "predict_cpu_s": 0.1, "artifact_bytes": 1000.0}
        started = RunStarted(
            run=len(trial.runs), seed=self.runs, attempt=0, recipe=DIGEST, runner="paper", isolation="none"
        )
        score = ScoreRecorded(
            run=len(trial.runs),
            seed=self.runs,
            metrics={name: decimal(metric) for name, metric in metrics.items()},
            trust=Trust.MEASURED,
            nonce=0,
            recipe=DIGEST,
            artifact=DIGEST,
            epoch=EPOCH,
            signature="",
        )
        return replace(trial, runs=(*trial.runs, Run(started, score=score)))


def steady(run: int) -> float:
    return 1.0


def falling(run: int) -> float:
    """A neighbour leaves the machine slowly: every run is a fifth of the noise faster than the one before."""
    return 1.0 - 0.002 * run


@pytest.mark.parametrize("drift", [steady, falling])
def test_the_unchanged_champion_is_not_kept(drift: Callable[[int], float]) -> None:
    kept = 0
    for seed in range(30):
        game = Game(AIRBENCH, seed, drift)
        game.begin(1.0)
        kept += sum(game.play(1.0).verdict is Verdict.KEPT for _ in range(20))
    assert kept <= 6, f"{kept} of 600 replicates of the champion were kept"


def test_without_the_round_drift_alone_is_kept() -> None:
    """What the round is for: the same campaigns under the plain rule."""
    plain = AIRBENCH.model_copy(update={"seeds": Seeds(baseline=5, trial=5)})
    game = Game(plain, 1, falling)
    game.begin(1.0)
    assert sum(game.play(1.0).verdict is Verdict.KEPT for _ in range(20)) >= 5


def test_gains_of_three_standard_deviations_are_kept() -> None:
    kept, runs = 0, 0
    for seed in range(10):
        game = Game(AIRBENCH, seed, steady)
        game.begin(2.0)
        kept += sum(game.play(2.0 - 0.03 * step).verdict is Verdict.KEPT for step in range(1, 21))
        runs += game.runs
    assert kept >= 190, f"{kept} of 200 were kept"


def test_a_hopeless_trial_is_stopped_on_the_way() -> None:
    game = Game(AIRBENCH, 1, steady)
    game.begin(1.0)
    outcome = game.play(1.5)
    assert (outcome.verdict, outcome.score.n if outcome.score else None) == (Verdict.DISCARDED, AIRBENCH.seeds.screen)
    assert "clearly worse" in outcome.reason


@pytest.fixture
def confirming(tmp_path: Path, log: EventLog, evaluator_key: SigningKey) -> Iterator[Bench]:
    """The toy task with a round of three and a screen after one run."""
    file = copy_toy(tmp_path / "task") / "task.toml"
    contract, *specialists = file.read_text().split("[[specialists]]")
    contract = contract.replace("trial = 2\n", "trial = 2\nscreen = 1\nconfirm = 3\n")
    file.write_text(f"{contract}[[specialists]]{specialists[1]}")
    key = tmp_path / "keys" / "evaluator.key"
    with LocalRunner() as runner:
        yield Bench(Task.load(file.parent), log, Scripted(), runner, key, tmp_path / "work", "test")


BETTER = swap("EPOCHS = 6", "EPOCHS = 60")


def test_trial_and_champion_run_in_turn_on_the_same_seeds(confirming: Bench) -> None:
    campaign = campaign_of(confirming, BETTER, swap("EPOCHS = 60", "EPOCHS = 5"))
    assert (campaign.champion, campaign.trials[1].verdict, campaign.trials[2].verdict) == (1, "kept", "discarded")
    assert len(campaign.trials[2].scores) == 1
    events = list(confirming.log.events())
    begin = next(index for index, event in enumerate(events) if isinstance(event.body, ReplicateRequested))
    starts = [event for event in events[begin:] if isinstance(event.body, RunStarted)][:6]
    assert [event.trial for event in starts] == [0, 1, 1, 0, 0, 1]
    seeds = [event.body.seed for event in starts if isinstance(event.body, RunStarted)]
    assert seeds[0] == seeds[1]
    assert seeds[2] == seeds[3]
    assert seeds[4] == seeds[5]
    kept = campaign.trials[1].outcome
    assert isinstance(kept, VerdictReached)
    assert "in 3 runs in turn" in kept.reason


@pytest.mark.parametrize("run", range(6))
def test_a_supervisor_that_dies_in_the_round_leaves_a_legal_record(confirming: Bench, run: int) -> None:
    seen = 0

    def die(event: Event, campaign: Campaign) -> None:
        nonlocal seen
        if campaign.trials and campaign.trials[0].requests and isinstance(event.body, RunStarted):
            seen += 1
            if seen == run + 1:
                raise KeyboardInterrupt

    again = Scripted(BETTER)
    Supervisor(replace(confirming, proposer=Scripted(BETTER)), "toy-1", 1, die).run(StopRules(1))
    done = Supervisor(replace(confirming, proposer=again), "toy-1", 1, ignore).run(StopRules(1))
    assert done.trials[1].phase is Phase.ABANDONED
    assert done.trials[2].verdict is Verdict.KEPT
    faults = [finding for check in verify(confirming.log.path).checks for finding in check.findings if finding.is_fault]
    assert faults == []


class Crashing:
    """A runner that says of the given calls that training ended with exit code 3."""

    name = "crashing"
    isolation = "process"

    def __init__(self, runner: Runner, *failing: int) -> None:
        self._runner, self._failing, self._calls = runner, failing, 0

    def run(self, spec: RunSpec, into: Path) -> RunResult:
        self._calls += 1
        result = self._runner.run(spec, into)
        if self._calls not in self._failing:
            return result
        return replace(result, train=result.train.model_copy(update={"exit_code": 3}))


@pytest.mark.parametrize("failing", [(6,), (6, 9, 10)])
def test_a_champion_that_fails_in_the_round_keeps_its_record(confirming: Bench, failing: tuple[int, ...]) -> None:
    """That is a label of the run and no second verdict on the trial; what is left decides."""
    bench = replace(confirming, runner=Crashing(confirming.runner, *failing))
    campaign = campaign_of(bench, BETTER)
    assert campaign.trials[1].verdict is Verdict.KEPT
    assert campaign.trials[0].verdict is Verdict.BASELINE
    labels = [run.failure.label for run in campaign.trials[0].runs if run.failure]
    assert labels == [FailureLabel.CRASH] * len(failing)


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (lambda step, scores: Due.RUN if step is Due.VERDICT and scores < 7 else step, "due for trial 1"),
        (lambda step, scores: Due.VERDICT if step is Due.REQUEST else step, "due after 2 runs"),
        (lambda step, scores: Due.RUN if step is Due.DEFENCE and scores < 5 else step, "due for trial 1"),
    ],
    ids=["more seeds than due", "no round", "the trial runs twice in a row"],
)
def test_a_supervisor_that_picks_its_runs_is_found(
    confirming: Bench, monkeypatch: pytest.MonkeyPatch, rule: Callable[[Due, int], Due], found: str
) -> None:
    def bent(contract: Contract, campaign: Campaign, trial: Trial) -> Due:
        step = due(contract, campaign, trial)
        return rule(step, len(trial.scores)) if trial.number and trial.failure is None else step

    monkeypatch.setattr("agents.measurement.due", bent)
    Supervisor(replace(confirming, proposer=Scripted(BETTER)), "toy-1", 1, ignore).run(StopRules(1))
    faults = [str(finding) for check in verify(confirming.log.path).checks for finding in check.findings]
    assert any(found in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("confirm = 1", "seeds.confirm is 1"),
        ("screen = 2", "expected fewer than the 2 of a trial"),
        ("confirm = -1", "seeds.confirm"),
    ],
)
def test_a_round_that_makes_no_sense_is_refused(tmp_path: Path, line: str, said: str) -> None:
    file = copy_toy(tmp_path / "task") / "task.toml"
    file.write_text(file.read_text().replace("trial = 2\n", f"trial = 2\n{line}\n"))
    with pytest.raises(TaskError, match=said):
        Task.load(file.parent)
