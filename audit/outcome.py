"""Outcomes recomputed: signatures, facts behind scores, gates and failure labels, and every verdict."""

import math
from typing import ClassVar

from audit.trajectory import Rule, Step, Trajectory
from evaluators import gates
from evaluators.labels import label_of, score_facts
from evaluators.signing import is_signed
from evaluators.task import Contract
from evaluators.verdict import Due, broken_gate, due, gate_failure, judge, judge_baseline, summarise
from ledger.campaign import Trial
from ledger.events import (
    BaselineMeasured,
    CampaignStopped,
    CertificationRecorded,
    FailureLabelled,
    ReplicateRequested,
    RunFinished,
    RunStarted,
    ScoreRecorded,
    TrialRejected,
    VerdictReached,
    decimal,
)
from ledger.texts import Withheld
from ledger.vocabulary import LABEL_RULES, FailureLabel

WALL_TOLERANCE_S = 2.0
"""How late a runner under load may notice that a budget has passed."""
P_VALUE_TOLERANCE = 1e-9
"""Relative: the distribution function may differ in its last bits between versions of SciPy."""
SHOWN_BY_FACTS = frozenset(
    {
        FailureLabel.CRASH,
        FailureLabel.OUT_OF_MEMORY,
        FailureLabel.TRAIN_OVER_BUDGET,
        FailureLabel.EVAL_OVER_BUDGET,
        FailureLabel.NO_ARTIFACT,
    }
)
"""Labels that a run bears only where its facts show them."""
NO_CONTRACT = "what depends on a contract that is not in the ledger"
UNJUDGED = (ValueError, ArithmeticError, LookupError, AssertionError)
"""What the pure rules raise for values that no campaign has: a missing metric, 1e999, one run where two are due."""


class Scores(Rule):
    """Each score is signed by the evaluator and repeats the runner's facts."""

    name: ClassVar[str] = "scores"
    proves: ClassVar[str] = (
        "every score is signed by the evaluator, repeats the run's clocks and sizes, and its run kept the budgets"
    )

    def see(self, step: Step) -> None:
        match step.trajectory, step.event.body:
            case Trajectory() as trajectory, ScoreRecorded() as score:
                self._check.checked += 1
                self._check_signature(step, trajectory, score)
                self._check_facts(step, trajectory, score)
                self._check.missed("metric values: the predictions and data behind them are not in the ledger")
            case Trajectory() as trajectory, CertificationRecorded() as certification:
                self._check.checked += 1
                self._check_signature(step, trajectory, certification)
                self._check_certification(step, trajectory, certification)

    def _check_signature(
        self, step: Step, trajectory: Trajectory, score: ScoreRecorded | CertificationRecorded
    ) -> None:
        key = trajectory.key
        if key is None:
            self._check.fault(step.place, "the evaluator's key is not known, the signature proves nothing")
        elif not is_signed(key, step.event.campaign or "", step.event.trial or 0, score):
            self._check.fault(step.place, f"expected the signature of {key}, found {score.signature!r}")

    def _check_certification(self, step: Step, trajectory: Trajectory, body: CertificationRecorded) -> None:
        """New seeds, and a summary and gates that follow from what stands beside them."""
        used = {run.started.seed for trial in trajectory.state.trials.values() for run in trial.runs}
        if again := sorted(used & set(body.seeds)):
            self._check.fault(step.place, f"seed {again[0]} was used in the search already")
        sample = [float(value) for value in body.values]
        self._check.compare(step.place, "score of its values", summarise(sample) if sample else None, body.score)
        contract = trajectory.contract
        if contract is None:
            self._check.missed(NO_CONTRACT)
            return
        means = {name: float(mean) for name, mean in body.gates.items()}
        gated = {gate.metric for gate in contract.gates} <= means.keys()
        legal = body.label is None and gated and broken_gate(contract, means) is None
        self._check.compare(step.place, "legal by its gates", legal, body.legal)

    def _check_facts(self, step: Step, trajectory: Trajectory, score: ScoreRecorded) -> None:
        trial = step.trial
        run = next((run for run in trial.runs if run.started.run == score.run), None)
        if run is None or run.finished is None:
            self._check.fault(step.place, f"run {score.run} has a score and never finished")
            return
        if score.seed in [other.seed for other in trial.scores]:
            self._check.fault(step.place, f"seed {score.seed} is scored twice in this trial")
        recipe = trajectory.recipes.get(self._file, trial.number)
        if recipe is None:
            self._check.missed("facts of scores whose recipe could not be rebuilt")
        else:
            for name, value in score_facts(run.finished, recipe.size_bytes).items():
                self._check.compare(step.place, f"{name} of the facts", decimal(value), score.metrics.get(name))
        if trajectory.contract is None:
            self._check.missed(NO_CONTRACT)
        else:
            self._check_budgets(step, trajectory.contract, run.finished)

    def _check_budgets(self, step: Step, contract: Contract, finished: RunFinished) -> None:
        if shown := label_of(contract, finished):
            self._check.fault(step.place, f"the run's facts show {shown[0]} ({shown[1]}), and yet it has a score")
            return
        budgets = contract.budgets
        spans = [("training", finished.train.wall_s, budgets.train_s)]
        spans += [("prediction", facts.wall_s, budgets.predict_s) for facts in finished.predict]
        for name, wall_s, budget_s in spans:
            if wall_s > budget_s + WALL_TOLERANCE_S:
                self._check.fault(step.place, f"{name} took {wall_s:g} s, the budget is {budget_s:g} s")


