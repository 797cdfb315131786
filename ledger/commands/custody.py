"""Commands that keep a ledger believable: keygen, checkpoint, backup, prove."""

from pathlib import Path

import click

from ledger import checkpoint
from ledger.backup import backup
from ledger.keys import KeyFault, SigningKey, publish
from ledger.log import EventLog, LedgerError
from ledger.proof import prove
from ledger.terminal import home, ledger_option, log_key
from ledger.views import Views
from ledger.witness import request


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the key, without blanks; others will see it in signatures.")
def keygen(path: Path, name: str) -> None:
    """Make an Ed25519 key at PATH (mode 0600) and its public half beside it, with the suffix .pub.

    Example: labtrail keygen ~/.labtrail/log.key --name example.org/lab
    """
    if path.suffix == ".pub":
        raise KeyFault(f"{path}: the suffix .pub is for the public half; give the private key another one")
    click.echo(publish(SigningKey.create(path, name), path))


@click.command("checkpoint")
@ledger_option
@click.option("--key", type=click.Path(path_type=Path), help="The log's key  [default: ~/.labtrail/log.key]")
@click.option(
    "--since", type=click.IntRange(min=0), metavar="SIZE", help="With the proof for a witness that saw SIZE events."
)
@click.option("--git", is_flag=True, help="Also attach it to HEAD of the repository that the ledger stands in.")
def checkpoint_command(ledger: Path, key: Path | None, since: int | None, git: bool) -> None:
    """Sign the ledger's head, beside the ledger and on stdout; keep a copy where the ledger is not.

    Example: labtrail checkpoint --ledger demo.db
    """
    with EventLog.read_only(ledger) as log:
        note = checkpoint.sign(log, log_key(key))
        click.echo(str(note if since is None else request(log, note, since)), nl=False)
    if git:
        ref = checkpoint.keep_in_git(note, ledger.absolute().parent)
        click.echo(f"git notes --ref {ref} show HEAD", err=True)


@click.command("backup")
@click.argument("target", type=click.Path(path_type=Path))
@ledger_option
def backup_command(target: Path, ledger: Path) -> None:
    """Copy one state of the ledger to TARGET, also while a campaign runs.

    Example: labtrail backup /mnt/elsewhere/demo.db --ledger demo.db
    """
    head = backup(ledger, target)
    click.echo(f"{target}: {head.size} events, root {head.root.hex()}")


@click.command("prove")
@click.argument("trial", type=int)
@ledger_option
@click.option("--campaign", help="Which campaign  [default: the last one]")
@click.option("--out", type=click.Path(path_type=Path), help="The proof  [default: trial-N.proof]")
def prove_command(trial: int, ledger: Path, campaign: str | None, out: Path | None) -> None:
    """Write a small proof that the events of one TRIAL stand in the log; it is checked without the ledger.

    Example: labtrail prove 3 --ledger demo.db
    """
    with EventLog.read_only(ledger) as log:
        chosen = Views.of(log).last_campaign(campaign)
        if not checkpoint.sidecar(ledger).exists():
            raise LedgerError(f"{ledger} has no checkpoint; `labtrail checkpoint --ledger {ledger}` signs one")
        try:
            content = prove(log, checkpoint.read(checkpoint.sidecar(ledger)), chosen, trial)
        except ValueError as error:
            raise LedgerError(str(error)) from error
    target = out or Path(f"trial-{trial}.proof")
    target.write_bytes(content)
    click.echo(
        f"{target}: {len(content):,} bytes; check it with `audit check-proof {target} --key {home() / 'log.pub'}`"
    )
