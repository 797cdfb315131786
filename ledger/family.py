"""The tree of trials: who descends from whom, which subtrees to fold, and the tree as text, DOT and Mermaid."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from ledger.terminal import STYLES, plain
from ledger.vocabulary import Verdict

Row = Mapping[str, Any]
"""One trial of the view `trials`, with `on_champion_path` of the view `lineage`."""

SHOWN_CHILDREN = 6
"""Trials off the champion's path that stand below one parent before the rest is counted only."""
HYPOTHESIS_CHARS = 60
"""Of a hypothesis in a graph; the terminal cuts at its width."""
FILLS = {
    Verdict.BASELINE: "#dddddd",
    Verdict.KEPT: "#b7e4c7",
    Verdict.DISCARDED: "#ffffff",
    Verdict.DISQUALIFIED: "#ffe8a3",
    Verdict.FAILED: "#f8c4c4",
}
OPEN_FILL = "#d6e4ff"


@dataclass(frozen=True)
class Folded:
    """Trials that are counted instead of shown, by what became of them."""

    outcomes: Counter[str]

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
        return f"{self.outcomes.total()} more: {counts}"


class Family:
    """The trials of one campaign as a tree; a trial whose parent is not among them is a root."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = {row["trial"]: row for row in rows}
        self.children: dict[int | None, list[int]] = {}
        for trial, row in sorted(self.rows.items()):
            # A parent stands before its trial: no record can make a circle.
            known = row["parent"] in self.rows and row["parent"] < trial
            self.children.setdefault(row["parent"] if known else None, []).append(trial)

    def around(self, trial: int) -> "Family":
        """The ancestors of a trial, itself, and its descendants."""
        kept = set(self._below(trial))
        above: int | None = self.rows[trial]["parent"]
        while above is not None and above in self.rows and above not in kept:
            kept.add(above)
            above = self.rows[above]["parent"]
        return Family(self.rows[number] for number in sorted(kept))

    def lines(self, everything: bool = False, ascii_only: bool = False, width: int = 100_000) -> list[Text]:
        """One line a trial, roots first; without `everything` large subtrees off the champion's path are counted."""
        shown: list[Text] = []
        fork, last, bar, blank = ("|-", "`-", "| ", "  ") if ascii_only else ("├─", "└─", "│ ", "  ")
        pending: list[tuple[int | Folded, str, str]] = [
            (root, "", "") for root in reversed(self.children.get(None, []))
        ]
        while pending:
            item, prefix, below = pending.pop()
            shown.append(_indented(prefix, width, ascii_only))
            if isinstance(item, Folded):
                shown[-1].append(("... " if ascii_only else "… ") + str(item), "dim")
                continue
            shown[-1].append_text(line_of(self.rows[item], ascii_only))
            children = self._visible(item, everything)
            for index, child in reversed(list(enumerate(children))):
                at_end = index == len(children) - 1
                pending.append((child, below + (last if at_end else fork), below + (blank if at_end else bar)))
        return shown

    def dot(self) -> str:
        """The whole tree for Graphviz."""
        lines = ["digraph lineage {", '  node [shape=box, style="rounded,filled", fontname="sans-serif"];']
        for trial, row in self.rows.items():
            label = "\\n".join(_dot_text(part) for part in _parts(row))
            width = ", penwidth=3" if row["on_champion_path"] else ""
            lines.append(f'  t{trial} [label="{label}", fillcolor="{_fill(row)}"{width}];')
        for parent, child in self._edges():
            width = " [penwidth=3]" if self.rows[child]["on_champion_path"] else ""
            lines.append(f"  t{parent} -> t{child}{width};")
        return "\n".join([*lines, "}"]) + "\n"

    def mermaid(self) -> str:
        """The whole tree as a Mermaid flowchart, which Markdown viewers draw."""
        lines = ["flowchart TD"]
        for trial, row in self.rows.items():
            label = "<br/>".join(_mermaid_text(part) for part in _parts(row))
            lines.append(f'  t{trial}["{label}"]:::{row["verdict"] or "open"}')
        for parent, child in self._edges():
            lines.append(f"  t{parent} {'==>' if self.rows[child]['on_champion_path'] else '-->'} t{child}")
        for name, fill in [*FILLS.items(), ("open", OPEN_FILL)]:
            lines.append(f"  classDef {name} fill:{fill},stroke:#555,color:#000")
        return "\n".join(lines) + "\n"

    def _visible(self, trial: int, everything: bool) -> list[int | Folded]:
        """Children to show; then, off the champion's path, what is folded."""
        children = self.children.get(trial, [])
        if everything:
            return list(children)
        free = SHOWN_CHILDREN
        shown: list[int | Folded] = []
        folded: list[int] = []
        for child in children:
            if self.rows[child]["on_champion_path"]:
                shown.append(child)
                continue
            below = self._below(child)
            if len(below) <= free:
                free -= len(below)
                shown.append(child)
            else:
                folded += below
        if len(folded) < 2:
            return list(children)
        return [*shown, Folded(Counter(outcome_of(self.rows[number]) for number in folded))]

    def _below(self, trial: int) -> list[int]:
        """The trial and its descendants."""
        found, pending = [], [trial]
        while pending:
            found.append(pending.pop())
            pending += self.children.get(found[-1], [])
        return found

    def _edges(self) -> Iterator[tuple[int, int]]:
        return (
            (parent, child) for parent, children in self.children.items() if parent is not None for child in children
        )


def outcome_of(row: Row) -> str:
    """The failure label, the verdict, or that there is none."""
    return str(row["label"] or row["verdict"] or "without verdict")


def line_of(row: Row, ascii_only: bool = False) -> Text:
    """A trial in one line: mark of the champion's path, number, outcome in its colour, score, hypothesis."""
    line = Text()
    line.append(("* " if ascii_only else "★ ") if row["on_champion_path"] else "", "bold green")
    line.append(f"{row['trial']} ", "bold")
    line.append(outcome_of(row), STYLES[Verdict(row["verdict"])] if row["verdict"] else "yellow")
    if row["score"] is not None:
        line.append(f" {_score(row, '+-' if ascii_only else '±')}")
    about = f"  {row['claimed_domain']}: {row['hypothesis']}" if row["hypothesis"] else "  starting recipe"
    return plain(line.append(about, "dim"))


def _indented(prefix: str, width: int, ascii_only: bool) -> Text:
    """The branches before a trial; its depth in figures where they would leave no room."""
    if len(prefix) <= width // 2:
        return Text(prefix, "dim")
    return Text(f"{'..' if ascii_only else '…'}{len(prefix) // 2} ", "dim")


def _score(row: Row, between: str) -> str:
    return f"{row['score']:.5g} {between} {row['score_std'] or 0:.2g}"


def _fill(row: Row) -> str:
    return FILLS[Verdict(row["verdict"])] if row["verdict"] else OPEN_FILL


def _parts(row: Row) -> list[str]:
    parts = [f"{row['trial']} {outcome_of(row)}"]
    if row["score"] is not None:
        parts.append(_score(row, "±"))
    if row["hypothesis"]:
        text = f"{row['claimed_domain']}: {row['hypothesis']}"
        parts.append(text if len(text) <= HYPOTHESIS_CHARS else text[: HYPOTHESIS_CHARS - 1] + "…")
    return [plain(Text(part)).plain for part in parts]


def _dot_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _mermaid_text(text: str) -> str:
    """Mermaid reads `#NUMBER;` as a character; whatever could be syntax, Markdown or HTML is written so."""
    return "".join(char if char.isalnum() or char in " .,:±+-_=…" else f"#{ord(char)};" for char in text)
