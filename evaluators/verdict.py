"""Pure: task, scores and the champion's scores -> verdict, failure label, statistics."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, variance

from scipy.special import stdtr, stdtrit

from evaluators.task import Contract, Gate
from ledger.campaign import Campaign, Trial
from ledger.events import BaselineMeasured, ScoreRecorded, Summary, VerdictReached, decimal
from ledger.vocabulary import FailureLabel, Verdict

FAILED_PHASES_RAN = frozenset(
    {
        FailureLabel.BELOW_GATE,
        FailureLabel.CAUSALITY_VIOLATION,
        FailureLabel.EVALUATOR_TAMPERING,
        FailureLabel.FORGED_METRIC,
    }
)
"""Labels of trials that ran to the end and broke a rule: disqualified rather than failed."""


@dataclass(frozen=True)
class NoiseEstimate:
    """Spread between seeds of one and the same recipe, pooled over several recipes."""

    variance: float
    """In the metric's unit, squared."""
    df: int
    """Degrees of freedom: runs minus recipes."""

    @property
    def std(self) -> float:
        """In the metric's unit."""
        return math.sqrt(self.variance)


def values(contract: Contract, scores: Sequence[ScoreRecorded]) -> list[float]:
    """The task's metric, per run."""
    return [float(score.metrics[contract.metric.name]) for score in scores]


def summarise(sample: Sequence[float]) -> Summary:
    """Mean, sample standard deviation and n as decimal strings."""
    std = math.sqrt(variance(sample)) if len(sample) > 1 else 0.0
    return Summary(mean=decimal(fmean(sample)), std=decimal(std), n=len(sample))


def pooled_noise(groups: Iterable[Sequence[float]]) -> NoiseEstimate:
    """Pooled variance of groups that differ in mean; groups of one say nothing. ANOVA's within-group mean square."""
    squares, df = 0.0, 0
    for group in groups:
        if len(group) > 1:
            squares += _variance(tuple(group)) * (len(group) - 1)
            df += len(group) - 1
    return NoiseEstimate(squares / df if df else math.nan, df)


@lru_cache(maxsize=4096)
def _variance(sample: tuple[float, ...]) -> float:
    """Kept: every verdict asks for the spread of each champion again, and exact fractions are slow."""
    return variance(sample)


def noise_in(contract: Contract, campaign: Campaign, trial: Trial) -> NoiseEstimate:
    """Noise that `trial` is judged by: its own spread and that of every champion so far, in its measurement epoch.

    Other trials do not count: one unstable recipe among them would hide real gains from then on.
    """
    epoch = trial.scores[-1].epoch
    champions = (past for past in campaign.trials.values() if past.verdict in (Verdict.BASELINE, Verdict.KEPT))
    groups = {past.number: past for past in (*champions, trial)}.values()
    return pooled_noise(values(contract, [score for score in past.scores if score.epoch == epoch]) for past in groups)


def gate_means(contract: Contract, scores: Sequence[ScoreRecorded]) -> dict[str, float]:
    """Mean over runs of every gated metric."""
    return {gate.metric: fmean(float(score.metrics[gate.metric]) for score in scores) for gate in contract.gates}


def broken_gate(contract: Contract, means: Mapping[str, float]) -> tuple[Gate, float] | None:
    """The first gate that does not hold, with the value found."""
    for gate in contract.gates:
        if not gate.holds(means[gate.metric]):
            return gate, means[gate.metric]
    return None


def judge_baseline(contract: Contract, trial: Trial) -> BaselineMeasured:
    """The starting recipe is legal where every gate holds and its noise could be estimated."""
    assert trial.recipe is not None
    means = gate_means(contract, trial.scores)
    return BaselineMeasured(
        recipe=trial.recipe,
        score=summarise(values(contract, trial.scores)),
        gates={name: decimal(mean) for name, mean in means.items()},
        legal=broken_gate(contract, means) is None,
    )


def gate_failure(contract: Contract, trial: Trial) -> tuple[FailureLabel, str] | None:
    """Label and detail of the gate that the trial's mean breaks, where it breaks one."""
    broken = broken_gate(contract, gate_means(contract, trial.scores))
    if broken is None:
        return None
    gate, found = broken
    return gate.label, f"expected {gate}, found a mean of {found:.6g} over {len(trial.scores)} runs"


