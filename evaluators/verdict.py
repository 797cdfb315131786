"""Pure: task, scores and the champion's scores -> verdict, failure label, statistics."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from statistics import fmean, variance

from scipy.special import stdtr, stdtrit

from evaluators.task import Contract, Gate
from ledger.campaign import Campaign, Run, Trial
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


class Due(Enum):
    """What a trial needs next."""

    RUN = "another run of the trial"
    REQUEST = "a round of confirmation against the champion"
    DEFENCE = "another run of the champion, in turn with the trial"
    VERDICT = "its verdict"


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
    return pooled_noise(
        values(contract, [score for score in spell if score.epoch == epoch])
        for past in groups
        for spell in _spells(contract, past)
    )


def _spells(contract: Contract, trial: Trial) -> Iterator[Sequence[ScoreRecorded]]:
    """Scores of one trial that were taken close together: a machine drifts between them, not within."""
    ends = [request.first for request in trial.requests]
    own = _scored(trial.runs[: ends[0]] if ends else trial.runs)
    first = contract.seeds.trial if trial.number else contract.seeds.baseline
    yield own[:first]
    yield own[first:]
    for begin, end in pairwise([*ends, len(trial.runs)]):
        yield _scored(trial.runs[begin:end])


def _scored(runs: Sequence[Run]) -> tuple[ScoreRecorded, ...]:
    return tuple(run.score for run in runs if run.score is not None)


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
    """Label and detail of the gate that the trial's mean breaks; None where none is, or its runs were cut short."""
    if trial.number and len(trial.scores) < contract.seeds.trial:
        return None
    broken = broken_gate(contract, gate_means(contract, trial.scores))
    if broken is None:
        return None
    gate, found = broken
    return gate.label, f"expected {gate}, found a mean of {found:.6g} over {len(trial.scores)} runs"


def due(contract: Contract, campaign: Campaign, trial: Trial) -> Due:
    """What a submitted trial that passed the gates needs next; the supervisor follows it, the audit asks it again.

    A trial is run on its seeds; one that is clearly worse than the champion is stopped on the way. One that looks
    better enters a round of confirmation: it and the champion are run in turn on the same new seeds, in the order
    ABBA, so that drift of the machine falls on both, and only that round decides. What made it look better is
    not counted again: picking the best of many noisy trials would otherwise keep lucky ones (the winner's curse).
    """
    seeds, runs = contract.seeds, len(trial.scores)
    if trial.failure is not None:
        return Due.VERDICT
    if trial.number == 0:
        return Due.RUN if runs < seeds.baseline else Due.VERDICT
    if runs < seeds.trial:
        screened = seeds.screen is not None and runs >= seeds.screen
        return Due.VERDICT if screened and _is_hopeless(contract, campaign, trial) else Due.RUN
    if not seeds.confirm or gate_failure(contract, trial) or not _is_promising(contract, campaign, trial):
        return Due.VERDICT
    assert campaign.champion is not None
    defence = campaign.trials[campaign.champion].defence(trial.number)
    if defence is None:
        return Due.REQUEST
    return _turn(sum(1 for run in defence if _counts(run)), runs - seeds.trial, seeds.confirm)


def _turn(defended: int, confirmed: int, runs: int) -> Due:
    """Pairs in the order ABBA: champion, trial, trial, champion."""
    if min(defended, confirmed) >= runs:
        return Due.VERDICT
    if defended == confirmed:
        return Due.DEFENCE if defended % 2 == 0 else Due.RUN
    return Due.DEFENCE if defended < confirmed else Due.RUN


def _counts(run: Run) -> bool:
    """Whether a run said something of its recipe: it has a score, or failed for no reason of the machine."""
    return run.score is not None or (run.failure is not None and run.failure.label is not FailureLabel.INFRA_ERROR)


def _is_hopeless(contract: Contract, campaign: Campaign, trial: Trial) -> bool:
    gain, loss_p = _first_look(contract, campaign, trial, sign=-1)
    return gain < 0 and loss_p < contract.noise.hopeless


def _is_promising(contract: Contract, campaign: Campaign, trial: Trial) -> bool:
    gain, p_value = _first_look(contract, campaign, trial, sign=1)
    return gain > 0 and p_value < contract.noise.promising


