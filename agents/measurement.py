"""Measuring one trial: its runs, one seed after the other, each executed, scored or labelled, and retried."""

from pathlib import Path

from agents.interrupts import Interrupts
from agents.record import Record
from evaluators.labels import label_of, score_facts
from evaluators.measure import MeasurementError, MeasuringProcess, RunClaim
from evaluators.task import Contract, Violation
from evaluators.verdict import Due, due
from ledger.campaign import Trial
from ledger.events import ReplicateRequested, RunFinished, RunStarted
from ledger.recipes import digest_of, listing
from ledger.vocabulary import FailureLabel
from runners.protocol import InfrastructureError, Runner, RunResult, RunSpec
from runners.workspace import remove

MAX_ATTEMPTS = 3
"""Runs of one seed that may fail for reasons of the machine before the trial is given up."""


class MachineFailure(Exception):
    """A trial could not be measured for reasons of the machine."""


class Measurement:
    """Runner and measuring process at work for one campaign."""

    def __init__(
        self,
        record: Record,
        contract: Contract,
        runner: Runner,
        instrument: MeasuringProcess,
        work: Path,
        interrupts: Interrupts,
    ) -> None:
        self._record, self._contract, self._runner = record, contract, runner
        self._instrument, self._work, self._interrupts = instrument, work, interrupts

    def measure(self, number: int) -> Trial:
        """Run what is due until the trial can be judged.

        Raises MachineFailure where one seed fails MAX_ATTEMPTS times for reasons of the machine.
        """
        while True:
            campaign, trial = self._record.campaign, self._record.trial(number)
            match due(self._contract, campaign, trial):
                case Due.RUN:
                    self._repeat(number, self._record.draw("seed", number, len(trial.scores)))
                case Due.REQUEST:
                    self._request(number)
                case Due.DEFENCE:
                    assert campaign.champion is not None
                    pair = len(campaign.trials[campaign.champion].defence(number) or ())
                    self._repeat(
                        campaign.champion, self._record.draw("seed", number, self._contract.seeds.trial + pair)
                    )
                case Due.VERDICT:
                    return trial

    def _request(self, challenger: int) -> None:
        """A round of confirmation begins."""
        runs = self._contract.seeds.confirm
        reason = f"trial {challenger} looks better: both are run in turn, {runs} times on the same new seeds"
        body = ReplicateRequested(challenger=challenger, runs=runs, reason=reason)
        self._record.append("evaluator:verdict", body, trial=self._record.campaign.champion)

    def _repeat(self, number: int, seed: int) -> None:
        """Run one seed until the machine does not fail."""
        for attempt in range(MAX_ATTEMPTS):
            if self._run(number, seed, attempt):
                return
        last = self._record.trial(number).runs[-1].failure
        detail = last.detail if last else "unknown"
        raise MachineFailure(f"trial {number}: {MAX_ATTEMPTS} runs failed for reasons of the machine: {detail}")

    def _run(self, number: int, seed: int, attempt: int) -> bool:
        """One run; False where the machine failed and the seed should be tried again."""
        run, runner, recipe = len(self._record.trial(number).runs), self._runner, self._record.recipe(number)
        started = RunStarted(
            run=run, seed=seed, attempt=attempt, recipe=recipe.digest, runner=runner.name, isolation=runner.isolation
        )
        self._record.append(f"runner:{runner.name}", started, trial=number)
        folder = self._work / f"trial-{number}-run-{run}"
        try:
            remove(folder)
            folder.mkdir(parents=True)
            nonce, challenges = self._instrument.challenges()
            spec = RunSpec(recipe, self._contract, seed, self._work / "public", challenges)
            with self._interrupts.allowed():
                result = runner.run(spec, folder)
            finished = self._facts(number, run, result)
            shown = label_of(self._contract, finished)
            self._check_data(failed=shown is not None)
            if shown:
                self._record.fail(number, shown[0], shown[1], run)
                return shown[0] is not FailureLabel.INFRA_ERROR
            self._score(number, started, nonce, finished, result)
        except Violation as violation:
            self._record.fail(number, violation.label, violation.detail, run)
        except (InfrastructureError, OSError) as error:
            self._record.fail(number, FailureLabel.INFRA_ERROR, str(error), run)
            return False
        except MeasurementError as error:
            self._record.fail(number, FailureLabel.INFRA_ERROR, str(error), run)
            self._instrument.restart()
            return False
        finally:
            remove(folder)
        return True

    def _check_data(self, failed: bool) -> None:
        """Damage to the data is told of the run that did it, also where it failed. Raises Violation."""
        try:
            self._instrument.check_data()
        except MeasurementError:
            if not failed:
                raise
            # The facts say already why this run has no score; the instrument is needed for the next one.
            self._instrument.restart()

    def _facts(self, number: int, run: int, result: RunResult) -> RunFinished:
        finished = facts_of(run, result)
        self._record.append(f"runner:{self._runner.name}", finished, trial=number, blobs=(result.log,))
        return finished

    def _score(self, number: int, started: RunStarted, nonce: int, finished: RunFinished, result: RunResult) -> None:
        assert finished.artifact is not None
        claim = RunClaim(
            campaign=self._record.campaign.id,
            trial=number,
            run=started.run,
            seed=started.seed,
            nonce=nonce,
            recipe=started.recipe,
            artifact=finished.artifact,
            facts=score_facts(finished, self._record.recipe(number).size_bytes),
            answers=tuple(str(path) for path in result.answers),
        )
        score = self._instrument.score(claim)
        self._record.append(f"evaluator:{self._contract.name}", score, trial=number)


def facts_of(run: int, result: RunResult) -> RunFinished:
    """What the runner saw, as an event tells it."""
    return RunFinished(
        run=run,
        train=result.train,
        predict=result.predict,
        artifact=None if result.artifact is None else digest_of(listing(result.artifact)),
        artifact_bytes=result.artifact_bytes,
        log=digest_of(result.log),
        load_1m=result.load_1m,
        host=result.host,
        gpus=result.gpus,
        threads=result.threads,
    )