def judge(contract: Contract, campaign: Campaign, trial: Trial) -> VerdictReached:
    """The verdict on a trial whose runs are complete, or which failed or was rejected.

    Kept only where the gain over the champion is significant: one-sided t-test on the difference of means with
    the pooled within-recipe variance (Student's two-sample test generalised to several groups, as in ANOVA).
    """
    assert campaign.champion is not None
    champion = campaign.champion
    if trial.rejection is not None:
        return _unscored(Verdict.FAILED, trial.rejection.label, champion, trial.rejection.detail)
    if trial.failure is not None:
        ran = trial.failure.label in FAILED_PHASES_RAN or trial.failure.run is None
        score = summarise(values(contract, trial.scores)) if trial.scores and trial.failure.run is None else None
        verdict = Verdict.DISQUALIFIED if ran else Verdict.FAILED
        return _unscored(verdict, trial.failure.label, champion, trial.failure.detail, score)
    return _compared(contract, campaign, trial, champion)


def _compared(contract: Contract, campaign: Campaign, trial: Trial, champion: int) -> VerdictReached:
    sample = values(contract, trial.scores)
    epoch = trial.scores[-1].epoch
    rival = values(contract, [score for score in campaign.trials[champion].scores if score.epoch == epoch])
    if not rival:
        raise ValueError(f"champion {champion} has no score in the measurement epoch of trial {trial.number}")
    noise = noise_in(contract, campaign, trial)
    gain = contract.metric.gain(fmean(sample), fmean(rival))
    p_value = improbability(gain, len(sample), len(rival), noise)
    level = 1 - contract.noise.confidence
    kept = gain > 0 and p_value < level
    unit = contract.metric.suffix
    reason = (
        f"gain {gain:+.4g}{unit} over trial {champion} with noise {noise.std:.3g}{unit} a run, "
        f"p = {p_value:.3g} {'<' if kept else '>='} {level:.3g}"
        if p_value < level or gain > 0
        else f"no gain over trial {champion}: {gain:+.4g}{unit}"
    )
    return VerdictReached(
        verdict=Verdict.KEPT if kept else Verdict.DISCARDED,
        label=None,
        score=summarise(sample),
        champion=champion,
        gain=decimal(gain),
        p_value=decimal(p_value),
        reason=reason,
    )


@dataclass(frozen=True)
class Advantage:
    """How much better the champion is than the baseline, in the metric's unit; positive is better."""

    gain: float
    half_width: float
    """Of the two-sided 95 % confidence interval; infinite where the noise is unknown."""
    relative: float
    """Gain as a share of the baseline's mean."""


def advantage(contract: Contract, campaign: Campaign) -> Advantage | None:
    """The campaign's headline; None before there is a champion. Not corrected for having picked the best of many."""
    if campaign.champion is None:
        return None
    base, best = campaign.trials[0], campaign.trials[campaign.champion]
    old, new = values(contract, base.scores), values(contract, best.scores)
    gain = contract.metric.gain(fmean(new), fmean(old))
    noise = noise_in(contract, campaign, best)
    error = noise.std * math.sqrt(1 / len(new) + 1 / len(old))
    half_width = float(stdtrit(noise.df, 0.975)) * error if noise.df else math.inf
    return Advantage(gain, half_width if best is not base else 0.0, gain / abs(fmean(old)) if fmean(old) else math.nan)


def improbability(gain: float, n: int, n_rival: int, noise: NoiseEstimate) -> float:
    """One-sided p-value of a gain in means over n and n_rival runs; 1.0 where the noise is unknown."""
    if noise.df == 0:
        return 1.0
    error = noise.std * math.sqrt(1 / n + 1 / n_rival)
    if error == 0.0:
        return 0.0 if gain > 0 else 1.0
    return float(stdtr(noise.df, -gain / error))


def _unscored(
    verdict: Verdict, label: FailureLabel, champion: int, reason: str, score: Summary | None = None
) -> VerdictReached:
    return VerdictReached(
        verdict=verdict, label=label, score=score, champion=champion, gain=None, p_value=None, reason=reason
    )
