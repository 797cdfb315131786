"""The offline specialist: program edits, drawn by a bandit over what the lineage shows of each kind and place."""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agents.edits import FAMILIES, Edit, apply_all, edits
from agents.edits.memory import Memory, Outcome, State, reward
from agents.lineage import Lineage
from agents.proposal import Brief, Proposal
from evaluators.gates import check
from evaluators.task import Contract, Metric, Specialist
from ledger.recipes import Recipe
from ledger.vocabulary import Domain, FailureLabel

PRIOR_TRIALS = 2.0
"""Trials that a family's prior counts for."""
SIDESTEP = 0.15
"""Share of proposals that build on a promising trial instead of the champion."""
CURIOSITY = 0.5
"""Weight of neglect against yield in the choice of the next specialist."""
TRUST_IN_PAIRS = 0.5
"""Weight of the evidence on an edit that saves time, once another pays for it: alone it may have missed a gate."""
HARMFUL = 0.6
"""Certainty from which a worse trial rules its edit out of pairs by chance."""
PAIR_LIMIT = 120
"""Pairs looked at once single edits are used up."""

TIME_UNITS = frozenset({"s", "ms", "us", "min", "h", "seconds", "milliseconds"})
_TOO_LARGE = frozenset({FailureLabel.SIZE_OVER_LIMIT})
_TOO_SLOW = frozenset({FailureLabel.TRAIN_OVER_BUDGET, FailureLabel.EVAL_OVER_BUDGET, FailureLabel.OUT_OF_MEMORY})


@dataclass(frozen=True)
class Candidate:
    """One or two edits on one parent, before they are carried out."""

    parent: int
    edits: tuple[Edit, ...]
    log_weight: float
    reason: str

    @property
    def operator(self) -> str:
        """Operators of the edits, joined as `Operator.parse` reads them."""
        return " + ".join(str(edit.operator) for edit in self.edits)


class Search:
    """Proposes program edits. Holds no state: the same brief gives the same proposal."""

    name = "search"

    def propose(self, brief: Brief) -> Proposal | None:
        """The likeliest edit that no trial has tried, or None where there is none left."""
        policy = Policy(brief)
        for candidate in policy.candidates():
            if (recipe := policy.legal(candidate)) is not None:
                return policy.proposal(candidate, recipe)
        return None


