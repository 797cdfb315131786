"""What following a value collects: votes for surfaces, and what else was seen on the way."""

from dataclasses import dataclass, field

from ledger.vocabulary import Domain


class Votes(dict[Domain, float]):
    """How strongly each surface is suggested; a surface that is not there has no vote."""

    def __missing__(self, domain: Domain) -> float:
        return 0.0

    def add(self, others: "Votes", weight: float = 1.0) -> None:
        """Take the votes of `others`, each times `weight`."""
        for domain, vote in others.items():
            self[domain] += vote * weight

    def normal(self) -> "Votes":
        """The same proportions, summing to one."""
        total = sum(self.values())
        return Votes({domain: vote / total for domain, vote in self.items()}) if total else Votes()


@dataclass
class Trace:
    """What following one value has shown beside its surfaces."""

    shaped: bool = False
    """It sizes a tensor, a layer or a loop."""
    tested: bool = False
    """It decides a branch."""
    readers: dict[Domain, str] = field(default_factory=dict)
    """Surface -> the first place found that consumes it there."""
    seen: set[tuple[object, str]] = field(default_factory=set)
