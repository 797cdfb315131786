"""Command `status`: the campaigns of a ledger."""

import json
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from ledger.log import EventLog
from ledger.terminal import json_option, ledger_option, screen
from ledger.views import Views


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
