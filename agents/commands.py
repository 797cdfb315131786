"""Commands `run`, a campaign from its first trial to its stop rule, and `certify`, its champion on held-out data."""

import math
import secrets
from importlib.metadata import version
from pathlib import Path

import click
from rich.console import Console

from agents.certification import Certifier
from agents.console import Narrator, show_summary, summarise
from agents.record import Observer, Record
from agents.search import Search
from agents.supervisor import Bench, CampaignError, Examiner, StopRules, Supervisor
from evaluators.task import Contract, find_task
from ledger import checkpoint
from ledger.campaign import Campaign
from ledger.events import Event
from ledger.keys import SigningKey, publish
from ledger.log import EventLog, LedgerError
from ledger.terminal import home, ledger_option, log_key, screen
from ledger.views import Views
from runners.isolation import choose
from runners.local import LocalRunner


@click.command()
@click.argument("task")
@ledger_option
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True, help="Stop after so many trials.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="Stop after so many hours.")
@click.option("--new", is_flag=True, help="Start a new campaign instead of going on with the last one.")
@click.option("--seed", type=click.IntRange(min=0, max=2**53 - 1), help="Seed of the search; drawn where not given.")
@click.option(
    "--key", type=click.Path(path_type=Path), help="The evaluator's key  [default: ~/.labtrail/evaluator.key]"
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="EVENTS",
    help="Sign the log's head so often, and at the end.",
)
@click.pass_obj
def run(
    examine: Examiner | None,
    task: str,
    ledger: Path,
    trials: int,
    hours: float | None,
    new: bool,
    seed: int | None,
    key: Path | None,
    checkpoint_every: int,
) -> None:
    """Search on TASK, a built-in name or a task folder, and record everything.

    The same command goes on where it stopped: after Ctrl-C, kill -9 or power loss, or with more --trials.

    Example: labtrail run airbench-cpu --trials 8
    """
    if hours is not None and not math.isfinite(hours):
        raise click.BadParameter(f"expected a number of hours, found {hours}", param_hint="--hours")
    found = find_task(task)
    # Before anything is written: a task may demand a tier that this machine does not offer.
    isolation = choose(found.contract.isolation)
    key = key or home() / "evaluator.key"
    publish(SigningKey.load_or_create(key, "labtrail-evaluator"), key)
    heads_key = log_key()
    console = Console()
    log = EventLog.own(ledger) if ledger.exists() else EventLog.create(ledger)
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
            runner = LocalRunner(isolation)
            try:
                program = f"labtrail {version('labtrail')}"
                bench = Bench(found, log, Search(), runner, key, work, program, examine)
                observe = _signing(narrator, log, heads_key, checkpoint_every)
                drawn = secrets.randbelow(2**31) if seed is None else seed
                campaign = Supervisor(bench, name, drawn, observe).run(StopRules(trials, hours))
            finally:
                runner.close()
        assert campaign.stopped is not None
        checkpoint.sign(log, heads_key)
        console.print(f"\nstopped: {campaign.stopped.detail}, {log.size} events in {ledger}", highlight=False)
        summarise(console, found.contract, campaign)
    if campaign.stopped.reason == "interrupted":
        console.print("the same command goes on from here")
        raise SystemExit(130)
    if campaign.stopped.reason == "baseline_illegal":
        raise CampaignError(f"{campaign.stopped.detail}; `labtrail sql 'FROM runs' --ledger {ledger}` shows its runs")


@click.command()
@ledger_option
@click.option("--campaign", help="Which campaign  [default: the last one]")
@click.option("--task", help="The task's folder, where it is not a built-in one.")
@click.option(
    "--key", type=click.Path(path_type=Path), help="The evaluator's key  [default: ~/.labtrail/evaluator.key]"
)
def certify(ledger: Path, campaign: str | None, task: str | None, key: Path | None) -> None:
    """Measure the champion once on held-out data and seeds that the search never used.

    Exit code 0 where its gates hold there, 1 where one breaks or a run fails. A champion is certified once: a second
    look would be a choice among results.

    Example: labtrail certify --ledger demo.db
    """
    if not ledger.exists():
        raise LedgerError(f"{ledger}: no such file; `labtrail run TASK --ledger {ledger}` makes one")
    heads_key = log_key()
    with EventLog.open(ledger) as log:
        views = Views.of(log)
        record = Record(log, views.last_campaign(campaign), lambda event, state: None)
        views.close()
        started = record.campaign.started
        assert started is not None
        found = find_task(task or started.task)
        isolation = choose(found.contract.isolation)
        work = ledger.absolute().with_name(ledger.name + ".work")
        console = screen()
        with console.status(f"measuring the champion of {record.campaign.id}"), LocalRunner(isolation) as runner:
            body = Certifier(found, record, runner, key or home() / "evaluator.key", work).certify()
        checkpoint.sign(log, heads_key)
    contract, champion = found.contract, record.campaign.champion
    if body.score is None:
        console.print(f"NOT CERTIFIED: trial {champion}: {body.label} on seed {body.seeds[-1]}", highlight=False)
        raise SystemExit(1)
    held = f"{contract.metric.name} {show_summary(body.score)}{contract.metric.suffix} on held-out data"
    gates = ", ".join(f"{name} {float(mean):.5g}" for name, mean in body.gates.items())
    verdict = "CERTIFIED" if body.legal else "NOT CERTIFIED"
    console.print(f"{verdict}: trial {champion}: {held}; {gates or 'no gates'}", highlight=False)
    raise SystemExit(0 if body.legal else 1)


def _signing(observe: Observer, log: EventLog, key: SigningKey, every: int) -> Observer:
    """The same observer, and a signed head of the log after every so many events: what a stolen tail is at most."""
    due = log.size + every

    def signing(event: Event, campaign: Campaign) -> None:
        nonlocal due
        observe(event, campaign)
        if event.seq + 1 >= due:
            checkpoint.sign(log, key)
            due = event.seq + 1 + every

    return signing


def _campaign_for(log: EventLog, contract: Contract, new: bool) -> tuple[str, Campaign | None]:
    """Name of the campaign to run, and its state where it exists already."""
    views = Views.of(log)
    names = [row[0] for row in views.query("SELECT campaign FROM campaigns WHERE task = ?", [contract.name]).rows]
    views.close()
    if new or not names:
        return f"{contract.name}-{len(names) + 1}", None
    return names[-1], Campaign.replay(names[-1], log.events(campaign=names[-1]))
