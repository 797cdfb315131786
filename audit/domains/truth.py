"""Diff truth: what an edit did and did not say, what it says and did not do, and whether it touched the measuring."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from audit.domains.lexicon import SURFACES
from audit.domains.names import snake
from audit.domains.report import Change, EditReport, Kind
from audit.domains.text import label_text
from ledger.vocabulary import Domain

# Abbreviations of the field, so that "weight decay" mentions `muon_wd` and "learning rate" mentions `matrix_lr`.
_SAME = {
    "wd": ("weight decay", "decay"),
    "lr": ("learning rate", "lr"),
    "rate": ("learning rate", "rate"),
    "peak": ("learning rate", "peak"),
    "ema": ("averag", "ema"),
    "average": ("averag", "ema"),
    "hold": ("dropout", "drop"),
    "decay": ("decay",),
    "epochs": ("epoch",),
    "steps": ("step", "iteration"),
    "iterations": ("step", "iteration", "longer"),
    "seq": ("sequence", "context"),
    "wallclock": ("wallclock", "wall-clock", "time budget"),
    "ttt": ("test-time", "ttt"),
    "stride": ("stride",),
    "clip": ("clip",),
    "seed": ("seed",),
    "smoothing": ("smoothing",),
}
_CHANGE_OF = re.compile(
    r"`?(?P<name>[a-z][a-z0-9]*(?:_[a-z0-9]+)+)`?\s*(?:=|:|from)?\s*[\d.e+-]+\s*(?:→|->|to)\s*(?P<new>[\d.][\d._e+-]*)",
    re.I,
)
_VAGUE = frozenset(
    {
        "init",
        "forward",
        "self",
        "main",
        "step",
        "fn",
        "x",
        "y",
        "value",
        "new",
        "old",
        "num",
        "max",
        "start",
        "end",
        "n",
    }
)


@dataclass(frozen=True)
class Truth:
    """How an edit compares with what its author said about it."""

    undeclared: tuple[Change, ...]
    """Changes that the hypothesis does not mention."""
    absent: tuple[str, ...]
    """What the hypothesis announces and the code does not do, one line each."""
    outside: tuple[Change, ...]
    """Changes outside the specialist's surface."""
    measuring: tuple[Change, ...]
    """Changes to code that computes or prints the metric."""

    @property
    def honest(self) -> bool:
        """Whether nothing of all this was found."""
        return not (self.undeclared or self.absent or self.outside or self.measuring)


def undeclared(
    report: EditReport,
    hypothesis: str,
    claimed_domain: str | Domain | None,
    surface: Iterable[Domain | str] | None = None,
) -> Truth:
    """Compare an edit with its hypothesis. `surface` holds domains or file names that may change; None allows all."""
    claimed = str(claimed_domain) if claimed_domain else None
    label = label_text(hypothesis, "", claimed)
    said = {label.domain, *label.also} | ({Domain(claimed)} if claimed in set(Domain) else set())
    allowed = None if surface is None else {str(item) for item in surface}
    quiet = tuple(change for change in report.changes if not _declared(change, report, hypothesis, said))
    outside = tuple(
        change
        for change in report.changes
        if allowed is not None and not change.follows and change.domain not in allowed and change.file not in allowed
    )
    return Truth(
        quiet, tuple(_absent(report, hypothesis, claimed)), outside, tuple(c for c in report.changes if c.measuring)
    )


def _declared(change: Change, report: EditReport, hypothesis: str, said: set[Domain]) -> bool:
    """Whether the text mentions a change: by name, by its new value, or, for code, by the surface it belongs to."""
    if change.follows or _mentions(change, hypothesis):
        return True
    if change.measuring and Domain.EVAL not in said:
        return False
    if change.kind is Kind.STRUCTURAL:
        return change.domain in said
    rivals = [other for other in report.changes if other.domain is change.domain and not other.follows]
    if change.domain not in said or not SURFACES[change.domain].search(hypothesis):
        # One constant of the surface that was claimed, described in other words than its name.
        return change.domain in said and len(report.changes) == 1
    # The text speaks of this surface; with a rival that it names outright, it speaks of that one.
    return not any(_mentions(other, hypothesis) for other in rivals if other is not change) or any(
        other.kind is Kind.STRUCTURAL for other in rivals
    )


def _mentions(change: Change, hypothesis: str) -> bool:
    text = hypothesis.lower()
    name = change.symbol.rpartition(".")[2]
    name = name.partition("(")[2].rstrip(")") if "(" in name else name
    plain = snake(name)
    if plain in text or plain.replace("_", " ") in text or plain.replace("_", "-") in text:
        return len(plain) > 2
    if _value_in(change.new, text) and (
        change.old is None or _value_in(change.old, text) or change.kind is not Kind.STRUCTURAL
    ):
        return True
    words = [word for word in plain.split("_") if word not in _VAGUE and len(word) > 1]
    return bool(words) and all(any(form in text for form in (*_SAME.get(word, ()), word)) for word in words)


def _value_in(source: str | None, text: str) -> bool:
    """Whether the number that a change is about stands in the text, however it is written there."""
    if source is None:
        return False
    match = re.fullmatch(r"\(?['\"]?(-?[\d.]+(?:e[+-]?\d+)?)['\"]?\)?", source)
    if match is None:
        return False
    value = float(match[1])
    numbers = re.findall(r"(?<![\w.])-?\d[\d_,]*(?:\.\d+)?(?:e[+-]?\d+)?", text)
    return any(_number(item) == value for item in numbers) and abs(value) not in (0.0, 1.0, 2.0)


def _number(text: str) -> float | None:
    try:
        return float(text.replace("_", "").replace(",", ""))
    except ValueError:
        return None


def _absent(report: EditReport, hypothesis: str, claimed: str | None) -> Iterable[str]:
    """Constants announced with a new value that nothing was given; a claimed surface that did not change at all."""
    if not report.changes:
        yield "the program did not change"
        return
    changed = " ".join(f"{change.symbol} {change.evidence}" for change in report.changes).lower()
    for match in _CHANGE_OF.finditer(hypothesis):
        words = [word for word in match["name"].lower().split("_") if word not in _VAGUE]
        value = _number(match["new"].rstrip("."))
        named = match["name"].lower() in changed or all(word in changed for word in words)
        if not named and not any(_number(item) == value for item in re.findall(r"-?\d[\d.]*(?:e[+-]?\d+)?", changed)):
            yield f"{match['name']} is said to become {match['new'].rstrip('.')}"
    if claimed in set(Domain) and Domain(claimed) not in report.shares:
        yield f"no change of {claimed}, which was claimed"
