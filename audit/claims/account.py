"""One campaign as its record tells it, in one form whether it ran here or was imported."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from ledger.campaign import Campaign, GrammarError, Trial
from ledger.events import (
    Event,
    HypothesisProposed,
    ImportedTrial,
    LineageViewed,
    ModelCalled,
    RecordImported,
    RunFinished,
)
from ledger.imported import Limit
from ledger.log import EventLog
from ledger.vocabulary import Evidence, FailureLabel, Verdict


@dataclass(frozen=True)
class Told:
    """One trial of an account. Numbers are as written, whoever measured them."""

    number: int
    key: str
    """Its id in the source."""
    line: int | None
    """Line of the source, or the event that proposed it."""
    parent: int | None
    parent_written: str
    specialist: str | None
    domain: str | None
    hypothesis: str
    notes: str
    expected_delta: float | None
    verdict: Verdict | None
    label: FailureLabel | None
    score: float | None
    std: float | None
    n: int | None
    delta_written: float | None
    metrics: Mapping[str, float]
    at: datetime | None
    evidence: frozenset[Evidence]
    program: str | None = None
    repaired: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    differs: tuple[str, ...] = ()

    @property
    def stands(self) -> bool:
        """Whether it may be the best: the baseline, or kept, with a score."""
        return self.verdict in (Verdict.BASELINE, Verdict.KEPT) and self.score is not None


@dataclass
class Account:
    """All that a ledger tells of one campaign."""

    campaign: str
    origin: str
    """`native`, or the format it was imported from."""
    task: str = ""
    metric: str = ""
    unit: str = ""
    direction: Literal["minimize", "maximize"] = "minimize"
    limits: Mapping[str, Limit] = field(default_factory=dict)
    trials: list[Told] = field(default_factory=list)
    """In order of their number."""

    def better_by(self, score: float, than: float) -> float:
        """Improvement in the metric's unit; positive is better."""
        return than - score if self.direction == "minimize" else score - than

    @cached_property
    def by_number(self) -> dict[int, Told]:
        """Trials by number."""
        return {trial.number: trial for trial in self.trials}

    @cached_property
    def baseline(self) -> Told | None:
        """The trial that the others are measured against."""
        return next((trial for trial in self.trials if trial.verdict is Verdict.BASELINE), None)

    @cached_property
    def champion(self) -> Told | None:
        """The best of the trials that were kept, calculated from their scores; the first of equals."""
        best: Told | None = None
        for trial in self.trials:
            if trial.stands and (best is None or self.better_by(trial.score or 0.0, best.score or 0.0) > 0):
                best = trial
        return best

    @cached_property
    def path(self) -> frozenset[int]:
        """The champion and its ancestors, as far as parents are recorded."""
        found: set[int] = set()
        trial = self.champion
        while trial is not None and trial.number not in found:
            found.add(trial.number)
            trial = None if trial.parent is None else self.by_number.get(trial.parent)
        return frozenset(found)


def accounts_of(log: EventLog) -> list[Account]:
    """The accounts of every campaign of a ledger, in order of their first event. Raises EventError and LedgerError."""
    native: dict[str, list[Event]] = {}
    imported: dict[str, Account] = {}
    order: dict[str, None] = {}
    for event in log.events():
        if event.campaign is None:
            continue
        order.setdefault(event.campaign)
        if isinstance(event.body, RecordImported):
            _take(imported.setdefault(event.campaign, Account(event.campaign, event.body.format)), event, event.body)
        else:
            native.setdefault(event.campaign, []).append(event)
    for account in imported.values():
        account.trials.sort(key=lambda trial: trial.number)
    return [imported[name] if name in imported else _native(name, native[name]) for name in order]


def _take(account: Account, event: Event, body: RecordImported) -> None:
    if body.about is not None:
        task = body.about
        account.task, account.metric, account.unit = task.name, task.metric, task.unit
        account.direction, account.limits = task.direction, task.limits
    if body.told is not None and event.trial is not None:
        account.trials.append(_imported(event.trial, body.line, body.told))


