"""Command `doctor`: what this machine offers, and what is missing."""

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table as Grid
from rich.text import Text

from evaluators.task import find_task
from ledger.terminal import json_option, plain, screen
from runners.machine import Check, checks

_STYLES = {"ok": "green", "absent": "dim", "missing": "bold red"}


@click.command()
@click.argument("task", required=False)
@json_option
def doctor(task: str | None, as_json: bool) -> None:
    """Show what this machine offers, what TASK needs of it, and what to install.

    Exit code 1 where something that a campaign needs is missing.

    Example: labtrail doctor airbench-cpu
    """
    found = checks(find_task(task).contract if task else None, Path.cwd())
    missing = [check for check in found if check.state == "missing"]
    if as_json:
        click.echo(json.dumps({"ready": not missing, "checks": [asdict(check) for check in found]}, indent=2))
    else:
        _show(found)
    raise SystemExit(1 if missing else 0)


def _show(found: list[Check]) -> None:
    grid = Grid(show_header=False, box=None, padding=(0, 2, 0, 0))
    for check in found:
        state = Text(check.state, _STYLES[check.state])
        grid.add_row(Text(check.name), state, plain(Text(check.found)), plain(Text(check.advice)))
    screen().print(grid)
