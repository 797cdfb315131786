"""Commands that show what a ledger holds: status, lineage."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text
from rich.tree import Tree

from ledger.log import EventLog, LedgerError, WithheldBlob
from ledger.terminal import STYLES, json_option, ledger_option, plain, screen
from ledger.views import Views
from ledger.vocabulary import Verdict


@click.command()
@ledger_option
@json_option
def status(ledger: Path, as_json: bool) -> None:
    """Show the campaigns of a ledger: state, trials, champion.

    Example: labtrail status --ledger demo.db
    """
    with EventLog.read_only(ledger) as log:
        campaigns = Views.of(log).query("FROM campaigns").records()
        head = log.head()
    if as_json:
        found = {"events": head.size, "root": head.root.hex(), "campaigns": campaigns}
        click.echo(json.dumps(found, default=str))
        return
    console = screen()
    for row in campaigns:
        console.print(_campaign_line(row), highlight=False)
    console.print(f"{head.size} events, root {head.root.hex()}", highlight=False)


@click.command()
@click.argument("trial", type=int, required=False)
@ledger_option
@click.option("--campaign", help="Which campaign  [default: the last one]")
@json_option
def lineage(trial: int | None, ledger: Path, campaign: str | None, as_json: bool) -> None:
    """Show the tree of trials, or everything about one TRIAL.

    Example: labtrail lineage --ledger demo.db
    """
    with EventLog.read_only(ledger) as log:
        views = Views.of(log)
        chosen = views.last_campaign(campaign)
        rows = views.query(
            "SELECT t.*, l.depth, l.on_champion_path FROM trials t LEFT JOIN lineage l USING (campaign, trial) "
            "WHERE campaign = ? ORDER BY trial",
            [chosen],
        ).records()
        if trial is not None:
            rows = [row for row in rows if row["trial"] == trial]
            if not rows:
                raise LedgerError(f"{ledger}: campaign {chosen} has no trial {trial}")
        if as_json:
            click.echo(json.dumps(rows, default=str, indent=2))
        elif trial is not None:
            _show_trial(screen(), log, rows[0])
        else:
            screen().print(_tree(rows))


def _campaign_line(row: dict[str, Any]) -> Text:
    """State, counts and champion of one campaign."""
    unit = "" if row["unit"] == "1" else f" {row['unit']}"
    line = Text.assemble((row["campaign"], "bold"), f"  {row['state']}; {row['trials']} trials: {row['kept']} kept, ")
    line.append(
        f"{row['failed']} failed; {row['unfinished']} without verdict; {row['seconds'] or 0:.0f} s in recipes\n"
    )
    if row["baseline"] is None:
        return line.append("    the baseline is not measured yet")
    best = f"champion: trial {row['champion']}" if row["champion"] else "champion: the starting recipe"
    line.append(f"    {row['metric']} {row['baseline']:.5g} -> {row['champion_score']:.5g}{unit}, {best}")
    return line


def _show_trial(console: Console, log: EventLog, row: dict[str, Any]) -> None:
    grid = Grid(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in row.items():
        if value is not None and name != "diff":
            grid.add_row(name, plain(Text(str(value))))
    console.print(grid)
    if row["diff"]:
        try:
            diff = log.blob(row["diff"]).decode(errors="replace")
        except WithheldBlob:
            diff = "the diff is withheld from this copy"
        for line in diff.split("\n"):
            console.print(plain(Text(line)), soft_wrap=True)


def _tree(rows: Iterable[dict[str, Any]]) -> Tree:
    """The tree of trials; the champion's path is marked with a star."""
    nodes: dict[int, Tree] = {}
    root: Tree | None = None
    for row in rows:
        label = Text()
        label.append("★ " if row["on_champion_path"] else "", "bold green")
        label.append(f"{row['trial']} ", "bold")
        verdict = row["verdict"]
        label.append(row["label"] or verdict or "no verdict", STYLES[Verdict(verdict)] if verdict else "yellow")
        if row["score"] is not None:
            label.append(f" {row['score']:.5g} ± {row['score_std']:.2g}")
        label.append(
            f"  {row['claimed_domain']}: {row['hypothesis']}" if row["hypothesis"] else "  starting recipe", "dim"
        )
        parent = nodes.get(row["parent"]) if row["parent"] is not None else None
        if parent is None:
            root = nodes[row["trial"]] = Tree(plain(label))
        else:
            nodes[row["trial"]] = parent.add(plain(label))
    return root or Tree("no trials yet")