def _imported(number: int, line: int, trial: ImportedTrial) -> Told:
    return Told(
        number=number,
        key=trial.key,
        line=line,
        parent=trial.parent,
        parent_written=trial.parent_written,
        specialist=trial.specialist,
        domain=trial.claimed_domain,
        hypothesis=trial.hypothesis,
        notes=trial.notes,
        expected_delta=_float(trial.expected_delta),
        verdict=trial.verdict,
        label=trial.label,
        score=_float(trial.score),
        std=_float(trial.score_std),
        n=trial.score_n,
        delta_written=_float(trial.delta_written),
        metrics={name: float(value) for name, value in trial.metrics.items()},
        at=_time(trial.at),
        evidence=frozenset(trial.evidence),
        repaired=trial.repaired,
        unknown=trial.unknown,
        differs=trial.differs,
    )


def _float(text: str | None) -> float | None:
    return None if text is None else float(text)


def _time(text: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)


def _native(name: str, events: list[Event]) -> Account:
    """The account of a campaign that ran here, up to a first event that its grammar does not allow."""
    campaign, proposed, seen, called = Campaign(name), {}, set(), set()
    seconds: dict[int, float] = {}
    for event in events:
        try:
            campaign.apply(event)
        except GrammarError:
            break  # `audit verify` says so; what stands before it is told
        match event.body:
            case HypothesisProposed():
                proposed[event.trial or 0] = event
            case LineageViewed(session=session):
                seen.add(session)
            case ModelCalled(session=session):
                called.add(session)
            case RunFinished() as body:
                seconds[event.trial or 0] = seconds.get(event.trial or 0, 0.0) + body.train.wall_s
    account = Account(name, "native")
    if campaign.started is not None:
        started = campaign.started
        account.task, account.metric, account.unit = started.task, started.metric, started.unit
        account.direction = started.direction
    for number, trial in sorted(campaign.trials.items()):
        account.trials.append(_ran(number, trial, account.metric, proposed.get(number), seen, seconds))
    return account


def _ran(
    number: int, trial: Trial, metric: str, proposed: Event | None, seen: set[str], seconds: Mapping[int, float]
) -> Told:
    proposal, outcome = trial.proposal, trial.outcome
    score = None if outcome is None else outcome.score
    scores = [float(one.metrics[metric]) for one in trial.scores if metric in one.metrics]
    label = next((found.label for found in (trial.failure, trial.rejection) if found is not None), None)
    label = getattr(outcome, "label", None) or label
    has = {
        Evidence.HYPOTHESIS: proposal is not None or number == 0,
        Evidence.EXPECTATION: proposal is not None and proposal.expected_delta is not None,
        Evidence.PARENT: proposal is not None or number == 0,
        Evidence.TIME: True,
        Evidence.SCORE: score is not None or label is not None,
        Evidence.SPREAD: score is not None and score.n > 1,
        Evidence.SEEDS: bool(scores),
        Evidence.CODE: trial.recipe is not None,
        Evidence.LOG: any(run.finished is not None for run in trial.runs),
        Evidence.CONTEXT: proposal is not None and proposal.session in seen,
        Evidence.COST: number in seconds,
        Evidence.INSTRUMENT: bool(trial.scores),
        Evidence.SIGNATURE: bool(trial.scores),
    }
    return Told(
        number=number,
        key=str(number),
        line=None if proposed is None else proposed.seq,
        parent=None if proposal is None else proposal.parent,
        parent_written="" if proposal is None else str(proposal.parent),
        specialist=None if proposal is None else proposal.specialist,
        domain=None if proposal is None else str(proposal.claimed_domain),
        hypothesis="" if proposal is None else proposal.hypothesis,
        notes="" if proposal is None else proposal.rationale,
        expected_delta=None if proposal is None else _float(proposal.expected_delta),
        verdict=trial.verdict,
        label=label,
        score=None if score is None else float(score.mean),
        std=None if score is None or score.n < 2 else float(score.std),
        n=None if score is None else score.n,
        delta_written=None,
        metrics={"seconds": seconds[number]} if number in seconds else {},
        at=None if proposed is None else _time(proposed.recorded_at),
        evidence=frozenset(kind for kind, there in has.items() if there),
        program=None if trial.diff is None else trial.diff.program,
    )
