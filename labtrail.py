"""Labtrail: closed-loop research on training recipes with a record that holds up. Command line and public names."""

import csv
import json
import os
import secrets
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text
from rich.tree import Tree

from agents.console import STYLES, Narrator, plain, summarise
from agents.search import Search
from agents.supervisor import Bench, CampaignError, StopRules, Supervisor
from evaluators.task import Contract, Task, TaskError, builtin_tasks, find_task
from ledger import checkpoint, entry
from ledger.backup import backup
from ledger.browse import BrowseError, serve
from ledger.campaign import Campaign
from ledger.checkpoint import CheckpointError
from ledger.events import EventError
from ledger.keys import KeyFault, SigningKey
from ledger.log import EventLog, LedgerError
from ledger.proof import prove
from ledger.views import QueryError, Table, Views
from ledger.vocabulary import Verdict
from runners.local import LocalRunner

__all__ = ["Campaign", "EventLog", "Search", "Supervisor", "Task", "Views", "find_task"]

EXPECTED = (
    TaskError,
    LedgerError,
    EventError,
    KeyFault,
    CheckpointError,
    CampaignError,
    QueryError,
    BrowseError,
    OSError,
)
"""Failures of the world: one line and exit code 2."""

ledger_option = click.option(
    "--ledger", type=click.Path(path_type=Path), default=Path("labtrail.db"), show_default=True, help="The ledger file."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("labtrail"), prog_name="labtrail")
def cli() -> None:
    """Closed-loop research on training recipes, with a record that holds up.

    Example: labtrail run airbench-cpu --trials 8
    """


@cli.command()
@click.argument("task")
@ledger_option
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True, help="Stop after so many trials.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Stop after so many hours.")
@click.option("--new", is_flag=True, help="Start a new campaign instead of going on with the last one.")
@click.option("--seed", type=click.IntRange(min=0, max=2**53 - 1), help="Seed of the search; drawn where not given.")
@click.option(
    "--key", type=click.Path(path_type=Path), help="The evaluator's key  [default: ~/.labtrail/evaluator.key]"
)
def run(
    task: str, ledger: Path, trials: int, hours: float | None, new: bool, seed: int | None, key: Path | None
) -> None:
    """Search on TASK, a built-in name or a task folder, and record everything.

    The same command goes on where it stopped: after Ctrl-C, kill -9 or power loss, or with more --trials.

    Example: labtrail run airbench-cpu --trials 8
    """
    found = find_task(task)
    key = key or _home() / "evaluator.key"
    _public(SigningKey.load_or_create(key, "labtrail-evaluator"), key)
    log_key = _log_key(None)
    console = Console()
    log = EventLog.open(ledger) if ledger.exists() else EventLog.create(ledger)
    with log:
        name, last = _campaign_for(log, found.contract, new)
        if last is not None and last.concluded >= trials:
            summarise(console, found.contract, last)
            console.print(f"{name} has its {trials} trials; go on with a higher --trials, or start anew with --new")
            return
        if (held := checkpoint.sidecar(ledger)).exists():
            # A log that does not extend its last signed head was cut or rewritten: nothing is added to it.
            checkpoint.extends(log, checkpoint.Checkpoint.parse(checkpoint.read(held).text))
        work = ledger.absolute().with_name(ledger.name + ".work")
        with Narrator(console, found.contract, trials) as narrator:
            runner = LocalRunner()
            try:
                bench = Bench(found, log, Search(), runner, key, work, f"labtrail {version('labtrail')}")
                drawn = secrets.randbelow(2**31) if seed is None else seed
                campaign = Supervisor(bench, name, drawn, narrator).run(StopRules(trials, hours))
            finally:
                runner.close()
        assert campaign.stopped is not None
        checkpoint.sign(log, log_key)
        console.print(f"\nstopped: {campaign.stopped.detail}, {log.size} events in {ledger}", highlight=False)
        summarise(console, found.contract, campaign)
    if campaign.stopped.reason == "interrupted":
        console.print("the same command goes on from here")
        raise SystemExit(130)
    if campaign.stopped.reason == "baseline_illegal":
        raise CampaignError(f"{campaign.stopped.detail}; `labtrail sql 'FROM runs' --ledger {ledger}` shows its runs")


