"""Views -> what an agent sees of the past: a value, and its text; pure, so that an auditor can render it again."""

from dataclasses import dataclass

from ledger.views import Views
from ledger.vocabulary import Verdict

RENDERER = "lineage-1"
"""Name of this rendering; an auditor renders again with the same one."""


@dataclass(frozen=True)
class PastTrial:
    """One row of the lineage; trial 0 is the starting recipe."""

    trial: int
    specialist: str | None
    domain: str | None
    parent: int | None
    operator: str | None
    hypothesis: str | None
    expected_delta: float | None
    verdict: str | None
    """None where the trial was abandoned."""
    label: str | None
    detail: str | None
    mean: float | None
    std: float | None
    n: int
    gain: float | None
    """Improvement over the champion of its time; positive is better."""
    p_value: float | None
    program: str | None
    """Digest of the program up to comments and formatting."""
    seconds: float
    """Wall-clock seconds over all its runs."""


@dataclass(frozen=True)
class Lineage:
    """A campaign's trials as of one event."""

    campaign: str
    as_of: int
    metric: str
    unit: str
    direction: str
    champion: int
    trials: tuple[PastTrial, ...]

    def trial(self, number: int) -> PastTrial:
        """Raises KeyError for a trial that has not begun."""
        return {trial.trial: trial for trial in self.trials}[number]


def lineage_of(views: Views, campaign: str) -> Lineage:
    """The campaign's lineage as of the views' position."""
    (facts,) = views.query("SELECT metric, unit, direction FROM campaigns WHERE campaign = ?", [campaign]).records()
    answer = views.query(
        """
        SELECT trial, specialist, claimed_domain AS domain, parent, operator, hypothesis, expected_delta,
          verdict, label, reason AS detail, score AS mean, score_std AS std, coalesce(score_n, 0) AS n,
          gain, p_value, program, seconds
        FROM trials WHERE campaign = ? ORDER BY trial
        """,
        [campaign],
    )
    trials = tuple(PastTrial(**record) for record in answer.records())
    champion = max((trial.trial for trial in trials if trial.verdict in (Verdict.BASELINE, Verdict.KEPT)), default=0)
    return Lineage(campaign=campaign, as_of=views.position, champion=champion, trials=trials, **facts)


def render(lineage: Lineage) -> str:
    """The lineage as Markdown: champion and its path, every trial's outcome, failures by label."""
    champion = lineage.trial(lineage.champion)
    lines = [
        f"# Lineage of {lineage.campaign} as of event {lineage.as_of}",
        "",
        f"Metric: {lineage.metric} in {lineage.unit}, {lineage.direction}.",
        f"Champion: trial {champion.trial} with {_score(champion)}.",
        f"Path: {' <- '.join(str(number) for number in _path(lineage))}",
        "",
        "| trial | parent | domain | verdict | score | gain | p | hypothesis | outcome |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(trial) for trial in lineage.trials]
    return "\n".join(lines) + "\n"


def _row(trial: PastTrial) -> str:
    verdict = trial.label or trial.verdict or "no verdict"
    cells = (
        str(trial.trial),
        "" if trial.parent is None else str(trial.parent),
        trial.domain or "",
        verdict,
        _score(trial),
        "" if trial.gain is None else f"{trial.gain:+.4g}",
        "" if trial.p_value is None else f"{trial.p_value:.2g}",
        trial.hypothesis or "starting recipe",
        trial.detail or "",
    )
    # A cell must not end its row or table: hypotheses and details come from agents and recipes.
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


def _score(trial: PastTrial) -> str:
    return "" if trial.mean is None else f"{trial.mean:.5g} ± {trial.std or 0:.2g} (n={trial.n})"


def _path(lineage: Lineage) -> list[int]:
    """Champion first, baseline last."""
    path = [lineage.champion]
    while (parent := lineage.trial(path[-1]).parent) is not None:
        path.append(parent)
    return path