class Labels(Rule):
    """Gates are decided again on the rebuilt recipes, labels of runs again on their facts."""

    name: ClassVar[str] = "labels"
    proves: ClassVar[str] = (
        "every rejection and failure label follows from recipe or facts, and nothing ran that a gate refuses"
    )

    def see(self, step: Step) -> None:
        trajectory = step.trajectory
        if trajectory is None:
            return
        body = step.event.body
        match body:
            case TrialRejected() | FailureLabelled():
                pass
            case RunStarted(run=0) if step.event.trial:
                pass
            case _:
                return
        if trajectory.contract is None:
            self._check.missed(NO_CONTRACT)
            return
        self._check.checked += 1
        if not isinstance(body, FailureLabelled):
            self._check_gates(step, trajectory, trajectory.contract, body)
        elif body.run is None:
            self._check_trial(step, trajectory.contract, body)
        else:
            self._check_run(step, trajectory, trajectory.contract, body)

    def _check_gates(
        self, step: Step, trajectory: Trajectory, contract: Contract, body: TrialRejected | RunStarted
    ) -> None:
        number, proposal = step.event.trial or 0, step.trial.proposal
        recipe = trajectory.recipes.get(self._file, number)
        parent = trajectory.recipes.get(self._file, proposal.parent) if proposal else None
        if proposal is None or recipe is None or parent is None:
            self._check.missed("gates on recipes that could not be rebuilt")
            return
        try:
            specialist = contract.specialist(proposal.specialist)
        except KeyError:
            self._check.fault(step.place, f"specialist {proposal.specialist} is not in the contract")
            return
        known = {program: first for program, first in trajectory.recipes.programs.items() if first != number}
        refused = gates.check(contract, specialist, parent, recipe, known)
        calculated = refused.label if refused else None
        said = body.label if isinstance(body, TrialRejected) else None
        if calculated != said:
            shown = f"{refused.label} ({refused.detail})" if refused else "no gate that refuses it"
            self._check.fault(step.place, f"gates: calculated {shown}, the event says {said or 'it ran'}")

    def _check_trial(self, step: Step, contract: Contract, body: FailureLabelled) -> None:
        try:
            broken = gate_failure(contract, step.trial)
        except UNJUDGED as error:
            self._check.fault(step.place, f"the gates cannot be decided: {error!r}")
            return
        if broken is not None:
            self._check.compare(step.place, "label", broken[0], body.label)
        elif body.label in {gate.label for gate in contract.gates} or body.label in SHOWN_BY_FACTS:
            said = f"the event says {body.label} ({body.detail})"
            self._check.fault(step.place, f"label: calculated no broken gate, {said}")
        else:
            self._check.missed(f"why {body.label}: the evaluator's word")

    def _check_run(self, step: Step, trajectory: Trajectory, contract: Contract, body: FailureLabelled) -> None:
        number = body.run
        run = next((run for run in step.trial.runs if run.started.run == number), None)
        finished = run.finished if run else None
        shown = label_of(contract, finished) if finished else None
        if body.label is FailureLabel.INFRA_ERROR and shown is not None and self._was_cut(step, trajectory):
            return
        if body.label is FailureLabel.EVALUATOR_TAMPERING:
            # It outranks what the facts show: a recipe that damaged the data may have crashed as well.
            self._check.missed(f"why {body.label}: the evaluator's word")
        elif shown is not None:
            self._check.compare(step.place, f"label of run {number} ({shown[1]})", shown[0], body.label)
        elif body.label in SHOWN_BY_FACTS or LABEL_RULES[body.label].phase == "before a run":
            said = f"the event says {body.label} ({body.detail})"
            self._check.fault(step.place, f"label of run {number}: calculated nothing wrong in the facts, {said}")
        else:
            self._check.missed(f"why {body.label}: no fact in the ledger shows it")

    def _was_cut(self, step: Step, trajectory: Trajectory) -> bool:
        """Whether the supervisor died between this run's facts and its label: the next one calls it lost."""
        return step.event.trial == 0 and trajectory.resumed_at > trajectory.touched.get(0, -1)


