"""Checks of instruments and time: clocks and metrics that change at a point, order, pauses, calibration."""

import statistics
from collections.abc import Callable, Iterator
from itertools import pairwise

from audit.claims.account import Account, Told
from audit.claims.finding import Sign, Weight, count, sign
from ledger.vocabulary import Verdict

SIDE = 20
"""Trials that a change must have on each side."""
SHIFT = 4.0
"""Difference of means, in spreads within both sides, that counts as a change of level."""
PAUSE_H = 3.0


def resolution(account: Account) -> Iterator[Sign]:
    """The number of decimals with which a number is written, changing at one trial."""
    for name, series in _series(account).items():
        split = _split([float(_decimals(value)) for _, value in series], _share_apart)
        if split is not None:
            before, after = series[:split], series[split:]
            yield sign(
                Weight.NOTABLE,
                f"{name} is written with {_usual(before)} decimals up to trial {before[-1][0].number} and with "
                f"{_usual(after)} from trial {after[0][0].number} on: another instrument, or another rounding",
                [before[-1][0], after[0][0]],
            )


def level(account: Account) -> Iterator[Sign]:
    """The level of a clock or size, changing at one trial by far more than it scatters."""
    for name, series in _series(account).items():
        split = _split([value for _, value in series], _means_apart)
        if split is not None:
            before, after = series[:split], series[split:]
            yield sign(
                Weight.NOTABLE,
                f"{name} has a median of {_median(before):g} up to trial {before[-1][0].number} "
                f"and of {_median(after):g} from trial {after[0][0].number} on",
                [before[-1][0], after[0][0]],
            )


def _series(account: Account) -> dict[str, list[tuple[Told, float]]]:
    """Every number that enough trials have, in order of the trials that ran."""
    trials = [
        trial for trial in account.trials if trial.verdict in (Verdict.KEPT, Verdict.DISCARDED, Verdict.DISQUALIFIED)
    ]
    names = {name for trial in trials for name in trial.metrics}
    series = {
        name: [(trial, trial.metrics[name]) for trial in trials if name in trial.metrics] for name in sorted(names)
    }
    return {name: values for name, values in series.items() if len(values) >= 2 * SIDE}


def _split(values: list[float], apart: Callable[[list[float], list[float]], float]) -> int | None:
    """Where both sides differ most, if they do by what `apart` asks for: it gives 1 or more for a change."""
    best, at = 1.0, None
    for split in range(SIDE, len(values) - SIDE + 1):
        score = apart(values[:split], values[split:])
        if score > best:
            best, at = score, split
    return at


def _share_apart(before: list[float], after: list[float]) -> float:
    """How far apart the shares of values with more than one decimal are, over 0.8."""
    fine = [sum(value > 1 for value in side) / len(side) for side in (before, after)]
    return abs(fine[0] - fine[1]) / 0.8


def _means_apart(before: list[float], after: list[float]) -> float:
    means = [statistics.fmean(side) for side in (before, after)]
    squares = sum(sum((value - mean) ** 2 for value in side) for side, mean in zip((before, after), means, strict=True))
    within = (squares / (len(before) + len(after) - 2)) ** 0.5
    return abs(means[0] - means[1]) / within / SHIFT if within else 0.0


def _decimals(value: float) -> int:
    text = repr(value)
    return 0 if text.endswith(".0") or "e" in text else len(text.partition(".")[2])


def _usual(series: list[tuple[Told, float]]) -> int:
    return max(_decimals(value) for _, value in series)


def _median(series: list[tuple[Told, float]]) -> float:
    return statistics.median(value for _, value in series)


def order(account: Account) -> Iterator[Sign]:
    """Numbers and times: both rise, and no number is missing."""
    numbers = [trial.number for trial in account.trials]
    missing = sorted(set(range(min(numbers, default=0), max(numbers, default=0))) - set(numbers))
    if missing:
        shown = ", ".join(map(str, missing[:5]))
        yield sign(
            Weight.NOTABLE, f"{count(len(missing), 'number')} missing between the first and the last trial: {shown}"
        )
    timed = [trial for trial in account.trials if trial.at is not None]
    back = [after for before, after in pairwise(timed) if before.at and after.at and after.at < before.at]
    if back:
        yield sign(
            Weight.NOTABLE, f"{count(len(back), 'trial')} with an earlier time than the one numbered before", back
        )
    untimed = [trial for trial in account.trials if trial.at is None and trial.number]
    if untimed and timed:
        yield sign(Weight.MINOR, f"{count(len(untimed), 'trial')} without a time that can be read", untimed)


def pauses(account: Account) -> Iterator[Sign]:
    """Hours in which nothing was recorded: somebody or something stopped the campaign and started it again."""
    timed = [trial for trial in account.trials if trial.at is not None and trial.number]
    gaps = [(b.at - a.at).total_seconds() / 3600 for a, b in pairwise(timed) if a.at and b.at]
    long = [(gap, b) for gap, (_, b) in zip(gaps, pairwise(timed), strict=True) if gap > PAUSE_H]
    if long:
        longest, after = max(long, key=lambda pair: pair[0])
        yield sign(
            Weight.MINOR,
            f"{count(len(long), 'pause')} of more than {PAUSE_H:g} hours, the longest of {longest:.1f} before trial "
            f"{after.number}: what stopped and restarted the campaign is not recorded",
            [trial for _, trial in long],
        )


def calibration(account: Account) -> Iterator[Sign]:
    """Predicted changes against measured ones: their sign and their size."""
    pairs: list[tuple[float, float]] = []
    for trial in account.trials:
        parent = None if trial.parent is None else account.by_number.get(trial.parent)
        if trial.expected_delta and trial.score is not None and parent is not None and parent.score is not None:
            pairs.append((trial.expected_delta, trial.score - parent.score))
    if len(pairs) < 5:
        return
    hits = sum((expected > 0) == (found > 0) for expected, found in pairs if found)
    size = statistics.median(abs(found) for _, found in pairs) / statistics.median(
        abs(expected) for expected, _ in pairs
    )
    yield sign(
        Weight.MINOR,
        f"of {len(pairs)} predictions, {hits / len(pairs):.0%} have the sign of the change against the parent; "
        f"the median change is {size:.2g} times the median prediction",
    )
