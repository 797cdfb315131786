"""Labtrail: closed-loop research on training recipes with a record that holds up. Command line and public names."""

from importlib.metadata import version

import click

from agents.commands import certify, run
from agents.search import Search
from agents.supervisor import CampaignError, Supervisor
from audit.domains import observation_of
from evaluators.commands import tasks
from evaluators.task import Task, TaskError, find_task
from ledger import terminal
from ledger.analysis import Frame, Ledger
from ledger.browse.command import browse
from ledger.browse.site import BrowseError
from ledger.campaign import Campaign
from ledger.checkpoint import CheckpointError
from ledger.commands.custody import backup_command, checkpoint_command, keygen, prove_command
from ledger.commands.export import export_command
from ledger.commands.intake import import_command
from ledger.commands.lineage import lineage
from ledger.commands.own import own
from ledger.commands.sql import sql
from ledger.commands.status import status
from ledger.commands.witness import witness_command
from ledger.events import EventError
from ledger.importers import ImportFault
from ledger.keys import KeyFault
from ledger.log import EventLog, LedgerError
from ledger.redaction import RedactionError
from ledger.views import QueryError, Views
from runners.commands import doctor
from runners.isolation import IsolationError

__all__ = ["Campaign", "EventLog", "Frame", "Ledger", "Search", "Supervisor", "Task", "Views", "find_task"]

COMMANDS = (
    run,
    certify,
    tasks,
    doctor,
    status,
    lineage,
    sql,
    export_command,
    browse,
    import_command,
    own,
    keygen,
    checkpoint_command,
    witness_command,
    backup_command,
    prove_command,
)
"""In the order of `labtrail --help`."""
EXPECTED = (
    TaskError,
    LedgerError,
    EventError,
    KeyFault,
    CheckpointError,
    CampaignError,
    RedactionError,
    QueryError,
    ImportFault,
    BrowseError,
    IsolationError,
    OSError,
)
"""Failures of the world: one line and exit code 2."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "obj": observation_of})
@click.version_option(version("labtrail"), prog_name="labtrail")
def cli() -> None:
    """Closed-loop research on training recipes, with a record that holds up.

    Example: labtrail run airbench-cpu --trials 8
    """


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Console script."""
    terminal.run(cli, "labtrail", EXPECTED)


if __name__ == "__main__":
    main()