@cli.command()
@click.argument("name", required=False)
@json_option
def tasks(name: str | None, as_json: bool) -> None:
    """List the tasks, or show the whole contract of NAME.

    Example: labtrail tasks airbench-cpu
    """
    console = _console()
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


@cli.command()
@ledger_option
@json_option
def status(ledger: Path, as_json: bool) -> None:
    """Show the campaigns of a ledger: state, trials, champion.

    Example: labtrail status --ledger demo.db
    """
    with EventLog.read_only(ledger) as log:
        campaigns = _views(log).query("FROM campaigns").records()
        head = log.head()
    if as_json:
        found = {"events": head.size, "root": head.root.hex(), "campaigns": campaigns}
        click.echo(json.dumps(found, default=str))
        return
    console = _console()
    for row in campaigns:
        console.print(_campaign_line(row), highlight=False)
    console.print(f"{head.size} events, root {head.root.hex()}", highlight=False)


@cli.command()
@click.argument("trial", type=int, required=False)
@ledger_option
@click.option("--campaign", help="Which campaign  [default: the last one]")
@json_option
def lineage(trial: int | None, ledger: Path, campaign: str | None, as_json: bool) -> None:
    """Show the tree of trials, or everything about one TRIAL.

    Example: labtrail lineage --ledger demo.db
    """
    with EventLog.read_only(ledger) as log:
        views = _views(log)
        chosen = _last_campaign(views, campaign)
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
            _show_trial(_console(), log, rows[0])
        else:
            _console().print(_tree(rows))


@cli.command()
@click.argument("query")
@ledger_option
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--as-of", type=click.IntRange(min=0), help="Only the first so many events of the log.")
def sql(query: str, ledger: Path, form: str, as_of: int | None) -> None:
    """Ask the lineage views a question in SQL; `SHOW TABLES` and `DESCRIBE trials` tell what there is.

    Example: labtrail sql 'SELECT trial, verdict, score, hypothesis FROM trials' --ledger demo.db
    """
    with EventLog.read_only(ledger) as log:
        views = _views(log, as_of)
        views.lock_down()
        answer = views.query(query)
    if form == "json":
        click.echo(json.dumps(answer.records(), default=str))
    elif form == "csv":
        _print_csv(answer)
    else:
        _print_table(_console(), answer)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the key, without blanks; others will see it in signatures.")
def keygen(path: Path, name: str) -> None:
    """Make an Ed25519 key at PATH (mode 0600) and its public half beside it, with the suffix .pub.

    Example: labtrail keygen ~/.labtrail/log.key --name example.org/lab
    """
    if path.suffix == ".pub":
        raise KeyFault(f"{path}: the suffix .pub is for the public half; give the private key another one")
    click.echo(_public(SigningKey.create(path, name), path))


@cli.command("checkpoint")
@ledger_option
@click.option("--key", type=click.Path(path_type=Path), help="The log's key  [default: ~/.labtrail/log.key]")
def checkpoint_command(ledger: Path, key: Path | None) -> None:
    """Sign the ledger's head, beside the ledger and on stdout; keep a copy where the ledger is not.

    Example: labtrail checkpoint --ledger demo.db
    """
    with EventLog.read_only(ledger) as log:
        click.echo(str(checkpoint.sign(log, _log_key(key))), nl=False)


@cli.command("backup")
@click.argument("target", type=click.Path(path_type=Path))
@ledger_option
def backup_command(target: Path, ledger: Path) -> None:
    """Copy one state of the ledger to TARGET, also while a campaign runs.

    Example: labtrail backup /mnt/elsewhere/demo.db --ledger demo.db
    """
    head = backup(ledger, target)
    click.echo(f"{target}: {head.size} events, root {head.root.hex()}")


