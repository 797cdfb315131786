"""How the campaign was conducted: everything begun was ended, in one measurement epoch, and by whom."""

from typing import ClassVar

from audit.report import Check
from audit.trajectory import Case, Rule, Step, Trajectory
from ledger.events import (
    CampaignResumed,
    CampaignStopped,
    CorrectionRecorded,
    Epoch,
    HypothesisProposed,
    LineageViewed,
    ScoreRecorded,
    SessionEnded,
    SessionStarted,
)
from ledger.vocabulary import Role


class Closure(Rule):
    """An end that is missing: the grammar has no opinion, and a deleted one would change the story."""

    name: ClassVar[str] = "closure"
    proves: ClassVar[str] = "what was begun was ended: no session or trial is open where a campaign stops"

    def __init__(self, case: Case, check: Check) -> None:
        super().__init__(case, check)
        self._blind: set[tuple[str, str]] = set()
        """(campaign, session) that is open and was shown no lineage yet."""

    def see(self, step: Step) -> None:
        match step.trajectory, step.event.body:
            case Trajectory(broken_at=None) as trajectory, CampaignStopped():
                self._check.checked += 1
                for session in trajectory.state.sessions:
                    self._check.fault(step.place, f"session {session} was never ended, and the campaign stops")
                for number, trial in trajectory.state.trials.items():
                    # A baseline that was interrupted between two runs is taken up again.
                    if trial.in_run or (number and trial.is_open):
                        self._check.fault(step.place, f"trial {number} is {trial.phase}, and the campaign stops")
            case Trajectory() as trajectory, SessionStarted(session=session):
                self._blind.add((trajectory.state.id, session))
            case Trajectory() as trajectory, LineageViewed(session=session):
                self._blind.discard((trajectory.state.id, session))
            case Trajectory() as trajectory, HypothesisProposed(session=session):
                self._check.checked += 1
                if (trajectory.state.id, session) in self._blind:
                    self._check.missed("what the specialist saw before it proposed")
            case Trajectory() as trajectory, SessionEnded(session=session):
                self._blind.discard((trajectory.state.id, session))


class Epochs(Rule):
    """Scores are compared within one measurement epoch."""

    name: ClassVar[str] = "epochs"
    proves: ClassVar[str] = (
        "every score was taken with the task, evaluator, data and environment that the campaign was in"
    )

    def see(self, step: Step) -> None:
        known = step.trajectory.state.epoch if step.trajectory else None
        match step.event.body:
            case ScoreRecorded(epoch=epoch) if known is not None:
                self._check.checked += 1
                for name in _differing(known, epoch):
                    self._check.compare(step.place, f"{name} of the epoch", getattr(known, name), getattr(epoch, name))
            case CampaignResumed(epoch=epoch) if known is not None:
                self._check.checked += 1
                for name in _differing(known, epoch):
                    change = f"was {getattr(known, name)}, is {getattr(epoch, name)}"
                    self._check.note(step.place, f"the campaign goes on in another epoch: {name} {change}")


class Autonomy(Rule):
    """What people did and said, from the actors of events."""

    name: ClassVar[str] = "autonomy"
    proves: ClassVar[str] = "which events a person caused, and which were corrected later: as far as the writer told"

    def see(self, step: Step) -> None:
        self._check.checked += 1
        event = step.event
        if isinstance(event.body, CorrectionRecorded):
            body = event.body
            said = f"corrects event {body.target}: {body.reason}: {body.statement}"
            self._check.note(step.place, f"{event.actor} ({body.author}) {said}")
        elif event.actor.startswith(f"{Role.PERSON}:") and event.campaign is not None:
            self._check.note(step.place, f"{event.actor} caused a {event.type}")


def _differing(known: Epoch, other: Epoch) -> list[str]:
    return [name for name in Epoch.model_fields if getattr(known, name) != getattr(other, name)]
