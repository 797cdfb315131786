"""The loop: propose -> gate -> run -> measure -> verdict -> append; resumable, with stop rules."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agents.interrupts import Interrupts
from agents.lineage import RENDERER, Lineage, lineage_of, render
from agents.measurement import MachineFailure, Measurement
from agents.proposal import Brief, Proposal, Proposer
from agents.record import Observer, Record
from agents.search import choose_specialist
from evaluators import gates
from evaluators.measure import MeasurementError, MeasuringProcess, environment
from evaluators.task import Specialist, Task
from evaluators.verdict import gate_failure, judge, judge_baseline
from ledger.campaign import Campaign
from ledger.events import (
    Body,
    CampaignResumed,
    CampaignStarted,
    CampaignStopped,
    DiffSubmitted,
    DomainObserved,
    Draft,
    FailureLabelled,
    HypothesisProposed,
    LineageViewed,
    SessionEnded,
    SessionStarted,
    TrialAbandoned,
    TrialRejected,
    decimal,
)
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.recipes import Recipe, diff, digest_of
from ledger.views import Views
from ledger.vocabulary import FailureLabel, Role, Verdict
from runners.protocol import InfrastructureError, Runner
from runners.workspace import remove

MAX_TRIALS_LOST = 2
"""Trials in a row that may be given up so: one may be a recipe that attacks the runner, more are the machine."""
SUPERVISOR = "supervisor:labtrail"
GATE = "gate:legality"

Examiner = Callable[[HypothesisProposed, Recipe, Recipe], DomainObserved]
"""What an edit really changes, from proposal, parent and child; never raises. The auditor's, handed in from outside."""


class CampaignError(Exception):
    """The campaign cannot start or go on; the message says why and what to do."""


@dataclass(frozen=True)
class StopRules:
    """When to stop: whichever comes first."""

    trials: int
    """Concluded trials, the baseline not counted."""
    hours: float | None = None


@dataclass(frozen=True)
class Bench:
    """What a campaign works with."""

    task: Task
    log: EventLog
    proposer: Proposer
    runner: Runner
    key: Path
    """File of the evaluator's signing key."""
    work: Path
    """Scratch folder of this ledger; the writer's lock covers it, so that leftovers may be removed."""
    program: str
    examine: Examiner | None = None
    """None to leave it to `audit domains --record`."""


