"""Observations of what edits changed, made again from the rebuilt recipes."""

from typing import ClassVar

from audit.domains import observation_of
from audit.domains.observation import CLASSIFIER, actor_of
from audit.trajectory import Rule, Step, Trajectory
from ledger.events import DomainObserved
from ledger.texts import Withheld

CALCULATED = ("observed_domain", "shares", "kind", "strict_arch", "undeclared", "evidence")


class Observations(Rule):
    """What is said to be observed is what the same rules see in the same code."""

    name: ClassVar[str] = "observations"
    proves: ClassVar[str] = "every observation of what an edit changed is what the rules of its name see in the recipes"

    def see(self, step: Step) -> None:
        match step.trajectory, step.event.body:
            case Trajectory() as trajectory, DomainObserved() as body:
                self._check.checked += 1
                self._check.compare(step.place, "actor", actor_of(body), step.event.actor)
                if body.method == "code":
                    self._check_code(step, trajectory, body)
                elif body.recipe is not None or body.parent_recipe is not None:
                    self._check.fault(step.place, f"observed by {body.method}, and yet it names recipes")

    def _check_code(self, step: Step, trajectory: Trajectory, body: DomainObserved) -> None:
        proposal, number = step.trial.proposal, step.event.trial or 0
        recipe = trajectory.recipes.get(self._file, number)
        parent = trajectory.recipes.get(self._file, proposal.parent) if proposal else None
        if proposal is None or recipe is None or parent is None:
            self._check.missed("observations of recipes that could not be rebuilt")
            return
        if body.classifier != CLASSIFIER:
            self._check.note(step.place, f"observed by {body.classifier}, these rules are {CLASSIFIER}: not made again")
            return
        ours = observation_of(proposal, parent, recipe)
        errors = self._check.errors
        for field in CALCULATED:
            if field == "undeclared" and Withheld in (type(proposal.hypothesis), type(proposal.rationale)):
                self._check.missed("whether words that are withheld declare the changes")
            elif not isinstance(getattr(body, field), Withheld):
                self._check.compare(step.place, field, getattr(ours, field), getattr(body, field))
        self._check.confirmed += errors == self._check.errors
