"""Certification: the champion is measured once, on a split and seeds that the search never used."""

from dataclasses import dataclass
from pathlib import Path

from agents.measurement import facts_of
from agents.record import Record
from agents.supervisor import CampaignError, check_instrument
from evaluators.labels import label_of, score_facts
from evaluators.measure import CERTIFICATION, MeasurementError, MeasuringProcess, RunClaim
from evaluators.task import Task, Violation
from ledger.events import CertificationRecorded, RunFinished
from ledger.vocabulary import FailureLabel
from runners.protocol import InfrastructureError, Runner, RunResult, RunSpec
from runners.workspace import remove


@dataclass(frozen=True)
class Certifier:
    """What a certification works with."""

    task: Task
    record: Record
    runner: Runner
    key: Path
    """File of the evaluator's signing key."""
    work: Path
    """Scratch folder of this ledger."""

    def certify(self) -> CertificationRecorded:
        """Measure the champion on as many new seeds as the baseline had, and record what came of it.

        Raises CampaignError where there is no champion, it is certified already, its campaign goes on, or the
        machine fails: nothing is recorded then, and the command may be given again.
        """
        campaign = self.record.campaign
        number = campaign.champion
        if number is None:
            raise CampaignError(
                f"campaign {campaign.id} has no champion; its baseline was not measured or is not legal"
            )
        if campaign.stopped is None:
            raise CampaignError(f"campaign {campaign.id} is not stopped; run it to its end first")
        if campaign.trials[number].certification is not None:
            raise CampaignError(
                f"trial {number} of {campaign.id} is certified already; a second look would be a choice"
            )
        remove(self.work)
        public, hidden = self.work / "public", self.work / "hidden"
        for folder in (self.work, public, hidden):
            folder.mkdir(parents=True, mode=0o700)
        try:
            with MeasuringProcess(self.task, public, hidden, self.key, self.work / "measure.log") as instrument:
                check_instrument(campaign, instrument, self.key)
                certification = self._measured(instrument, number)
        except (MeasurementError, InfrastructureError) as error:
            raise CampaignError(f"{error}; nothing is recorded, mend it and certify again") from error
        finally:
            remove(self.work)
        self.record.append(f"evaluator:{self.task.contract.name}", certification, trial=number)
        return certification

    def _measured(self, instrument: MeasuringProcess, number: int) -> CertificationRecorded:
        claims: list[RunClaim] = []
        failure: FailureLabel | None = None
        for run in range(self.task.contract.seeds.baseline):
            claim, failure = self._run(instrument, number, run)
            claims.append(claim)
            if failure is not None:
                break
        return instrument.certify(claims, failure)

    def _run(self, instrument: MeasuringProcess, number: int, run: int) -> tuple[RunClaim, FailureLabel | None]:
        """One seed; its predictions stay in a folder of their own until all are measured."""
        contract, recipe = self.task.contract, self.record.recipe(number)
        seed = self.record.draw("certify", number, run)
        nonce, challenges = instrument.challenges(CERTIFICATION)
        folder = self.work / f"certify-{run}"
        folder.mkdir()
        result = self.runner.run(RunSpec(recipe, contract, seed, self.work / "public", challenges), folder)
        finished = facts_of(run, result)
        shown = label_of(contract, finished)
        if shown is not None and shown[0] is FailureLabel.INFRA_ERROR:
            raise InfrastructureError(shown[1])
        failure = None if shown is None else shown[0]
        try:
            instrument.check_data()
        except Violation as violation:
            failure = violation.label
        return self._claim(number, seed, nonce, finished, result), failure

    def _claim(self, number: int, seed: int, nonce: int, finished: RunFinished, result: RunResult) -> RunClaim:
        recipe = self.record.recipe(number)
        return RunClaim(
            campaign=self.record.campaign.id,
            trial=number,
            run=finished.run,
            seed=seed,
            nonce=nonce,
            recipe=recipe.digest,
            artifact=finished.artifact or "",
            facts=score_facts(finished, recipe.size_bytes),
            answers=tuple(str(path) for path in result.answers),
        )