@cli.command("prove")
@click.argument("trial", type=int)
@ledger_option
@click.option("--campaign", help="Which campaign  [default: the last one]")
@click.option("--out", type=click.Path(path_type=Path), help="The proof  [default: trial-N.proof]")
def prove_command(trial: int, ledger: Path, campaign: str | None, out: Path | None) -> None:
    """Write a small proof that the events of one TRIAL stand in the log; it is checked without the ledger.

    Example: labtrail prove 3 --ledger demo.db
    """
    with EventLog.read_only(ledger) as log:
        chosen = _last_campaign(_views(log), campaign)
        if not checkpoint.sidecar(ledger).exists():
            raise LedgerError(f"{ledger} has no checkpoint; `labtrail checkpoint --ledger {ledger}` signs one")
        try:
            content = prove(log, checkpoint.read(checkpoint.sidecar(ledger)), chosen, trial)
        except ValueError as error:
            raise LedgerError(str(error)) from error
    target = out or Path(f"trial-{trial}.proof")
    target.write_bytes(content)
    click.echo(
        f"{target}: {len(content):,} bytes; check it with `audit check-proof {target} --key {_home() / 'log.pub'}`"
    )


@cli.command()
@ledger_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0 takes a free one.")
@click.option("--open", "open_browser", is_flag=True, help="Open a browser on it.")
def browse(ledger: Path, host: str, port: int, open_browser: bool) -> None:
    """Browse a ledger with Datasette: the raw log, and its views as tables that follow a running campaign.

    Example: labtrail browse --ledger demo.db
    """
    raise SystemExit(serve(ledger, host, port, open_browser))


def main() -> None:
    """Console script."""
    entry.run(cli, "labtrail", EXPECTED)


def _home() -> Path:
    return Path(os.environ.get("LABTRAIL_HOME") or Path.home() / ".labtrail")


def _log_key(path: Path | None) -> SigningKey:
    """The key that signs heads, made on first use with its public half beside it."""
    path = path or _home() / "log.key"
    key = SigningKey.load_or_create(path, "labtrail-log")
    _public(key, path)
    return key


def _public(key: SigningKey, path: Path) -> str:
    """The public half, also written beside the key as `.pub`."""
    public = str(key.verifier)
    path.with_suffix(".pub").write_text(f"{public}\n")
    return public


def _views(log: EventLog, as_of: int | None = None) -> Views:
    views = Views(log)
    views.catch_up(as_of)
    return views


def _campaign_for(log: EventLog, contract: Contract, new: bool) -> tuple[str, Campaign | None]:
    """Name of the campaign to run, and its state where it exists already."""
    views = _views(log)
    names = [row[0] for row in views.query("SELECT campaign FROM campaigns WHERE task = ?", [contract.name]).rows]
    views.close()
    if new or not names:
        return f"{contract.name}-{len(names) + 1}", None
    return names[-1], Campaign.replay(names[-1], log.events(campaign=names[-1]))


def _last_campaign(views: Views, wanted: str | None) -> str:
    names = [row[0] for row in views.query("SELECT campaign FROM campaigns ORDER BY started_at").rows]
    if wanted is not None and wanted not in names:
        raise LedgerError(
            f"expected a campaign of the ledger, found {wanted!r}; there are {', '.join(names) or 'none'}"
        )
    if not names:
        raise LedgerError("the ledger has no campaign; `labtrail run TASK` starts one")
    return wanted or str(names[-1])


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


def _console() -> Console:
    """Fits a terminal; a file or pipe gets lines as long as they are."""
    console = Console()
    return console if console.is_terminal else Console(width=100_000)


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
    grid.add_row("seeds", f"{contract.seeds.baseline} for the baseline, {contract.seeds.trial} a trial")
    grid.add_row("kept where", f"one-sided p < {1 - contract.noise.confidence:g} against the champion, pooled noise")
    for specialist in contract.specialists:
        grid.add_row(f"  {specialist.name}", Text(f"{', '.join(specialist.files)}: {specialist.charter}"))
    grid.add_row("digest", contract.digest)
    console.print(grid)


def _show_trial(console: Console, log: EventLog, row: dict[str, Any]) -> None:
    grid = Grid(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in row.items():
        if value is not None and name != "diff":
            grid.add_row(name, plain(Text(str(value))))
    console.print(grid)
    if row["diff"]:
        for line in log.blob(row["diff"]).decode(errors="replace").split("\n"):
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


def _print_table(console: Console, answer: Table) -> None:
    grid = Grid(*answer.columns, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for row in answer.rows:
        grid.add_row(*(plain(Text(_shown(value))) for value in row))
    console.print(grid)
    if not answer.rows:
        console.print("no rows")


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _print_csv(answer: Table) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows(answer.rows)


if __name__ == "__main__":
    main()