def _first_look(contract: Contract, campaign: Campaign, trial: Trial, sign: int) -> tuple[float, float]:
    """Gain of the trial's first runs over all of the champion's, and the one-sided p-value of `sign` times it.

    Only what was known before the round of confirmation counts, so that the answer stays the same during it.
    """
    assert campaign.champion is not None
    champion = campaign.trials[campaign.champion]
    defence = champion.defence(trial.number)
    before = champion.runs[: len(champion.runs) - len(defence)] if defence else champion.runs
    first = replace(trial, runs=_until(trial, contract.seeds.trial))
    then = replace(campaign, trials={**campaign.trials, champion.number: replace(champion, runs=before)})
    sample, rival = values(contract, first.scores), _rival(contract, first, _scored(before))
    gain = contract.metric.gain(fmean(sample), fmean(rival))
    return gain, improbability(sign * gain, len(sample), len(rival), noise_in(contract, then, first))


def _until(trial: Trial, scores: int) -> tuple[Run, ...]:
    """Its runs up to the one with that many scores."""
    found = 0
    for index, run in enumerate(trial.runs):
        found += run.score is not None
        if found == scores:
            return trial.runs[: index + 1]
    return trial.runs


def _rival(contract: Contract, trial: Trial, scores: Sequence[ScoreRecorded]) -> list[float]:
    """The champion's values in the trial's measurement epoch. Raises ValueError where there are none."""
    epoch = trial.scores[-1].epoch
    rival = values(contract, [score for score in scores if score.epoch == epoch])
    if not rival:
        raise ValueError(f"the champion has no score in the measurement epoch of trial {trial.number}")
    return rival


def judge(contract: Contract, campaign: Campaign, trial: Trial) -> VerdictReached:
    """The verdict on a trial whose runs are complete, or which failed or was rejected.

    Kept only where the gain over the champion is significant: one-sided t-test on the difference of means with
    the pooled within-recipe variance (Student's two-sample test generalised to several groups, as in ANOVA). Where
    the task asks for a round of confirmation, only that round counts (see `due`).
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
    best, level = campaign.trials[champion], 1 - contract.noise.confidence
    defence = best.defence(trial.number)
    scores = trial.scores if defence is None else trial.scores[contract.seeds.trial :]
    # A champion that fails every run of the round is compared by what it did before.
    sample, rival = values(contract, scores), _rival(contract, trial, _scored(defence or ()) or best.scores)
    noise = noise_in(contract, campaign, trial)
    gain = contract.metric.gain(fmean(sample), fmean(rival))
    p_value = improbability(gain, len(sample), len(rival), noise)
    passed = defence is not None or not contract.seeds.confirm
    kept = passed and gain > 0 and p_value < level
    reason = _reason(contract, trial, champion, gain, noise, p_value)
    return VerdictReached(
        verdict=Verdict.KEPT if kept else Verdict.DISCARDED,
        label=None,
        score=summarise(values(contract, trial.scores)),
        champion=champion,
        gain=decimal(gain),
        p_value=decimal(p_value),
        reason=reason,
    )


def _reason(contract: Contract, trial: Trial, champion: int, gain: float, noise: NoiseEstimate, p_value: float) -> str:
    unit, seeds, runs = contract.metric.suffix, contract.seeds, len(trial.scores)
    if runs < seeds.trial:
        return f"clearly worse than trial {champion} after {runs} of {seeds.trial} runs: {gain:+.4g}{unit}"
    if gain <= 0:
        return f"no gain over trial {champion}: {gain:+.4g}{unit}"
    confirmed = runs > seeds.trial
    level = contract.noise.promising if seeds.confirm and not confirmed else 1 - contract.noise.confidence
    rounds = f" in {runs - seeds.trial} runs in turn" if confirmed else ""
    return (
        f"gain {gain:+.4g}{unit} over trial {champion}{rounds} with noise {noise.std:.3g}{unit} a run, "
        f"p = {p_value:.3g} {'<' if p_value < level else '>='} {level:.3g}"
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
    """The campaign's headline; None before there is a champion.

    Of a champion that was confirmed only the runs count that were made after it looked promising.
    """
    if campaign.champion is None:
        return None
    base, best = campaign.trials[0], campaign.trials[campaign.champion]
    confirmed = best.scores[contract.seeds.trial :] if contract.seeds.confirm and best is not base else ()
    old, new = values(contract, base.scores), values(contract, confirmed or best.scores)
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