class Verdicts(Rule):
    """Each verdict is what the pure rule makes of the state just before it."""

    name: ClassVar[str] = "verdicts"
    proves: ClassVar[str] = "every verdict is what the rule of evaluators.verdict makes of the events before it"

    def see(self, step: Step) -> None:
        trajectory, body = step.trajectory, step.event.body
        if trajectory is None or not isinstance(
            body, RunStarted | ReplicateRequested | BaselineMeasured | VerdictReached | CampaignStopped
        ):
            return
        if trajectory.broken_at is not None:
            self._check.missed(f"verdicts behind event {trajectory.broken_at}, where the order breaks")
        elif isinstance(body, CampaignStopped):
            self._check_stop(step, trajectory, body)
        elif isinstance(body, RunStarted | ReplicateRequested):
            self._check_due(step, trajectory, body)
        elif trajectory.contract is None:
            self._check.missed(NO_CONTRACT)
        else:
            self._check.checked += 1
            errors = self._check.errors
            self._check_verdict(step, trajectory, trajectory.contract, body)
            self._check.confirmed += errors == self._check.errors

    def _check_due(self, step: Step, trajectory: Trajectory, body: RunStarted | ReplicateRequested) -> None:
        """Nothing runs that the rule does not ask for: more seeds than due are a choice among results."""
        if trajectory.contract is None:
            self._check.missed(NO_CONTRACT)
            return
        number, happens = step.event.trial or 0, Due.RUN
        if isinstance(body, ReplicateRequested):
            number, happens = body.challenger, Due.REQUEST
        elif step.trial.outcome is not None:
            if not step.trial.requests:
                return  # The order of events is broken, and another check says so.
            number, happens = step.trial.requests[-1].challenger, Due.DEFENCE
        trial = trajectory.state.trials.get(number, Trial(number))
        self._check.checked += 1
        try:
            needed = due(trajectory.contract, trajectory.state, trial)
        except UNJUDGED as error:
            self._check.fault(step.place, f"what is due cannot be computed: {error!r}")
        else:
            self._check.compare(step.place, f"due for trial {number}", needed.value, happens.value)

    def _check_verdict(
        self, step: Step, trajectory: Trajectory, contract: Contract, said: BaselineMeasured | VerdictReached
    ) -> None:
        trial = step.trial
        try:
            self._check_runs(step, contract, trial)
            calculated: BaselineMeasured | VerdictReached
            if isinstance(said, BaselineMeasured):
                calculated = judge_baseline(contract, trial)
            elif trajectory.state.champion is None:
                raise ValueError("there is no champion to compare with")
            else:
                calculated = judge(contract, trajectory.state, trial)
        except UNJUDGED as error:
            self._check.fault(step.place, f"the verdict cannot be computed: {error!r}")
            return
        for field in type(calculated).model_fields:
            ours, theirs = getattr(calculated, field), getattr(said, field, None)
            if field == "p_value" and _close(ours, theirs):
                continue
            if field == "reason" and (isinstance(theirs, Withheld) or _has_withheld(trial)):
                self._check.missed("the reason of a verdict, or what it repeats: withheld")
                continue
            self._check.compare(step.place, field, ours, theirs)

    def _check_runs(self, step: Step, contract: Contract, trial: Trial) -> None:
        """A trial is judged when the contract's rule says so, and after its gates."""
        if trial.rejection is not None or (trial.failure is not None and trial.failure.run is not None):
            return
        if step.trajectory is not None and trial.failure is None:
            needed = due(contract, step.trajectory.state, trial)
            self._check.compare(step.place, f"due after {len(trial.scores)} runs", needed.value, Due.VERDICT.value)
        broken = gate_failure(contract, trial)
        if trial.failure is None and broken is not None:
            self._check.fault(step.place, f"calculated {broken[0]} ({broken[1]}), no event says so before the verdict")

    def _check_stop(self, step: Step, trajectory: Trajectory, body: CampaignStopped) -> None:
        state = trajectory.state
        self._check.checked += 1
        self._check.compare(step.place, "trials concluded", state.concluded, body.trials)
        self._check.compare(step.place, "champion", state.champion, body.champion)


def _has_withheld(trial: Trial) -> bool:
    """Whether the detail that the trial's verdict repeats is withheld from this copy."""
    return any(isinstance(body.detail, Withheld) for body in (trial.rejection, trial.failure) if body is not None)


def _close(ours: str | None, theirs: str | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return math.isclose(float(ours), float(theirs), rel_tol=P_VALUE_TOLERANCE)
