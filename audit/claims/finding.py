"""One thing that a record shows and a reader of its headline should know."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from audit.claims.account import Told


class Weight(StrEnum):
    """How much the headline may depend on it."""

    SERIOUS = "serious"
    NOTABLE = "notable"
    MINOR = "minor"


@dataclass(frozen=True)
class Finding:
    """What the record shows, where, and what would settle it. It says nothing about what anybody intended."""

    check: str
    weight: Weight
    shows: str
    trials: tuple[int, ...]
    lines: tuple[int, ...]
    """Lines of the source, or events of the ledger, that it rests on."""
    settles: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "check": self.check,
            "weight": str(self.weight),
            "shows": self.shows,
            "trials": list(self.trials),
            "lines": list(self.lines),
            "settles": self.settles,
        }


@dataclass(frozen=True)
class Sign:
    """What a check hands back; the table of checks adds its name and what would settle it."""

    weight: Weight
    shows: str
    trials: tuple[Told, ...] = ()


def sign(weight: Weight, shows: str, trials: Iterable[Told] = ()) -> Sign:
    """A sign with its trials in order of number."""
    return Sign(weight, shows, tuple(sorted(trials, key=lambda trial: trial.number)))


def count(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
