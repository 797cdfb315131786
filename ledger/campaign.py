"""The state of one campaign as a fold over its events, and the grammar that a legal trajectory keeps."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from ledger.events import (
    BaselineMeasured,
    CampaignResumed,
    CampaignStarted,
    CampaignStopped,
    CertificationRecorded,
    CorrectionRecorded,
    DiffSubmitted,
    DomainObserved,
    Epoch,
    Event,
    FailureLabelled,
    HypothesisProposed,
    LineageViewed,
    ModelCalled,
    ReplicateRequested,
    RunFinished,
    RunStarted,
    ScoreRecorded,
    SessionEnded,
    SessionStarted,
    TrialAbandoned,
    TrialRejected,
    VerdictReached,
)
from ledger.vocabulary import FailureLabel, Verdict


class GrammarError(ValueError):
    """An event stands where the grammar of a trajectory does not allow it."""


class Phase(StrEnum):
    """Where a trial stands."""

    NEW = "new"
    PROPOSED = "proposed"
    SUBMITTED = "submitted"
    REJECTED = "rejected"
    RUNNING = "running"
    FINISHED = "finished"
    BETWEEN_RUNS = "between runs"
    LABELLED = "labelled"
    JUDGED = "judged"
    ABANDONED = "abandoned"


_AFTER_THE_STOP = (CertificationRecorded, CorrectionRecorded, DomainObserved)
OPEN_PHASES = frozenset(Phase) - {Phase.NEW, Phase.JUDGED, Phase.ABANDONED}


@dataclass(frozen=True)
class Run:
    """One execution: started, then finished or lost, then scored or labelled."""

    started: RunStarted
    finished: RunFinished | None = None
    score: ScoreRecorded | None = None
    failure: FailureLabelled | None = None


@dataclass(frozen=True)
class Request:
    """A round of runs of a champion, in turn with its challenger."""

    challenger: int
    runs: int
    first: int
    """The first run of the round."""


@dataclass(frozen=True)
class Trial:
    """One trial as its events tell it."""

    number: int
    phase: Phase = Phase.NEW
    recipe: str | None = None
    proposal: HypothesisProposed | None = None
    diff: DiffSubmitted | None = None
    rejection: TrialRejected | None = None
    runs: tuple[Run, ...] = ()
    failure: FailureLabelled | None = None
    """The failure that decides the trial; those of retried runs stand in `runs`."""
    outcome: VerdictReached | BaselineMeasured | None = None
    certification: CertificationRecorded | None = None
    requests: tuple[Request, ...] = ()
    """Rounds in which it defended its place."""

    @property
    def verdict(self) -> Verdict | None:
        """None while it is open and where it was abandoned."""
        match self.outcome:
            case BaselineMeasured():
                return Verdict.BASELINE
            case VerdictReached(verdict=verdict):
                return verdict
        return None

    @property
    def scores(self) -> tuple[ScoreRecorded, ...]:
        """Scores of its runs in order."""
        return tuple(run.score for run in self.runs if run.score is not None)

    @property
    def is_open(self) -> bool:
        """Whether it has begun and nothing has ended it."""
        return self.phase in OPEN_PHASES and self.outcome is None

    @property
    def in_run(self) -> bool:
        """Whether a run of it has begun and is neither scored nor labelled."""
        return self.phase in (Phase.RUNNING, Phase.FINISHED)

    def defence(self, challenger: int) -> tuple[Run, ...] | None:
        """Its runs in the round against a challenger; None where there was no such round."""
        for index, request in enumerate(self.requests):
            if request.challenger == challenger:
                after = self.requests[index + 1 :]
                return self.runs[request.first : after[0].first if after else None]
        return None


def advance(trial: Trial, event: Event) -> Trial:
    """The trial after one more of its events. Raises GrammarError where the event may not come now."""
    body, phase = event.body, trial.phase
    match phase, body:
        case Phase.NEW, HypothesisProposed() if trial.number > 0:
            return replace(trial, phase=Phase.PROPOSED, proposal=body)
        case Phase.PROPOSED, DiffSubmitted():
            return replace(trial, phase=Phase.SUBMITTED, diff=body, recipe=body.recipe)
        case Phase.SUBMITTED, TrialRejected():
            return replace(trial, phase=Phase.REJECTED, rejection=body)
        case ((Phase.SUBMITTED | Phase.BETWEEN_RUNS), RunStarted()):
            return _started(trial, body)
        case Phase.NEW, RunStarted() if trial.number == 0:
            return _started(replace(trial, recipe=body.recipe), body)
        case Phase.RUNNING, RunFinished():
            return _in_run(trial, body.run, Phase.FINISHED, finished=body)
        case Phase.FINISHED, ScoreRecorded():
            if body.seed != trial.runs[-1].started.seed:
                raise GrammarError(f"score for seed {body.seed}, the run has seed {trial.runs[-1].started.seed}")
            return _in_run(trial, body.run, _rest(trial), score=body)
        case ((Phase.RUNNING | Phase.FINISHED), FailureLabelled(run=int(run))):
            if body.label is FailureLabel.INFRA_ERROR:
                return _in_run(trial, run, _rest(trial), failure=body)
            if phase is Phase.FINISHED and trial.outcome is not None:
                return _in_run(trial, run, Phase.JUDGED, failure=body)
            if phase is Phase.FINISHED:
                return replace(_in_run(trial, run, Phase.LABELLED, failure=body), failure=body)
        case Phase.BETWEEN_RUNS, FailureLabelled():
            return replace(trial, phase=Phase.LABELLED, failure=body)
        case ((Phase.BETWEEN_RUNS | Phase.LABELLED), BaselineMeasured()) if trial.number == 0:
            return replace(trial, phase=Phase.JUDGED, outcome=body)
        case ((Phase.REJECTED | Phase.BETWEEN_RUNS | Phase.LABELLED), VerdictReached()) if trial.number > 0:
            return replace(trial, phase=Phase.JUDGED, outcome=body)
        case _, TrialAbandoned() if trial.is_open and trial.number > 0:
            return replace(trial, phase=Phase.ABANDONED)
        case Phase.JUDGED, ReplicateRequested():
            return replace(trial, requests=(*trial.requests, Request(body.challenger, body.runs, len(trial.runs))))
        case Phase.JUDGED, RunStarted() if trial.requests:
            return _started(trial, body)
        case Phase.JUDGED, CertificationRecorded() if trial.certification is None:
            return replace(trial, certification=body)
        case _, DomainObserved() if trial.diff is not None:
            if (body.parent_recipe, body.recipe) != (trial.diff.parent_recipe, trial.diff.recipe):
                raise GrammarError(f"{event.type} compares other recipes than trial {trial.number} has")
            return trial
    raise GrammarError(f"{event.type} may not come while trial {trial.number} is {phase}")


def _rest(trial: Trial) -> Phase:
    """Where a trial stands after a run: one that is judged stays so."""
    return Phase.BETWEEN_RUNS if trial.outcome is None else Phase.JUDGED


def _started(trial: Trial, body: RunStarted) -> Trial:
    if body.run != len(trial.runs):
        raise GrammarError(f"expected run {len(trial.runs)} of trial {trial.number}, found run {body.run}")
    if body.recipe != trial.recipe:
        raise GrammarError(f"run {body.run} executes recipe {body.recipe}, the trial has {trial.recipe}")
    return replace(trial, phase=Phase.RUNNING, runs=(*trial.runs, Run(body)))


def _in_run(trial: Trial, run: int, phase: Phase, **facts: RunFinished | ScoreRecorded | FailureLabelled) -> Trial:
    if run != len(trial.runs) - 1:
        raise GrammarError(f"expected run {len(trial.runs) - 1} of trial {trial.number}, found run {run}")
    return replace(trial, phase=phase, runs=(*trial.runs[:-1], replace(trial.runs[-1], **facts)))  # type: ignore[arg-type]


@dataclass
class Campaign:
    """The fold: feed it every event of one campaign in order. Replay is the live path."""

    id: str
    started: CampaignStarted | None = None
    stopped: CampaignStopped | None = None
    epoch: Epoch | None = None
    champion: int | None = None
    trials: dict[int, Trial] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    """Open sessions -> specialist."""
    programs: dict[str, int] = field(default_factory=dict)
    """Program digest -> the trial that first submitted it and was not abandoned."""
    last_seq: int | None = None

    @classmethod
    def replay(cls, id: str, events: Iterable[Event]) -> "Campaign":
        """The state after `events`, all of this campaign."""
        campaign = cls(id)
        for event in events:
            campaign.apply(event)
        return campaign

    def apply(self, event: Event) -> None:
        """Take one more event. Raises GrammarError, and stays as it was, where it may not come now."""
        if event.campaign != self.id:
            raise GrammarError(f"event of campaign {event.campaign!r} in the trajectory of {self.id!r}")
        if self.started is None and not isinstance(event.body, CampaignStarted):
            raise GrammarError(f"{event.type} before campaign_started")
        if event.trial is None:
            self._apply_campaign_event(event)
        else:
            self._apply_trial_event(event, event.trial)
        self.last_seq = event.seq

    def _apply_campaign_event(self, event: Event) -> None:
        match event.body:
            case CampaignStarted() as body if self.started is None:
                self.started, self.epoch = body, body.epoch
            case CampaignResumed() as body:
                self.stopped, self.epoch = None, body.epoch
            case CampaignStopped() as body if self.stopped is None:
                self.stopped = body
            case SessionStarted() as body if self.stopped is None and body.session not in self.sessions:
                self.sessions[body.session] = body.specialist
            case LineageViewed() | ModelCalled() as body if body.session in self.sessions:
                if isinstance(body, LineageViewed) and body.as_of >= event.seq:
                    raise GrammarError(f"lineage_viewed as of event {body.as_of}, which is not in its past")
            case SessionEnded() as body if body.session in self.sessions:
                del self.sessions[body.session]
            case CorrectionRecorded() as body if body.target < event.seq:
                pass
            case _:
                raise GrammarError(f"{event.type} may not come now in campaign {self.id}")

    def _apply_trial_event(self, event: Event, number: int) -> None:
        if self.stopped is not None and not isinstance(event.body, _AFTER_THE_STOP):
            raise GrammarError(f"{event.type} after campaign_stopped")
        if isinstance(event.body, CorrectionRecorded):
            return
        if number > len(self.trials):
            raise GrammarError(f"expected a trial up to {len(self.trials)}, found trial {number}")
        trial = advance(self.trials.get(number, Trial(number)), event)
        match event.body:
            case HypothesisProposed() as body:
                self._check_parent(body.parent)
                if self.sessions.get(body.session) != body.specialist:
                    raise GrammarError(
                        f"trial {number} by {body.specialist} comes from no open session of that specialist"
                    )
            case DiffSubmitted() as body:
                self._check_diff(trial, body)
            case RunStarted() as body if number == 0 and self.started and body.recipe != self.started.recipe:
                raise GrammarError("the baseline runs another recipe than the campaign started with")
            case RunStarted() if trial.requests and trial.outcome is not None:
                self._check_round(trial)
            case ReplicateRequested() as body:
                self._check_request(number, trial, body)
            case CertificationRecorded() as body if number != self.champion or body.recipe != trial.recipe:
                raise GrammarError(f"certification of trial {number}, the champion is {self.champion}")
            case ScoreRecorded() as body:
                self._check_score(trial, body)
            case VerdictReached() as body if body.champion != self.champion:
                raise GrammarError(f"judged against champion {body.champion}, the champion is {self.champion}")
        self.trials[number] = trial
        self._note(number, event)

    def _note(self, number: int, event: Event) -> None:
        match event.body:
            case DiffSubmitted(program=program):
                self.programs.setdefault(program, number)
            case TrialAbandoned():
                # Nothing was learnt of its program: it may be proposed again.
                self.programs = {program: first for program, first in self.programs.items() if first != number}
            case BaselineMeasured(legal=True):
                self.champion = 0
            case VerdictReached(verdict=Verdict.KEPT):
                self.champion = number

    def _check_parent(self, parent: int) -> None:
        found = self.trials.get(parent)
        if (
            found is None
            or not found.scores
            or found.verdict not in (Verdict.BASELINE, Verdict.KEPT, Verdict.DISCARDED)
        ):
            raise GrammarError(f"parent {parent} is not a measured trial of this campaign")

    def _check_diff(self, trial: Trial, body: DiffSubmitted) -> None:
        if trial.proposal is None or trial.proposal.parent != body.parent:
            raise GrammarError(f"the diff starts from trial {body.parent}, the hypothesis from another parent")
        parent = self.trials[body.parent]
        if body.parent_recipe != parent.recipe:
            raise GrammarError(
                f"the diff starts from recipe {body.parent_recipe}, parent {body.parent} has {parent.recipe}"
            )

    def _check_request(self, number: int, trial: Trial, body: ReplicateRequested) -> None:
        challenger = self.trials.get(body.challenger)
        if number != self.champion:
            raise GrammarError(f"replicates of trial {number}, the champion is {self.champion}")
        if challenger is None or challenger.phase is not Phase.BETWEEN_RUNS:
            raise GrammarError(f"challenger {body.challenger} is not a trial between its runs")
        if any(request.challenger == body.challenger for request in trial.requests[:-1]):
            raise GrammarError(f"trial {body.challenger} challenges trial {number} a second time")

    def _check_round(self, trial: Trial) -> None:
        challenger = self.trials[trial.requests[-1].challenger]
        if not challenger.is_open or challenger.in_run:
            raise GrammarError(
                f"trial {trial.number} runs again while its challenger {challenger.number} does not wait"
            )

    def _check_score(self, trial: Trial, body: ScoreRecorded) -> None:
        finished = trial.runs[-1].finished
        if body.recipe != trial.recipe or finished is None or body.artifact != finished.artifact:
            raise GrammarError("the score speaks of another recipe or artifact than the run")
        if body.epoch != self.epoch:
            raise GrammarError("the score was taken in another measurement epoch than the campaign is in")

    @property
    def open_trial(self) -> Trial | None:
        """The trial that is under way, if any."""
        return next((trial for trial in reversed(self.trials.values()) if trial.is_open), None)

    @property
    def concluded(self) -> int:
        """Trials with a verdict, the baseline not counted."""
        return sum(1 for trial in self.trials.values() if trial.number and trial.outcome is not None)