class Supervisor:
    """Drives one campaign. Everything it knows is the fold of the log, so that it can die at any time."""

    def __init__(self, bench: Bench, campaign: str, search_seed: int, observe: Observer) -> None:
        self._bench = bench
        self._contract = bench.task.contract
        self._search_seed = search_seed
        self._exhausted: set[str] = set()
        self._views = Views(bench.log, threads=1)
        self._interrupts = Interrupts()
        self._record = Record(bench.log, campaign, observe)

    @property
    def campaign(self) -> Campaign:
        """The state as of the last event."""
        return self._record.campaign

    def run(self, rules: StopRules) -> Campaign:
        """Start or resume the campaign and go on until a stop rule holds.

        Ctrl-C ends the trial under way as abandoned and stops the campaign; calling `run` again resumes it.
        Raises CampaignError where it may not start, and where the machine fails MAX_ATTEMPTS times in a row.
        """
        work = self._bench.work
        if work.exists() and not work.is_dir():
            raise CampaignError(f"{work} is in the way: expected a scratch folder or nothing; move it elsewhere")
        remove(work)
        work.mkdir(parents=True, mode=0o700)
        public, hidden = work / "public", work / "hidden"
        for folder in (public, hidden):
            folder.mkdir(parents=True, mode=0o700)
        task, key = self._bench.task, self._bench.key
        try:
            with self._interrupts, MeasuringProcess(task, public, hidden, key, work / "measure.log") as instrument:
                self._begin(instrument)
                self._go(instrument, rules)
        except (MachineFailure, MeasurementError, InfrastructureError) as error:
            raise CampaignError(f"{error}; mend it and run the same command again to go on") from error
        finally:
            remove(work)
        return self.campaign

    def _go(self, instrument: MeasuringProcess, rules: StopRules) -> None:
        """The loop, and the event that says why it ended."""
        bench = self._bench
        measurement = Measurement(self._record, self._contract, bench.runner, instrument, bench.work, self._interrupts)
        began = time.monotonic()
        reason, detail = "error", "the supervisor failed"
        try:
            reason, detail = self._loop(measurement, rules, began)
        except KeyboardInterrupt:
            reason, detail = "interrupted", "the supervisor was told to stop"
        except (MachineFailure, MeasurementError, InfrastructureError) as error:
            detail = str(error)
            raise
        finally:
            self._stop(reason, detail, time.monotonic() - began)

    # --- start, resume, stop -----------------------------------------------------------------------------

    def _begin(self, instrument: MeasuringProcess) -> None:
        if instrument.epoch.task != self._contract.digest:
            raise CampaignError(f"{self._bench.task.folder}: the task changed while the campaign started; try again")
        if self.campaign.started is None:
            self._start(instrument)
        else:
            self._resume(instrument)

    def _start(self, instrument: MeasuringProcess) -> None:
        recipe = self._bench.task.recipe()
        metric = self._contract.metric
        key = SigningKey.load(self._bench.key)
        body = CampaignStarted(
            task=self._contract.name,
            epoch=instrument.epoch,
            metric=metric.name,
            unit=metric.unit,
            direction=metric.direction,
            specialists=tuple(specialist.name for specialist in self._contract.specialists),
            proposer=self._bench.proposer.name,
            search_seed=self._search_seed,
            recipe=recipe.digest,
            evaluator_key=str(key.verifier),
            isolation=self._bench.runner.isolation,
            environment=environment(),
            program=self._bench.program,
        )
        self._record.append(SUPERVISOR, body, blobs=(self._contract.blob, *recipe.blobs))

    def _resume(self, instrument: MeasuringProcess) -> None:
        check_instrument(self.campaign, instrument, self._bench.key)
        body = CampaignResumed(
            epoch=instrument.epoch,
            isolation=self._bench.runner.isolation,
            environment=environment(),
            program=self._bench.program,
        )
        self._record.append(SUPERVISOR, body)
        self._abandon("the supervisor ended during the trial")

    def _abandon(self, reason: str) -> None:
        """Close what is open: sessions, the trial under way, or the run of the baseline under way."""
        for session in list(self.campaign.sessions):
            self._record.append(SUPERVISOR, SessionEnded(session=session, outcome="error", detail=reason))
        best, trial = self.campaign.trials.get(self.campaign.champion or 0), self.campaign.open_trial
        if best is not None and best.in_run:
            # A run of the baseline or of a champion that defends itself; the next one repeats it.
            lost = FailureLabelled(label=FailureLabel.INFRA_ERROR, run=len(best.runs) - 1, detail=reason)
            self._record.append(SUPERVISOR, lost, trial=best.number)
        if trial is None or trial.number == 0:
            return
        lost_text = f"{len(trial.scores)} scores"
        if trial.in_run:
            lost_text += " and the run under way"
        self._record.append(SUPERVISOR, TrialAbandoned(reason=reason, lost=lost_text), trial=trial.number)

    def _stop(self, reason: str, detail: str, wall_s: float) -> None:
        self._abandon(detail)
        body = CampaignStopped.model_validate(
            {
                "reason": reason,
                "detail": detail,
                "trials": self.campaign.concluded,
                "champion": self.campaign.champion,
                "wall_s": wall_s,
            }
        )
        self._record.append(SUPERVISOR, body)

    # --- the loop ----------------------------------------------------------------------------------------

    def _loop(self, measurement: Measurement, rules: StopRules, began: float) -> tuple[str, str]:
        """Reason and detail of the stop."""
        if self.campaign.champion is None and (illegal := self._measure_baseline(measurement)):
            return "baseline_illegal", f"the starting recipe cannot be measured or breaks a gate: {illegal}"
        lost = 0
        while self.campaign.concluded < rules.trials:
            if rules.hours is not None and time.monotonic() - began > rules.hours * 3600:
                return "hours", f"{rules.hours:g} hours have passed"
            number = self._propose()
            if number is None:
                return "exhausted", "no specialist has anything left to try"
            try:
                self._try(measurement, number)
                lost = 0
            except MachineFailure as failure:
                lost += 1
                if lost == MAX_TRIALS_LOST:
                    raise
                self._abandon(str(failure))
        return "trials", f"{self.campaign.concluded} trials are concluded"

    def _measure_baseline(self, measurement: Measurement) -> str | None:
        """None where the starting recipe is measured and legal, else why not."""
        trial = self._record.trial(0)
        if trial.outcome is None:
            trial = measurement.measure(0)
            if trial.failure is None and (failure := gate_failure(self._contract, trial)):
                trial = self._record.fail(0, failure[0], failure[1], None)
            if trial.scores:
                self._record.append("evaluator:verdict", judge_baseline(self._contract, trial), trial=0)
        return f"{trial.failure.label}: {trial.failure.detail}" if trial.failure else None

    def _propose(self) -> int | None:
        """Let specialists speak until one submits; returns the new trial's number."""
        while True:
            self._views.catch_up()
            lineage = lineage_of(self._views, self.campaign.id)
            seed = self._record.draw("propose", len(self.campaign.trials), len(self._exhausted))
            specialist = choose_specialist(self._contract, lineage, seed, frozenset(self._exhausted))
            if specialist is None:
                return None
            number = self._session(specialist, lineage, seed)
            if number is not None:
                return number
            self._exhausted.add(specialist.name)

    def _session(self, specialist: Specialist, lineage: Lineage, seed: int) -> int | None:
        proposer = self._bench.proposer
        session = f"{self.campaign.id}/{self._bench.log.size}"
        view = render(lineage).encode()
        opening: tuple[Body, Body] = (
            SessionStarted(
                session=session,
                specialist=specialist.name,
                domain=specialist.domain,
                proposer=proposer.name,
                model=None,
            ),
            LineageViewed(session=session, as_of=lineage.as_of, view=digest_of(view), renderer=RENDERER),
        )
        self._record.append(SUPERVISOR, *opening, blobs=(view,))
        with self._interrupts.allowed():
            proposal = proposer.propose(Brief(self._contract, specialist, lineage, self._record.recipe, seed))
        if proposal is None:
            self._record.append(
                SUPERVISOR, SessionEnded(session=session, outcome="declined", detail="nothing left to try")
            )
            return None
        return self._submit(session, specialist, proposal)

    def _submit(self, session: str, specialist: Specialist, proposal: Proposal) -> int:
        """Hypothesis, diff and the end of the session in one transaction: a trial is never half submitted."""
        number = len(self.campaign.trials)
        parent = self._record.recipe(proposal.parent)
        patch = diff(parent, proposal.recipe).encode()
        hypothesis = HypothesisProposed(
            session=session,
            specialist=specialist.name,
            claimed_domain=specialist.domain,
            hypothesis=proposal.hypothesis,
            expected_delta=None if proposal.expected_delta is None else decimal(proposal.expected_delta),
            rationale=proposal.rationale,
            operator=proposal.operator,
            parent=proposal.parent,
        )
        paths = parent.files.keys() | proposal.recipe.files.keys()
        changed = [path for path in paths if parent.files.get(path) != proposal.recipe.files.get(path)]
        submitted = DiffSubmitted(
            parent=proposal.parent,
            parent_recipe=parent.digest,
            recipe=proposal.recipe.digest,
            diff=digest_of(patch),
            files=tuple(sorted(changed)),
            program=_program(proposal.recipe),
        )
        actor = f"specialist:{specialist.name}"
        ended = SessionEnded(session=session, outcome="submitted", detail=f"trial {number}")
        self._record.store(
            Draft(hypothesis, actor, self.campaign.id, number),
            Draft(submitted, actor, self.campaign.id, number, (patch, *proposal.recipe.blobs)),
            Draft(ended, SUPERVISOR, self.campaign.id),
        )
        return number

    def _try(self, measurement: Measurement, number: int) -> None:
        """Gate, run, measure and judge one submitted trial."""
        trial = self.campaign.trials[number]
        assert trial.proposal is not None
        recipe, parent = self._record.recipe(number), self._record.recipe(trial.proposal.parent)
        if self._bench.examine is not None:
            observed = self._bench.examine(trial.proposal, parent, recipe)
            self._record.append(f"{Role.AUDITOR}:{observed.classifier}", observed, trial=number)
        specialist = self._contract.specialist(trial.proposal.specialist)
        known = {program: first for program, first in self.campaign.programs.items() if first != number}
        known[_program(self._record.recipe(0))] = 0
        if rejection := gates.check(self._contract, specialist, parent, recipe, known):
            self._record.append(GATE, TrialRejected(label=rejection.label, detail=rejection.detail), trial=number)
        else:
            trial = measurement.measure(number)
            if trial.failure is None and (failure := gate_failure(self._contract, trial)):
                self._record.fail(number, failure[0], failure[1], None)
        verdict = judge(self._contract, self.campaign, self.campaign.trials[number])
        self._record.append("evaluator:verdict", verdict, trial=number)
        if verdict.verdict is Verdict.KEPT:
            # The new champion is another program: whoever had nothing left may have something again.
            self._exhausted.clear()


def check_instrument(campaign: Campaign, instrument: MeasuringProcess, key: Path) -> None:
    """Raises CampaignError where its scores would not be comparable with those of the campaign."""
    started = campaign.started
    assert started is not None
    for name, was in started.epoch:
        if (now := getattr(instrument.epoch, name)) != was:
            raise CampaignError(
                f"campaign {campaign.id}: its {name} digest was {was[:12]}, now it is {now[:12]}: scores "
                "would not be comparable; restore it, or start a new campaign with --new"
            )
    if str(SigningKey.load(key).verifier) != started.evaluator_key:
        raise CampaignError(
            f"campaign {campaign.id} was signed with another evaluator key than {key}; "
            "bring that key back, or start a new campaign with --new"
        )


def _program(recipe: Recipe) -> str:
    """Program digest; of the text where a file does not parse, which the syntax gate will say."""
    try:
        return recipe.program
    except (SyntaxError, ValueError, RecursionError):
        return recipe.digest
