"""What a comparison of two recipe versions says: changes, their surfaces and kinds, the whole edit in one value."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ledger.vocabulary import Domain


class Kind(StrEnum):
    """How deep a change goes, weakest first."""

    SCALAR = "scalar"
    DIMENSIONAL = "dimensional"
    STRUCTURAL = "structural"


KIND_WEIGHT = {Kind.SCALAR: 1.0, Kind.DIMENSIONAL: 1.5, Kind.STRUCTURAL: 3.0}

# Weight of consequence: what the program computes comes before how it is trained, and that before how fast it runs.
CONSEQUENCE = {
    Domain.ARCH: 1.5,
    Domain.LOSS: 1.4,
    Domain.QUANT: 1.3,
    Domain.DATA: 1.25,
    Domain.OPT: 1.2,
    Domain.SCHED: 1.15,
    Domain.REG: 1.1,
    Domain.EVAL: 1.2,
    Domain.SYS: 0.6,
}


@dataclass(frozen=True)
class Change:
    """One place where the programs differ in meaning."""

    file: str
    symbol: str
    """Dotted name of what changed: `Hyperparameters.rope_dims`, `Block.forward`."""
    domain: Domain
    kind: Kind
    evidence: str
    """One line: what was there, what is there, and what it feeds."""
    lines: tuple[int, int]
    """First and last line in the new version; in the old one where the code is gone."""
    old: str | None
    """Source of what was there, shortened; None where it is new."""
    new: str | None
    forward: bool = False
    """Whether it stands in the model's forward computation, initialisation excepted."""
    follows: bool = False
    """Whether it only serves another change of the same edit, such as the group that a new parameter joins."""
    measuring: bool = False
    """Whether it stands in code that computes or prints the metric."""

    @property
    def strict(self) -> bool:
        """Whether it changes the model's forward computation structurally."""
        return self.domain is Domain.ARCH and self.kind is Kind.STRUCTURAL and self.forward

    @property
    def weight(self) -> float:
        """Its share in the edit before normalising."""
        return KIND_WEIGHT[self.kind] * CONSEQUENCE[self.domain] * (0.2 if self.follows else 1.0)


@dataclass(frozen=True)
class EditReport:
    """What the edit from one version to the next really changed."""

    domain: Domain | None
    """Primary surface by weight of consequence; None where nothing changed in meaning."""
    shares: dict[Domain, float]
    """Every surface that changed, largest share first; sums to one."""
    kind: Kind | None
    strict_arch: bool
    """Whether the model's forward computation changed structurally."""
    changes: tuple[Change, ...]
    problems: tuple[str, ...] = ()
    """Files that could not be read as Python, one plain line each."""

    @classmethod
    def of(cls, changes: Iterable[Change], problems: Iterable[str] = ()) -> "EditReport":
        """The report over `changes`."""
        found = tuple(changes)
        weights: dict[Domain, float] = {}
        for change in found:
            weights[change.domain] = weights.get(change.domain, 0.0) + change.weight
        total = sum(weights.values())
        order = sorted(weights, key=lambda domain: -weights[domain])
        primary = order[0] if order else None
        kinds = [change.kind for change in found if change.domain is primary and not change.follows]
        return cls(
            domain=primary,
            shares={domain: round(weights[domain] / total, 3) for domain in order},
            kind=max(kinds or [c.kind for c in found], key=lambda kind: KIND_WEIGHT[kind], default=None),
            strict_arch=any(change.strict for change in found),
            changes=found,
            problems=tuple(problems),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "domain": self.domain,
            "shares": dict(self.shares),
            "kind": self.kind,
            "strict_arch": self.strict_arch,
            "changes": [
                {
                    "file": change.file,
                    "symbol": change.symbol,
                    "domain": change.domain,
                    "kind": change.kind,
                    "evidence": change.evidence,
                    "lines": list(change.lines),
                    "follows": change.follows,
                    "measuring": change.measuring,
                }
                for change in self.changes
            ],
            "problems": list(self.problems),
        }
