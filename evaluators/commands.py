"""Command `tasks`: the contracts that campaigns run under."""

import json

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from evaluators.task import Contract, builtin_tasks, find_task
from ledger.terminal import json_option, screen


@click.command()
@click.argument("name", required=False)
@json_option
def tasks(name: str | None, as_json: bool) -> None:
    """List the tasks, or show the whole contract of NAME.

    Example: labtrail tasks airbench-cpu
    """
    console = screen()
    found = [find_task(name)] if name else list(builtin_tasks())
    if as_json:
        click.echo(json.dumps([json.loads(task.contract.blob) for task in found], indent=2))
        return
    if name:
        _show_contract(console, found[0].contract)
        return
    grid = Grid("task", "metric", "gates", "specialists", "what it is", box=None, padding=(0, 2, 0, 0))
    for contract in (task.contract for task in found):
        metric = f"{contract.metric.direction} {contract.metric.name} ({contract.metric.unit})"
        roster = " ".join(specialist.name for specialist in contract.specialists)
        grid.add_row(contract.name, metric, ", ".join(map(str, contract.gates)), roster, contract.title)
    console.print(grid)


def _show_contract(console: Console, contract: Contract) -> None:
    grid = Grid(show_header=False, box=None, padding=(0, 2, 0, 0))
    metric, budgets = contract.metric, contract.budgets
    grid.add_row("task", Text(f"{contract.name}: {contract.title}"))
    grid.add_row("metric", f"{metric.direction} {metric.name} ({metric.unit})")
    grid.add_row("gates", "\n".join(f"{gate}, else {gate.label}" for gate in contract.gates) or "none")
    grid.add_row("budgets", f"train {budgets.train_s:g} s wall, each prediction {budgets.predict_s:g} s, ")
    grid.add_row(
        "", f"{budgets.memory_bytes / 1e6:,.0f} MB memory, {budgets.threads} thread, log {budgets.log_bytes:,} bytes"
    )
    seeds, noise = contract.seeds, contract.noise
    screened = f", {seeds.screen} where it is clearly worse (p < {noise.hopeless:g})" if seeds.screen else ""
    grid.add_row("seeds", f"{seeds.baseline} for the baseline, {seeds.trial} a trial{screened}")
    if seeds.confirm:
        confirmed = f"one-sided p < {noise.promising:g}: run {seeds.confirm} times more in turn with the champion"
        grid.add_row("promising where", confirmed)
    rounds = "in those runs" if seeds.confirm else "against the champion"
    grid.add_row("kept where", f"one-sided p < {1 - noise.confidence:g} {rounds}, pooled noise")
    for specialist in contract.specialists:
        grid.add_row(f"  {specialist.name}", Text(f"{', '.join(specialist.files)}: {specialist.charter}"))
    grid.add_row("digest", contract.digest)
    console.print(grid)