class Policy:
    """One choice: candidates on the champion, or on a promising trial, weighed by the lineage."""

    def __init__(self, brief: Brief) -> None:
        self.brief = brief
        self.memory = Memory(brief.lineage)
        self.domain = brief.specialist.domain
        self.champion = brief.lineage.champion
        key = f"{brief.seed}/{brief.specialist.name}/{len(brief.lineage.trials)}"
        self.random = random.Random(key)
        self.metric = brief.contract.metric
        self.is_time = self.metric.unit in TIME_UNITS and self.metric.direction == "minimize"
        self.too_large = self.memory.failures(_TOO_LARGE)
        self.too_slow = self.memory.failures(_TOO_SLOW)
        self._samples: dict[tuple[str, int], float] = {}
        self._recipes: dict[int, Recipe] = {}

    # Candidates

    def candidates(self) -> Iterator[Candidate]:
        """Every candidate, best first; single edits and planned pairs before pairs by chance."""
        promising = self.memory.promising(self.domain)
        parent, why = self.champion, "the champion"
        if promising and self.random.random() < SIDESTEP:
            parent = promising[0].trial
            p_value = "unknown" if promising[0].p_value is None else f"{promising[0].p_value:.2g}"
            why = f"better than the champion of its time with p {p_value}, and worth a second change"
        own = self.on(parent, why)
        yield from sorted([*own, *self.pairs(parent, own)], key=lambda candidate: -candidate.log_weight)
        if parent != self.champion:
            own = self.on(self.champion, "the champion")
            yield from sorted([*own, *self.pairs(self.champion, own)], key=lambda candidate: -candidate.log_weight)
        yield from self.chance_pairs(own)

    def on(self, parent: int, why: str) -> list[Candidate]:
        """Single edits of a parent, weighed; tried ones among them."""
        found = self.edits_of(parent, self.domain)
        return [Candidate(parent, (edit,), self.log_weight(edit, parent), f"parent {parent}: {why}") for edit in found]

    def pairs(self, parent: int, own: Sequence[Candidate]) -> list[Candidate]:
        """Two promising edits together; for a metric of time, also one that saves time with one that pays for it."""
        known = {outcome.operator for outcome in self.memory.outcomes if outcome.state is State.PROMISING}
        good = [candidate for candidate in own if candidate.edits[0].operator in known]
        found = [
            self._pair(first, second, 0.3, "both were better than the champion of their time, neither beyond noise")
            for index, first in enumerate(good)
            for second in good[index + 1 :]
            if first.edits[0].site != second.edits[0].site
        ]
        if self.is_time:
            savers = [
                Candidate(parent, (edit,), self.log_weight(edit, parent, TRUST_IN_PAIRS), "")
                # Of its own domain only: what another specialist owns is not this one's to change.
                for edit in self.edits_of(parent, self.brief.specialist.domain)
                if edit.cost < 0 and 0 < edit.step_size <= 0.35
            ]
            payers = [candidate for candidate in own if candidate.edits[0].cost >= 0]
            reason = "the first may earn the quality that the second, which saves time, costs"
            for payer in sorted(payers, key=lambda candidate: -candidate.log_weight)[:12]:
                if savers:
                    # What the metric rewards is the saver's part; the payer keeps the gates.
                    saver = self.random.choices(savers, [math.exp(item.log_weight) for item in savers])[0]
                    if payer.edits[0].site != saver.edits[0].site:
                        found.append(self._pair(payer, saver, 0.4, reason))
        return found

    def _pair(self, first: Candidate, second: Candidate, bonus: float, reason: str) -> Candidate:
        weight = (first.log_weight + second.log_weight) / 2 + bonus
        return Candidate(first.parent, (*first.edits, *second.edits), weight, f"{first.reason}; {reason}")

    def chance_pairs(self, own: Sequence[Candidate]) -> Iterator[Candidate]:
        """Pairs of edits that have not been found harmful, for when no single one is left."""
        usable = [candidate for candidate in own if not self.is_harmful(candidate.edits[0])]
        for _ in range(PAIR_LIMIT if len(usable) > 1 else 0):
            first, second = self.random.sample(usable, 2)
            if first.edits[0].site != second.edits[0].site:
                yield self._pair(first, second, 0.0, "every single edit of this parent has been tried")

    def edits_of(self, parent: int, domain: Domain) -> list[Edit]:
        """Edits of a trial's recipe within the specialist's files."""
        return edits(self.recipe_of(parent), domain, self.brief.specialist.files)

    def recipe_of(self, trial: int) -> Recipe:
        """Recipe of a trial, fetched once."""
        if trial not in self._recipes:
            self._recipes[trial] = self.brief.recipe_of(trial)
        return self._recipes[trial]

    def legal(self, candidate: Candidate) -> Recipe | None:
        """The edited recipe, where its edits fit together, no gate refuses it and no trial has tried it."""
        if (candidate.parent, candidate.operator) in self.memory.tried:
            return None
        parent = self.recipe_of(candidate.parent)
        recipe = apply_all(parent, candidate.edits)
        if recipe is None:
            return None
        refused = check(self.brief.contract, self.brief.specialist, parent, recipe, self.memory.programs)
        return recipe if refused is None else None

    # Weights

    def log_weight(self, edit: Edit, parent: int, trust: float = 1.0) -> float:
        """Logarithm of a candidate's weight: a Thompson sample of its arm, evidence at its place, fit to the metric."""
        noise = 0.5 * self.random.random()
        return math.log(self.sample(edit)) + trust * self.evidence(edit, parent) + self.fit(edit) + noise

    def sample(self, edit: Edit) -> float:
        """One draw of the arm's success rate, the same for all its edits within a choice."""
        arm = (edit.family, edit.direction)
        if arm not in self._samples:
            prior = FAMILIES[edit.family].prior
            wins, losses = PRIOR_TRIALS * prior, PRIOR_TRIALS * (1 - prior)
            for outcome in self.memory.outcomes:
                if (outcome.operator.family, outcome.operator.direction) == arm and outcome.trial.domain == self.domain:
                    wins += outcome.share * outcome.reward
                    losses += outcome.share * (1 - outcome.reward)
            self._samples[arm] = max(1e-6, self.random.betavariate(wins, losses))
        return self._samples[arm]

    def evidence(self, edit: Edit, parent: int) -> float:
        """What earlier trials at the same place say, as a change of the logarithm of the weight."""
        past = self.memory.at_site[edit.family, edit.site]
        # Places that were visited often make room for others.
        total = -0.12 * len(past)
        for outcome in past:
            total += outcome.weight * outcome.share * _hint(edit, outcome, parent)
            if outcome.state in (State.KEPT, State.PROMISING) and outcome.trial.trial not in self.memory.ancestors:
                # Found good on a branch that the champion does not descend from.
                total += 0.8 * outcome.weight * (outcome.operator == edit.operator)
        return total

    def is_harmful(self, edit: Edit) -> bool:
        """Whether this very edit has failed, or was worse beyond doubt, on a program much like this one."""
        return any(
            outcome.state is State.FAILED or (outcome.state is State.WORSE and outcome.weight > HARMFUL)
            for outcome in self.memory.at_site[edit.family, edit.site]
            if outcome.operator == edit.operator
        )

    def fit(self, edit: Edit) -> float:
        """What the metric's unit and the labels of failed trials say of dearer, cheaper, larger edits."""
        total = 0.0
        if self.is_time:
            total += {-1: 1.2, 0: -1.0, 1: -2.5}[edit.cost]
        if edit.cost > 0:
            total -= min(3.0, 1.5 * self.too_slow)
        if edit.size > 0:
            total -= min(3.0, 1.5 * self.too_large)
        if edit.size < 0 and self.too_large:
            total += 0.3
        return total

    # The proposal

    def proposal(self, candidate: Candidate, recipe: Recipe) -> Proposal:
        """The candidate in words."""
        gain = self.expected_gain(candidate)
        delta = None if gain is None else signed(self.metric, gain)
        first, *others = (edit.description for edit in candidate.edits)
        changes = ", and ".join((first, *(f"{other[:1].lower()}{other[1:]}" for other in others)))
        expected = "" if delta is None else f"; expected {self.metric.name} {delta:+.2g}{self.metric.suffix}"
        rationale = ". ".join((candidate.reason, *(self.told(edit) for edit in candidate.edits)))
        return Proposal(
            parent=candidate.parent,
            recipe=recipe,
            hypothesis=f"{changes}{expected}.",
            rationale=f"{rationale[:1].upper()}{rationale[1:]}.",
            expected_delta=delta,
            operator=candidate.operator,
        )

    def expected_gain(self, candidate: Candidate) -> float | None:
        """Improvement if it helps: the family's mean where it did, else its prior's share of the champion's metric."""
        champion = self.memory.by_number.get(self.champion)
        if champion is None or champion.mean is None:
            return None
        return sum(self._gain(edit, abs(champion.mean)) for edit in candidate.edits)

    def _gain(self, edit: Edit, level: float) -> float:
        gains = [
            outcome.trial.gain
            for outcome in self.memory.outcomes
            if outcome.operator.family == edit.family and outcome.share == 1 and (outcome.trial.gain or 0.0) > 0
        ]
        if gains:
            return math.fsum(gain for gain in gains if gain is not None) / len(gains)
        if self.is_time:
            return level * (min(0.3, 0.6 * edit.step_size or 0.03) if edit.cost < 0 else FAMILIES[edit.family].gain)
        return level * FAMILIES[edit.family].gain

    def told(self, edit: Edit) -> str:
        """What the lineage says of an edit, in a sentence without its full stop."""
        way = {1: " up", -1: " down"}.get(edit.direction, "")
        same = [outcome for outcome in self.memory.outcomes if outcome.operator.family == edit.family]
        same = [
            outcome
            for outcome in same
            if outcome.operator.direction == edit.direction and outcome.trial.domain == self.domain
        ]
        if not same:
            text = f"{edit.family}{way} is untried in {self.domain} (prior {FAMILIES[edit.family].prior:.0%})"
        else:
            kept = sum(1 for outcome in same if outcome.state is State.KEPT)
            better = sum(1 for outcome in same if outcome.state is State.PROMISING)
            text = f"{edit.family}{way} in {self.domain}: {kept} of {len(same)} kept, {better} better within noise"
        past = self.memory.at_site[edit.family, edit.site][-3:]
        there = ", ".join(
            f"trial {item.trial.trial} ({item.operator.move}) {item.trial.label or item.state}" for item in past
        )
        return f"{text}; at {edit.site}: {there}" if there else text


