"""How the campaign was conducted: in one measurement epoch, and by whom."""

from typing import ClassVar

from audit.report import Check
from audit.trajectory import Case, Step
from ledger.events import CampaignResumed, CorrectionRecorded, Epoch, ScoreRecorded
from ledger.vocabulary import Role


class Epochs:
    """Scores are compared within one measurement epoch."""

    name: ClassVar[str] = "epochs"
    proves: ClassVar[str] = (
        "every score was taken with the task, evaluator, data and environment that the campaign was in"
    )

    def __init__(self, case: Case, check: Check) -> None:
        self._check = check

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


class Autonomy:
    """What people did and said, from the actors of events."""

    name: ClassVar[str] = "autonomy"
    proves: ClassVar[str] = "which events a person caused, and which were corrected later: as far as the writer told"

    def __init__(self, case: Case, check: Check) -> None:
        self._check = check

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
