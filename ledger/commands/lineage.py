"""Command `lineage`: the tree of trials, or everything about one."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ledger.family import Family
from ledger.log import EventLog, LedgerError, WithheldBlob
from ledger.terminal import emit, json_option, ledger_option, plain, screen
from ledger.views import Views


@click.command()
@click.argument("trial", type=int, required=False)
@ledger_option
@click.option("--campaign", help="Which campaign  [default: the last one]")
@click.option("--all", "everything", is_flag=True, help="Show large subtrees too instead of counting them.")
@json_option
@click.option("--dot", is_flag=True, help="Print a graph for Graphviz.")
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart.")
def lineage(
    trial: int | None, ledger: Path, campaign: str | None, everything: bool, as_json: bool, dot: bool, mermaid: bool
) -> None:
    """Show the tree of trials, or everything about one TRIAL and its family.

    A star marks the way from the starting recipe to the champion.

    Example: labtrail lineage --ledger demo.db
    """
    if as_json + dot + mermaid > 1:
        raise click.UsageError("expected one of --json, --dot and --mermaid")
    with EventLog.read_only(ledger) as log:
        views = Views.of(log)
        rows = _rows(views, views.last_campaign(campaign))
        views.close()
        family = Family(rows)
        if trial is not None:
            if trial not in family.rows:
                raise LedgerError(f"{ledger}: the campaign has no trial {trial}; the last one is {max(family.rows)}")
            family = family.around(trial)
            rows = [row for row in rows if row["trial"] == trial]
        if as_json:
            emit(json.dumps(rows, default=str, indent=2) + "\n")
        elif dot:
            emit(family.dot())
        elif mermaid:
            emit(family.mermaid())
        else:
            _show(screen(), log, family, rows[0] if trial is not None else None, everything)


def _rows(views: Views, campaign: str) -> list[dict[str, Any]]:
    return views.query(
        "SELECT t.*, l.depth, l.path, coalesce(l.on_champion_path, false) AS on_champion_path "
        "FROM trials t LEFT JOIN lineage l USING (campaign, trial) WHERE campaign = ? ORDER BY trial",
        [campaign],
    ).records()


def _show(console: Console, log: EventLog, family: Family, one: dict[str, Any] | None, everything: bool) -> None:
    ascii_only = console.options.ascii_only
    with console.capture() as captured:
        if one is not None:
            console.print(_facts(one))
        for line in family.lines(everything, ascii_only, console.width):
            console.print(line, overflow="ellipsis", no_wrap=True, highlight=False)
        if not family.rows:
            console.print("no trials yet")
        if one is not None and one["diff"]:
            console.print()
            for text in _diff(log, one["diff"]).split("\n"):
                console.print(plain(Text(text)), soft_wrap=True, highlight=False)
    emit(captured.get())


def _diff(log: EventLog, digest: str) -> str:
    try:
        return log.blob(digest).decode(errors="replace")
    except WithheldBlob:
        return "the diff is withheld from this copy"


def _facts(row: dict[str, Any]) -> Grid:
    grid = Grid(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in row.items():
        if value is not None and name != "diff":
            grid.add_row(name, plain(Text(" ".join(map(str, value)) if isinstance(value, list) else str(value))))
    return grid
