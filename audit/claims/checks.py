"""The table of checks on an account: what each asks, and what would settle what it finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from audit.claims import instruments, results, texts
from audit.claims.account import Account
from audit.claims.finding import Finding, Sign, Weight

__all__ = ["CHECKS", "Check", "Finding", "examined"]


@dataclass(frozen=True)
class Check:
    """One check: pure, over one account, and quiet where the record gives no reason to speak."""

    name: str
    asks: str
    settles: str
    signs: Callable[[Account], Iterator[Sign]]


CHECKS: tuple[Check, ...] = (
    Check("baseline", "was the baseline measured, more than once, and within the bounds?",
          "runs of the starting recipe with several seeds, measured like the trials", results.baseline),
    Check("champion", "is the champion the best trial that stands?",
          "the champion and the trials above it measured again side by side", results.champion),
    Check("kept gains", "are kept gains larger than the scatter of one recipe?",
          "repetitions of the champion and of the one before it, with fresh seeds", results.kept_steps),
    Check("deltas", "are written deltas those of the scores?",
          "the best that the harness compared with, recorded beside each delta", results.deltas),
    Check("bounds", "do kept trials keep the declared bounds?",
          "the clock that the bound is about, read by the evaluator, and the date of every change of the rule",
          results.bounds),
    Check("gates", "is a gate passed by more than its noise?",
          "fresh seeds for the kept trials, and a gate on a confidence bound instead of a mean", results.gates),
    Check("twins", "do different trials have one program or one result?",
          "the code of these trials, compared up to comments and formatting", results.twins),
    Check("resolution", "is a number written with other decimals from some trial on?",
          "the version of the evaluator that ran each trial", instruments.resolution),
    Check("level", "does a clock or size change its level at some trial?",
          "a kept recipe that explains it, or the machine and evaluator of each trial; the baseline measured again",
          instruments.level),
    Check("order", "do numbers and times rise without gaps?",
          "an append-only log that assigns numbers and times itself", instruments.order),
    Check("pauses", "did the campaign run through?",
          "starts, stops and their reasons, recorded as events", instruments.pauses),
    Check("calibration", "do predictions tell sign and size?",
          "nothing: it describes the proposals", instruments.calibration),
    Check("edits", "were rows written again after their time?",
          "the row as it was first written: a log that only grows", texts.edited),
    Check("parents", "do declared parents exist, and have a result?",
          "the code of parent and child: a diff shows what a trial started from", texts.parents),
    Check("machine", "are there failures that are not the idea's?",
          "the same trials run again on a sound machine", texts.machine),
    Check("leaks", "do tool calls or lost tabs stand in the texts?",
          "the raw response of the model, and records in a format with quoting", texts.leaks),
    Check("harness tests", "do test submissions count as trials?",
          "nothing: they can be left out of every count", texts.trials_of_the_harness),
)  # fmt: skip
"""In the order in which they are reported; a later check is one more entry."""


def examined(account: Account) -> list[Finding]:
    """What all checks find in one account, most weighty first."""
    found = [
        Finding(
            check=check.name,
            weight=one.weight,
            shows=one.shows,
            trials=tuple(trial.number for trial in one.trials),
            lines=tuple(trial.line for trial in one.trials if trial.line is not None),
            settles=check.settles,
        )
        for check in CHECKS
        for one in check.signs(account)
    ]
    order = list(Weight)
    return sorted(found, key=lambda finding: order.index(finding.weight))
