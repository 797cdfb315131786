"""Checks of results: baseline, champion, deltas, bounds, gates, repetitions."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator

from audit.claims.account import Account, Told
from audit.claims.finding import Sign, Weight, count, sign
from ledger.vocabulary import Verdict

ROUNDING = 1.5e-6
"""How far a written delta may be from the calculated one: scores have six decimals."""
SLIGHT = 0.01
"""Share of a bound; what passes it by less is a matter of where a clock is read."""
CLOCKS = ("_s", "seconds")
"""Ends of the names of clocks: two runs of one program differ in them."""
WITHHELD = "[withheld]"


def baseline(account: Account) -> Iterator[Sign]:
    """Whether the number that every gain is measured against was measured, repeated and legal."""
    start = account.baseline
    if start is None or start.score is None:
        yield sign(Weight.SERIOUS, "no baseline has a score: no gain of this campaign can be calculated")
        return
    if account.origin != "native" and not start.metrics:
        yield sign(
            Weight.SERIOUS, "the baseline is a number without a run: no clock, size or seed of it is recorded", [start]
        )
    if start.std is None:
        yield sign(
            Weight.SERIOUS,
            f"the baseline's {account.metric} has no spread: one value, or a mean without its repetitions",
            [start],
        )
    missing = [name for name in account.limits if name not in start.metrics]
    if missing:
        yield sign(
            Weight.NOTABLE, f"whether the baseline keeps the bounds on {', '.join(missing)} is not recorded", [start]
        )


def champion(account: Account) -> Iterator[Sign]:
    """Whether the recorded champion is the best trial that stands, and how its last steps compare with the spread."""
    best = account.champion
    if best is None or best.score is None:
        yield sign(Weight.NOTABLE, "no trial with a score was kept")
        return
    if best.differs:
        yield sign(Weight.NOTABLE, f"another copy of the champion says otherwise: {'; '.join(best.differs)}", [best])
    better = [
        trial for trial in account.trials if trial.score is not None and account.better_by(trial.score, best.score) > 0
    ]
    if passed := [trial for trial in better if trial.verdict is Verdict.DISCARDED]:
        yield sign(Weight.SERIOUS, f"{count(len(passed), 'discarded trial')} scored better than the champion", passed)
    if barred := [trial for trial in better if trial.verdict is Verdict.DISQUALIFIED]:
        yield sign(Weight.MINOR, f"{count(len(barred), 'disqualified trial')} scored better than the champion", barred)


def kept_steps(account: Account) -> Iterator[Sign]:
    """Gains of kept trials against what repetitions of one proposal scatter."""
    steps = _steps(account)
    if not steps:
        return
    spread, groups = _spread(account)
    if spread is None:
        measured = [trial for trial in account.trials if trial.score is not None and trial.std is not None]
        if not measured:
            yield sign(
                Weight.SERIOUS,
                f"no trial was measured twice: none of the {count(len(steps), 'kept gain')} can be told from noise",
                [trial for trial, _ in steps],
            )
        return
    need = 1.645 * spread * math.sqrt(2)
    small = [trial for trial, gain in steps if gain < need]
    if small:
        champion_step = ", the champion's among them" if account.champion in small else ""
        yield sign(
            Weight.SERIOUS if account.champion in small else Weight.NOTABLE,
            f"{len(small)} of {count(len(steps), 'kept gain')} are below {need:.2g} {account.unit}, which chance alone "
            f"passes in 1 of 20 cases (spread {spread:.2g}, from {count(groups, 'repetition')}){champion_step}",
            small,
        )


def _steps(account: Account) -> list[tuple[Told, float]]:
    """Kept trials with their gain over the best before them."""
    best: Told | None = None
    steps: list[tuple[Told, float]] = []
    for trial in account.trials:
        if not trial.stands or trial.score is None:
            continue
        if best is not None and best.score is not None and trial.verdict is Verdict.KEPT:
            steps.append((trial, account.better_by(trial.score, best.score)))
        if best is None or best.score is None or account.better_by(trial.score, best.score) > 0:
            best = trial
    return steps


def _spread(account: Account) -> tuple[float | None, int]:
    """Pooled standard deviation of one measurement, and the degrees of freedom that it rests on.

    From the recorded spreads where there are any, else from trials that repeat another in words and parent.
    """
    squares, freedom = 0.0, 0
    for trial in account.trials:
        if trial.std is not None and trial.n is not None and trial.n > 1 and trial.score is not None:
            squares, freedom = squares + trial.std**2 * (trial.n - 1) / trial.n, freedom + trial.n - 1
    if not freedom:
        for group in repeated(account):
            scores = [trial.score for trial in group if trial.score is not None]
            if len(scores) > 1:
                squares += statistics.variance(scores) * (len(scores) - 1)
                freedom += len(scores) - 1
    return (math.sqrt(squares / freedom), freedom) if freedom else (None, 0)


def repeated(account: Account) -> list[list[Told]]:
    """Trials that are the same proposal: the same program, or the same words from the same parent."""
    groups: dict[object, list[Told]] = defaultdict(list)
    for trial in account.trials:
        words = " ".join(trial.hypothesis.lower().split())
        if trial.program is not None:
            groups[trial.program].append(trial)
        elif len(words) > 40 and trial.hypothesis != WITHHELD:
            groups[words, trial.parent].append(trial)
    return [group for group in groups.values() if len(group) > 1]


def deltas(account: Account) -> Iterator[Sign]:
    """Deltas as written against the best that stood before the trial."""
    best: float | None = None
    before: list[float] = []
    checked = 0
    older: list[Told] = []
    wrong: list[Told] = []
    for trial in account.trials:
        if trial.delta_written is not None and trial.score is not None and best is not None:
            checked += 1
            if abs(trial.score - best - trial.delta_written) > ROUNDING:
                stale = any(abs(trial.score - score - trial.delta_written) <= ROUNDING for score in before)
                (older if stale else wrong).append(trial)
        if trial.stands and trial.score is not None and (best is None or account.better_by(trial.score, best) > 0):
            best = trial.score
            before.append(best)
    if older:
        yield sign(
            Weight.MINOR,
            f"{len(older)} of {count(checked, 'written delta')} are against a best that was no longer the best "
            "of the rows before",
            older,
        )
    if wrong:
        yield sign(
            Weight.NOTABLE, f"{len(wrong)} of {count(checked, 'written delta')} fit no best of the rows before", wrong
        )


def bounds(account: Account) -> Iterator[Sign]:
    """Kept trials against the bounds that the task declares."""
    kept = [trial for trial in account.trials if trial.verdict is Verdict.KEPT]
    for name, limit in account.limits.items():
        over: list[tuple[float, Told]] = []
        for trial in kept:
            value = trial.metrics.get(name)
            if value is None:
                continue
            if limit.at_most is not None and value > float(limit.at_most):
                over.append((value / float(limit.at_most) - 1, trial))
            if limit.at_least is not None and value < float(limit.at_least):
                over.append((1 - value / float(limit.at_least), trial))
        if not over:
            continue
        share, worst = max(over, key=lambda pair: pair[0])
        bound = f"at most {limit.at_most}" if limit.at_most is not None else f"at least {limit.at_least}"
        later = [trial.number for trial in account.trials if trial.label and name.split("_")[0] in str(trial.label)]
        since = f"; the first trial that was refused for it is {min(later)}" if later else ""
        yield sign(
            Weight.MINOR if share < SLIGHT else Weight.SERIOUS,
            f"{len(over)} of {count(len(kept), 'kept trial')} with {name} beyond the declared bound ({bound}), "
            f"by up to {share:.2%} (trial {worst.number}: {worst.metrics[name]:g}){since}",
            [trial for _, trial in over],
        )


def gates(account: Account) -> Iterator[Sign]:
    """One-sided gates on a noisy mean: how many trials stand nearer to the gate than its noise."""
    for name, limit in account.limits.items():
        bound = limit.at_least if limit.at_least is not None else limit.at_most
        near: list[Told] = []
        for trial in account.trials:
            value, error = trial.metrics.get(name), _error(trial, name)
            if bound is not None and value is not None and error and abs(value - float(bound)) < 2 * error:
                near.append(trial)
        kept = [trial for trial in near if trial.verdict is Verdict.KEPT]
        if kept:
            passed = [trial for trial in near if trial.verdict in (Verdict.KEPT, Verdict.DISCARDED)]
            whole = sum(trial.verdict is Verdict.KEPT for trial in account.trials)
            yield sign(
                Weight.SERIOUS if len(kept) == whole else Weight.NOTABLE,
                f"{len(kept)} of {count(whole, 'kept trial')} within two standard errors of the gate on {name} "
                f"({bound}); {count(len(near), 'trial')} that near in all, {len(passed)} of them on the passing side",
                kept,
            )


def _error(trial: Told, name: str) -> float | None:
    """Standard error of a mean whose spread stands beside it, as `accuracy` and `acc_std`."""
    spread = trial.metrics.get(f"{name}_std", trial.metrics.get(f"{name[:3]}_std"))
    seeds = trial.metrics.get("n_seeds") or trial.n
    return spread / math.sqrt(seeds) if spread and seeds else None


def twins(account: Account) -> Iterator[Sign]:
    """Different trials with one program, one text, or the same numbers to the last digit."""
    groups: dict[tuple[object, ...], list[Told]] = defaultdict(list)
    for trial in account.trials:
        exact = {
            name: value for name, value in trial.metrics.items() if not name.endswith(CLOCKS) and name != "n_seeds"
        }
        if not account.metric.endswith(CLOCKS) and trial.score is not None:
            exact[account.metric] = trial.score
        if len(exact) > 1:
            groups[tuple(sorted(exact.items()))].append(trial)
    same = [group for group in groups.values() if len(group) > 1]
    if same:
        yield sign(
            Weight.NOTABLE,
            f"{count(sum(map(len, same)), 'trial')} in {count(len(same), 'group')} "
            "with the same results to the last digit",
            [trial for group in same for trial in group],
        )
    again = repeated(account)
    if again:
        programs = any(trial.program for group in again for trial in group)
        what = "with one program" if programs else "with the words and the parent of another"
        yield sign(
            Weight.MINOR,
            f"{count(sum(map(len, again)), 'trial')} in {count(len(again), 'group')} {what}",
            [trial for group in again for trial in group],
        )
