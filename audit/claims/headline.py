"""The headline of a campaign calculated from its trials, and which evidence there is for it."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from scipy import stats

from audit.claims.account import Account, Told
from ledger.vocabulary import EVIDENCE_RULES, Verdict

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Headline:
    """What a campaign reached, and how much of its story can be checked."""

    campaign: str
    origin: str
    task: str
    metric: str
    unit: str
    direction: str
    trials: int
    """The baseline not counted."""
    baseline: float | None
    champion: int | None
    champion_score: float | None
    change: float | None
    """The champion's score against the baseline's, relative; signed as the metric is."""
    interval: tuple[float, float] | None
    """Of the change, at CONFIDENCE, from the spreads of both (Welch); none where a spread is missing."""
    outcomes: dict[str, int]
    """Trials by label, or by verdict where there is none."""
    kept_on_path: int
    kept_off_path: int
    """Kept trials that the champion does not descend from, as far as parents are recorded."""
    arch_claimed: int
    evidence: dict[str, float]
    """Kind of evidence -> share of the trials that have it."""
    auditability: float
    """Mean of these shares, 0 to 100: what a campaign can improve by recording more."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def headline_of(account: Account) -> Headline:
    """Calculated from the trials alone; nothing that the source says about its champion is used."""
    tried = [trial for trial in account.trials if trial.verdict is not Verdict.BASELINE]
    baseline, champion = account.baseline, account.champion
    kept = [trial.number for trial in tried if trial.verdict is Verdict.KEPT]
    outcomes = Counter(str(trial.label or trial.verdict or "no verdict") for trial in tried)
    total = len(account.trials) or 1
    evidence = {str(kind): sum(kind in trial.evidence for trial in account.trials) / total for kind in EVIDENCE_RULES}
    change = None
    if baseline is not None and champion is not None and baseline.score and champion.score is not None:
        change = (champion.score - baseline.score) / abs(baseline.score)
    return Headline(
        campaign=account.campaign,
        origin=account.origin,
        task=account.task,
        metric=account.metric,
        unit=account.unit,
        direction=account.direction,
        trials=len(tried),
        baseline=None if baseline is None else baseline.score,
        champion=None if champion is None else champion.number,
        champion_score=None if champion is None else champion.score,
        change=change,
        interval=_interval(baseline, champion),
        outcomes=dict(outcomes.most_common()),
        kept_on_path=sum(number in account.path for number in kept),
        kept_off_path=sum(number not in account.path for number in kept),
        arch_claimed=sum(trial.domain == "arch" for trial in tried),
        evidence=evidence,
        auditability=round(100 * sum(evidence.values()) / len(evidence), 1),
    )


def _interval(baseline: Told | None, champion: Told | None) -> tuple[float, float] | None:
    if baseline is None or champion is None or baseline is champion:
        return None
    if baseline.score is None or champion.score is None or not baseline.score:
        return None
    if baseline.std is None or champion.std is None or (baseline.n or 0) < 2 or (champion.n or 0) < 2:
        return None
    first, second = baseline.std**2 / (baseline.n or 1), champion.std**2 / (champion.n or 1)
    spread = first + second
    scale = abs(baseline.score)
    change = (champion.score - baseline.score) / scale
    if spread == 0:
        return (change, change)
    freedom = spread**2 / (first**2 / ((baseline.n or 2) - 1) + second**2 / ((champion.n or 2) - 1))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * math.sqrt(spread) / scale
    return (change - half, change + half)
