"""The command that owns a ledger for other processes: own."""

import os
from pathlib import Path

import click

from ledger.log import EventLog
from ledger.owner import serving
from ledger.terminal import ledger_option


@click.command()
@ledger_option
def own(ledger: Path) -> None:
    """Own the ledger until Ctrl-C, and append for other processes, many durable appends in one commit.

    Example: labtrail own --ledger lab.db
    """
    with EventLog.own(ledger) if ledger.exists() else EventLog.create(ledger) as log, serving(log) as owner:
        click.echo(f"process {os.getpid()} owns {ledger} with {log.size} events; Ctrl-C gives it back")
        owner.serve()
        click.echo(f"{owner.appended} events appended for {owner.joined} connections, {log.size} events in {ledger}")
