"""Figures of a benchmark beside those of a peer or a limit, with the ratio that is wanted."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import click


@dataclass(frozen=True)
class Row:
    """One figure, its peer's in the same run, and how large the ratio is to be."""

    what: str
    ours: float
    peer: str
    theirs: float
    goal: float
    unit: str = "events/s"
    less_is_better: bool = False

    @property
    def ratio(self) -> float:
        """How many times better we are."""
        return self.theirs / self.ours if self.less_is_better else self.ours / self.theirs


def show(rows: Sequence[Row], as_json: bool) -> None:
    """Print one line a row, or JSON."""
    if as_json:
        click.echo(json.dumps([{**asdict(row), "ratio": row.ratio} for row in rows], indent=1))
        return
    for row in rows:
        verdict = "reached" if row.ratio >= row.goal else "NOT reached"
        click.echo(
            f"{row.what:<44}{row.ours:>12,.5g} {row.unit:<9} {row.peer:<34}{row.theirs:>11,.5g}"
            f"{row.ratio:>8.2f}x  goal {row.goal:g}x {verdict}"
        )


def rate(count: int, action: Callable[[], object]) -> float:
    """Events a second."""
    return count / seconds(action)


def seconds(action: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
