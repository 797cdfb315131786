"""Whether the declared parent is the nearest ancestor among the recorded versions."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ledger.recipes import Recipe

MARGIN = 0.8
"""Another version counts as nearer from this share of the declared parent's distance on."""


@dataclass(frozen=True)
class ParentMismatch:
    """An earlier version that a trial's code is nearer to than to its declared parent."""

    declared: int
    nearest: int
    distance_declared: int
    """Lines that differ, indentation and blank lines aside."""
    distance_nearest: int


def nearest_parent(new: Recipe, declared: int, versions: Mapping[int, Recipe]) -> ParentMismatch | None:
    """The nearer ancestor, or None where the declared parent is (about) the nearest. Raises KeyError for no parent."""
    lines = _lines(new)
    distances = {trial: _distance(lines, _lines(recipe)) for trial, recipe in versions.items()}
    own = distances[declared]
    nearest = min(distances, key=lambda trial: (distances[trial], trial != declared, trial))
    # A few lines may agree by chance: the other version must be nearer by a fifth, and by two lines at least.
    if nearest == declared or distances[nearest] > MARGIN * own or own - distances[nearest] < 2:
        return None
    return ParentMismatch(declared, nearest, own, distances[nearest])


def _lines(recipe: Recipe) -> Counter[tuple[str, str]]:
    return Counter(
        (path, line.strip()) for path, text in recipe.files.items() for line in text.splitlines() if line.strip()
    )


def _distance(a: Counter[tuple[str, str]], b: Counter[tuple[str, str]]) -> int:
    return sum((a - b).values()) + sum((b - a).values())
