"""The loop: propose -> gate -> run -> measure -> verdict -> append; resumable, with stop rules."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from agents.interrupts import Interrupts
from agents.lineage import RENDERER, Lineage, lineage_of, render
from agents.proposal import Brief, Proposal, Proposer
from agents.search import choose_specialist
from evaluators import gates
from evaluators.labels import label_of, score_facts
from evaluators.measure import MeasurementError, MeasuringProcess, RunClaim, environment
from evaluators.task import Specialist, Task, Violation
from evaluators.verdict import gate_failure, judge, judge_baseline
from ledger.campaign import Campaign, GrammarError, Phase, Trial
from ledger.events import (
    Body,
    CampaignResumed,
    CampaignStarted,
    CampaignStopped,
    DiffSubmitted,
    Draft,
    Event,
    FailureLabelled,
    HypothesisProposed,
    LineageViewed,
    RunFinished,
    RunStarted,
    SessionEnded,
    SessionStarted,
    TrialAbandoned,
    TrialRejected,
    decimal,
)
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.recipes import Recipe, diff, digest_of, listing
from ledger.views import Views
from ledger.vocabulary import FailureLabel
from runners.protocol import InfrastructureError, Runner, RunResult, RunSpec
from runners.workspace import remove

MAX_ATTEMPTS = 3
"""Runs of one seed that may fail for reasons of the machine before the trial is given up."""
MAX_TRIALS_LOST = 2
"""Trials in a row that may be given up so: one may be a recipe that attacks the runner, more are the machine."""
SUPERVISOR = "supervisor:labtrail"
GATE = "gate:legality"

Observer = Callable[[Event, Campaign], None]
"""Told of every event after it is in the log and in the state."""


class CampaignError(Exception):
    """The campaign cannot start or go on; the message says why and what to do."""


class MachineFailure(CampaignError):
    """A trial could not be measured for reasons of the machine."""


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


class Supervisor:
    """Drives one campaign. Everything it knows is the fold of the log, so that it can die at any time."""

    def __init__(self, bench: Bench, campaign: str, search_seed: int, observe: Observer) -> None:
        self._bench = bench
        self._contract = bench.task.contract
        self._observe = observe
        self._search_seed = search_seed
        self._exhausted: set[str] = set()
        self._recipes: dict[int, Recipe] = {}
        self._views = Views(bench.log, threads=1)
        self._interrupts = Interrupts()
        self.campaign = Campaign.replay(campaign, bench.log.events(campaign=campaign))

    def run(self, rules: StopRules) -> Campaign:
        """Start or resume the campaign and go on until a stop rule holds.

        Ctrl-C ends the trial under way as abandoned and stops the campaign; calling `run` again resumes it.
        Raises CampaignError where it may not start, and where the machine fails MAX_ATTEMPTS times in a row.
        """
        work = self._bench.work
        remove(work)
        public, hidden = work / "public", work / "hidden"
        for folder in (public, hidden):
            folder.mkdir(parents=True, mode=0o700)
        task, key = self._bench.task, self._bench.key
        try:
            with self._interrupts, MeasuringProcess(task, public, hidden, key, work / "measure.log") as instrument:
                self._begin(instrument)
                self._go(instrument, rules)
        except (MeasurementError, InfrastructureError) as error:
            raise CampaignError(f"{error}; mend it and run the same command again to go on") from error
        finally:
            remove(work)
        return self.campaign

    def _go(self, instrument: MeasuringProcess, rules: StopRules) -> None:
        """The loop, and the event that says why it ended."""
        began = time.monotonic()
        reason, detail = "error", "the supervisor failed"
        try:
            reason, detail = self._loop(instrument, rules, began)
        except KeyboardInterrupt:
            reason, detail = "interrupted", "the supervisor was told to stop"
        except (CampaignError, MeasurementError, InfrastructureError) as error:
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
        self._append(SUPERVISOR, body, blobs=(self._contract.blob, *recipe.blobs))

    def _resume(self, instrument: MeasuringProcess) -> None:
        started = self.campaign.started
        assert started is not None
        for name, was in started.epoch:
            if (now := getattr(instrument.epoch, name)) != was:
                raise CampaignError(
                    f"campaign {self.campaign.id}: its {name} digest was {was[:12]}, now it is {now[:12]}: scores "
                    "would not be comparable; restore it, or start a new campaign with --new"
                )
        key = SigningKey.load(self._bench.key)
        if str(key.verifier) != started.evaluator_key:
            raise CampaignError(
                f"campaign {self.campaign.id} was signed with another evaluator key than {self._bench.key}; "
                "bring that key back, or start a new campaign with --new"
            )
        self._search_seed = started.search_seed
        body = CampaignResumed(
            epoch=instrument.epoch,
            isolation=self._bench.runner.isolation,
            environment=environment(),
            program=self._bench.program,
        )
        self._append(SUPERVISOR, body)
        self._abandon("the supervisor ended during the trial")

    def _abandon(self, reason: str) -> None:
        """Close what is open: sessions, the trial under way, or the run of the baseline under way."""
        for session in list(self.campaign.sessions):
            self._append(SUPERVISOR, SessionEnded(session=session, outcome="error", detail=reason))
        trial = self.campaign.open_trial
        if trial is None:
            return
        if trial.number == 0:
            if trial.phase in (Phase.RUNNING, Phase.FINISHED):
                lost = FailureLabelled(label=FailureLabel.INFRA_ERROR, run=len(trial.runs) - 1, detail=reason)
                self._append(SUPERVISOR, lost, trial=0)
            return
        scored = len(trial.scores)
        lost_text = f"{len(trial.runs) - scored} run under way and {scored} of {self._contract.seeds.trial} scores"
        self._append(SUPERVISOR, TrialAbandoned(reason=reason, lost=lost_text), trial=trial.number)

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
        self._append(SUPERVISOR, body)

    # --- the loop ----------------------------------------------------------------------------------------

    def _loop(self, instrument: MeasuringProcess, rules: StopRules, began: float) -> tuple[str, str]:
        """Reason and detail of the stop."""
        if self.campaign.champion is None and not self._measure_baseline(instrument):
            return "baseline_illegal", "the starting recipe does not clear the task's gates"
        lost = 0
        while self.campaign.concluded < rules.trials:
            if rules.hours is not None and time.monotonic() - began > rules.hours * 3600:
                return "hours", f"{rules.hours:g} hours have passed"
            number = self._propose()
            if number is None:
                return "exhausted", "no specialist has anything left to try"
            try:
                self._try(instrument, number)
                lost = 0
            except MachineFailure as failure:
                lost += 1
                if lost == MAX_TRIALS_LOST:
                    raise
                self._abandon(str(failure))
        return "trials", f"{self.campaign.concluded} trials are concluded"

    def _measure_baseline(self, instrument: MeasuringProcess) -> bool:
        if self._trial(0).outcome is not None:
            return False
        recipe = self._bench.task.recipe()
        trial = self._measure(instrument, 0, recipe, self._contract.seeds.baseline)
        if trial.failure is None and (failure := gate_failure(self._contract, trial)):
            trial = self._fail(0, failure[0], failure[1], None)
        if not trial.scores:
            return False
        body = judge_baseline(self._contract, trial)
        self._append("evaluator:verdict", body, trial=0)
        return body.legal and trial.failure is None

    def _propose(self) -> int | None:
        """Let specialists speak until one submits; returns the new trial's number."""
        while True:
            self._views.catch_up()
            lineage = lineage_of(self._views, self.campaign.id)
            seed = self._draw("propose", len(self.campaign.trials), len(self._exhausted))
            specialist = choose_specialist(self._contract, lineage, seed, frozenset(self._exhausted))
            if specialist is None:
                return None
            number = self._session(specialist, lineage, seed)
            if number is not None:
                self._exhausted.clear()
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
        self._append(SUPERVISOR, *opening, blobs=(view,))
        with self._interrupts.allowed():
            proposal = proposer.propose(Brief(self._contract, specialist, lineage, self._recipe, seed))
        if proposal is None:
            self._append(SUPERVISOR, SessionEnded(session=session, outcome="declined", detail="nothing left to try"))
            return None
        return self._submit(session, specialist, proposal)

    def _submit(self, session: str, specialist: Specialist, proposal: Proposal) -> int:
        """Hypothesis, diff and the end of the session in one transaction: a trial is never half submitted."""
        number = len(self.campaign.trials)
        parent = self._recipe(proposal.parent)
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
        changed = [path for path, text in proposal.recipe.files.items() if parent.files.get(path) != text]
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
        self._store(
            Draft(hypothesis, actor, self.campaign.id, number),
            Draft(submitted, actor, self.campaign.id, number, (patch, *proposal.recipe.blobs)),
            Draft(ended, SUPERVISOR, self.campaign.id),
        )
        self._recipes[number] = proposal.recipe
        return number

    def _try(self, instrument: MeasuringProcess, number: int) -> None:
        """Gate, run, measure and judge one submitted trial."""
        trial = self.campaign.trials[number]
        assert trial.proposal is not None
        recipe, parent = self._recipe(number), self._recipe(trial.proposal.parent)
        specialist = self._contract.specialist(trial.proposal.specialist)
        known = {program: first for program, first in self.campaign.programs.items() if first != number}
        known[_program(self._recipe(0))] = 0
        if rejection := gates.check(self._contract, specialist, parent, recipe, known):
            self._append(GATE, TrialRejected(label=rejection.label, detail=rejection.detail), trial=number)
        else:
            trial = self._measure(instrument, number, recipe, self._contract.seeds.trial)
            if trial.failure is None and (failure := gate_failure(self._contract, trial)):
                self._fail(number, failure[0], failure[1], None)
        verdict = judge(self._contract, self.campaign, self.campaign.trials[number])
        self._append("evaluator:verdict", verdict, trial=number)

    # --- one run -----------------------------------------------------------------------------------------

    def _measure(self, instrument: MeasuringProcess, number: int, recipe: Recipe, runs: int) -> Trial:
        """Run seeds until `runs` scores are there or a run fails for a reason of the recipe."""
        attempts = 0
        while (trial := self._trial(number)).failure is None and len(trial.scores) < runs:
            done = len(trial.scores)
            if self._run(instrument, number, recipe, self._draw("seed", number, done), attempts):
                attempts = 0
                continue
            attempts += 1
            if attempts == MAX_ATTEMPTS:
                last = self._trial(number).runs[-1].failure
                detail = last.detail if last else "unknown"
                raise MachineFailure(f"trial {number}: {MAX_ATTEMPTS} runs failed for reasons of the machine: {detail}")
        return trial

    def _run(self, instrument: MeasuringProcess, number: int, recipe: Recipe, seed: int, attempt: int) -> bool:
        """One run; False where the machine failed and the seed should be tried again."""
        run = len(self._trial(number).runs)
        runner = self._bench.runner
        started = RunStarted(
            run=run, seed=seed, attempt=attempt, recipe=recipe.digest, runner=runner.name, isolation=runner.isolation
        )
        self._append(f"runner:{runner.name}", started, trial=number)
        folder = self._bench.work / f"trial-{number}-run-{run}"
        folder.mkdir()
        try:
            nonce, challenges = instrument.challenges()
            spec = RunSpec(recipe, self._contract, seed, self._bench.work / "public", challenges)
            with self._interrupts.allowed():
                result = runner.run(spec, folder)
            finished = self._record(number, run, result)
            if shown := label_of(self._contract, finished):
                self._fail(number, shown[0], shown[1], run)
                return shown[0] is not FailureLabel.INFRA_ERROR
            self._score(instrument, number, run, recipe, seed, nonce, finished, result)
        except (InfrastructureError, MeasurementError) as error:
            self._fail(number, FailureLabel.INFRA_ERROR, str(error), run)
            return False
        finally:
            remove(folder)
        return True

    def _record(self, number: int, run: int, result: RunResult) -> RunFinished:
        artifact = None if result.artifact is None else digest_of(listing(result.artifact))
        finished = RunFinished(
            run=run,
            train=result.train,
            predict=result.predict,
            artifact=artifact,
            artifact_bytes=result.artifact_bytes,
            log=digest_of(result.log),
            load_1m=result.load_1m,
        )
        self._append(f"runner:{self._bench.runner.name}", finished, trial=number, blobs=(result.log,))
        return finished

    def _score(
        self,
        instrument: MeasuringProcess,
        number: int,
        run: int,
        recipe: Recipe,
        seed: int,
        nonce: int,
        finished: RunFinished,
        result: RunResult,
    ) -> None:
        assert finished.artifact is not None
        claim = RunClaim(
            campaign=self.campaign.id,
            trial=number,
            run=run,
            seed=seed,
            nonce=nonce,
            recipe=recipe.digest,
            artifact=finished.artifact,
            facts=score_facts(finished, recipe.size_bytes),
            answers=tuple(str(path) for path in result.answers),
        )
        try:
            score = instrument.score(claim)
        except Violation as violation:
            self._fail(number, violation.label, violation.detail, run)
            return
        self._append(f"evaluator:{self._contract.name}", score, trial=number)

    def _fail(self, number: int, label: FailureLabel, detail: str, run: int | None) -> Trial:
        self._append("evaluator:labels", FailureLabelled(label=label, run=run, detail=detail), trial=number)
        return self._trial(number)

    # --- state -------------------------------------------------------------------------------------------

    def _trial(self, number: int) -> Trial:
        return self.campaign.trials.get(number, Trial(number))

    def _recipe(self, number: int) -> Recipe:
        """Recipe of a trial, from its blobs."""
        if number not in self._recipes:
            assert self.campaign.started is not None
            recipe = self._trial(number).recipe or self.campaign.started.recipe
            self._recipes[number] = Recipe.load(recipe, self._bench.log.blob)
        return self._recipes[number]

    def _draw(self, *parts: object) -> int:
        """A number that depends on the campaign and the parts alone: resuming draws the same ones."""
        text = ":".join(str(part) for part in (self.campaign.id, self._search_seed, *parts))
        return int.from_bytes(sha256(text.encode()).digest()[:4])

    def _append(self, actor: str, *bodies: Body, trial: int | None = None, blobs: tuple[bytes, ...] = ()) -> None:
        drafts = [Draft(body, actor, self.campaign.id, trial) for body in bodies]
        if blobs:
            drafts[-1] = Draft(bodies[-1], actor, self.campaign.id, trial, blobs)
        self._store(*drafts)

    def _store(self, *drafts: Draft) -> None:
        for event in self._bench.log.append(drafts, expect=self._bench.log.size):
            try:
                self.campaign.apply(event)
            except GrammarError as error:
                raise AssertionError(f"the supervisor broke the grammar with event {event.seq}") from error
            self._observe(event, self.campaign)


def _program(recipe: Recipe) -> str:
    """Program digest; of the text where a file does not parse, which the syntax gate will say."""
    try:
        return recipe.program
    except (SyntaxError, ValueError, RecursionError):
        return recipe.digest
