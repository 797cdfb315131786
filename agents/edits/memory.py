"""What a campaign's lineage says of edits: outcomes by kind and place, faded by later champions."""

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from agents.edits.edit import Operator
from agents.lineage import Lineage, PastTrial
from ledger.vocabulary import Domain, FailureLabel, Verdict

FADE = 0.7
"""What is left of a finding's weight after each later champion: it was made on another program."""
_NO_EVIDENCE = frozenset({FailureLabel.INFRA_ERROR, FailureLabel.DUPLICATE_RECIPE, FailureLabel.EMPTY_DIFF})


class State(StrEnum):
    """What a trial says of the edit it tried."""

    KEPT = "kept"
    PROMISING = "better, not beyond noise"
    WORSE = "worse"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What one earlier trial says of one operator."""

    trial: PastTrial
    operator: Operator
    state: State
    share: float
    """1.0 where the operator stood alone, less where several were tried at once."""
    weight: float
    """Faded by later champions, and by how little the trial differed from noise."""

    @property
    def reward(self) -> float:
        """1 for a kept trial, up to 1/2 for a promising one, else 0."""
        return reward(self.trial)


def state_of(trial: PastTrial) -> State | None:
    """None where the trial says nothing about the idea: the baseline, an abandoned one, a failure of the machine."""
    if trial.trial == 0 or trial.verdict is None or trial.label in _NO_EVIDENCE:
        return None
    match trial.verdict:
        case Verdict.KEPT:
            return State.KEPT
        case Verdict.DISCARDED:
            return State.PROMISING if (trial.gain or 0.0) > 0 else State.WORSE
        case Verdict.DISQUALIFIED | Verdict.FAILED:
            return State.FAILED
    return None


def reward(trial: PastTrial) -> float:
    """What a trial was worth: 1 kept, 0 to 1/2 by significance where it was better, else 0."""
    state = state_of(trial)
    if state is State.PROMISING:
        return 0.5 * (1 - (0.5 if trial.p_value is None else trial.p_value))
    return 1.0 if state is State.KEPT else 0.0


class Memory:
    """The lineage, indexed by what a choice between edits asks of it."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage
        concluded = [trial for trial in lineage.trials if trial.verdict is not None]
        self.by_number = {trial.trial: trial for trial in lineage.trials}
        self.programs = {trial.program: trial.trial for trial in concluded if trial.program is not None}
        self.tried = {(trial.parent, trial.operator) for trial in concluded if trial.operator is not None}
        kept = [trial.trial for trial in lineage.trials if trial.verdict == Verdict.KEPT]
        self.outcomes: list[Outcome] = []
        self.at_site: defaultdict[tuple[str, str], list[Outcome]] = defaultdict(list)
        for trial in lineage.trials:
            state = state_of(trial)
            if state is None or trial.operator is None:
                continue
            operators = Operator.parse(trial.operator)
            later = sum(1 for number in kept if number > trial.trial)
            for operator in operators:
                outcome = Outcome(trial, operator, state, 1 / len(operators), FADE**later * _certainty(trial, state))
                self.outcomes.append(outcome)
                self.at_site[operator.family, operator.site].append(outcome)

    @cached_property
    def ancestors(self) -> frozenset[int]:
        """The champion and every trial it descends from."""
        found: set[int] = set()
        number: int | None = self.lineage.champion
        while number is not None and number not in found and number in self.by_number:
            found.add(number)
            number = self.by_number[number].parent
        return frozenset(found)

    def failures(self, labels: frozenset[FailureLabel]) -> float:
        """How many trials ended with one of the labels, faded; the label is about the program, whoever proposed it."""
        kept = [trial.trial for trial in self.lineage.trials if trial.verdict == Verdict.KEPT]
        return sum(
            FADE ** sum(1 for number in kept if number > trial.trial)
            for trial in self.lineage.trials
            if trial.label in labels
        )

    def promising(self, domain: Domain) -> list[PastTrial]:
        """Trials of a domain that were better than the champion of their time, but not beyond noise; surest first."""
        found = [
            trial
            for trial in self.lineage.trials
            if state_of(trial) is State.PROMISING and trial.domain == domain and trial.operator is not None
        ]
        return sorted(found, key=lambda trial: (1.0 if trial.p_value is None else trial.p_value, trial.trial))


def _certainty(trial: PastTrial, state: State) -> float:
    """How far a worse trial is from chance: its p-value is near 1 where it was clearly worse, near 1/2 where not."""
    if state is not State.WORSE or trial.p_value is None:
        return 1.0
    return min(1.0, max(0.3, 2 * trial.p_value - 1))
