"""What a specialist is given and what it hands in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agents.lineage import Lineage
from evaluators.task import Contract, Specialist
from ledger.recipes import Recipe


@dataclass(frozen=True)
class Brief:
    """Everything that a specialist may base a proposal on."""

    contract: Contract
    specialist: Specialist
    lineage: Lineage
    recipe_of: Callable[[int], Recipe]
    """Recipe of an earlier trial of this campaign by its number."""
    seed: int
    """Draws whatever the proposer draws: the same brief gives the same proposal."""


@dataclass(frozen=True)
class Proposal:
    """One trial, as a specialist submits it."""

    parent: int
    recipe: Recipe
    hypothesis: str
    rationale: str
    expected_delta: float | None
    """Expected change of the metric against the parent, in the metric's unit, signed as the metric is."""
    operator: str | None


class Proposer(Protocol):
    """Turns a brief into a proposal; None where it has nothing left to try."""

    name: str

    def propose(self, brief: Brief) -> Proposal | None:
        """Never runs the recipe; raises nothing for what a recipe contains."""
        ...