def _hint(edit: Edit, outcome: Outcome, parent: int) -> float:
    """How far one earlier trial at the same place speaks for or against an edit."""
    past = outcome.operator
    same_move = past.move == edit.move
    same_way = past.direction == edit.direction != 0
    opposite = past.direction == -edit.direction != 0
    as_far = abs(edit.operator.step) >= abs(past.step) - 1e-9
    match outcome.state:
        case State.KEPT:
            return 0.8 if same_way else -1.0 if opposite else 0.0
        case State.PROMISING:
            again = 0.7 if same_move and outcome.trial.parent != parent else 0.0
            return again + (0.4 if same_way else -0.4 if opposite else 0.0)
        case State.WORSE:
            return -2.0 if same_move else (-1.5 if as_far else -0.3) if same_way else 0.6 if opposite else -0.2
        case State.FAILED:
            return -4.0 if same_move else (-3.0 if as_far else -0.5) if same_way else 0.6 if opposite else -1.0


def signed(metric: Metric, gain: float) -> float:
    """An improvement as a change of the metric."""
    return gain if metric.direction == "maximize" else -gain


def choose_specialist(contract: Contract, lineage: Lineage, seed: int, exhausted: frozenset[str]) -> Specialist | None:
    """Who proposes next: everyone once in the order of the roster, then by yield and neglect (UCB1).

    None where all are exhausted. Trials still running count as turns without yield.
    """
    roster = [specialist for specialist in contract.specialists if specialist.name not in exhausted]
    turns: defaultdict[str, list[float]] = defaultdict(list)
    for trial in lineage.trials:
        if trial.specialist is not None and trial.label != FailureLabel.INFRA_ERROR:
            turns[trial.specialist].append(reward(trial))
    untried = [specialist for specialist in roster if not turns[specialist.name]]
    if untried or not roster:
        return untried[0] if untried else None
    return max(roster, key=_urgency(turns, roster, random.Random(f"{seed}/{len(lineage.trials)}")).__getitem__)


def _urgency(
    turns: Mapping[str, Sequence[float]], roster: Sequence[Specialist], draw: random.Random
) -> dict[Specialist, float]:
    total = sum(len(turns[specialist.name]) for specialist in roster)
    urgency: dict[Specialist, float] = {}
    for specialist in roster:
        rewards = turns[specialist.name]
        # Yield of long ago, before other champions, says less.
        weights = [0.95**age for age in range(len(rewards))][::-1]
        mean = math.fsum(weight * value for weight, value in zip(weights, rewards, strict=True)) / math.fsum(weights)
        urgency[specialist] = mean + CURIOSITY * math.sqrt(math.log(total) / len(rewards)) + 1e-6 * draw.random()
    return urgency
