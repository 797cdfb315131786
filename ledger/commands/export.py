"""Command `export`: a ledger in a form that others take."""

from pathlib import Path

import click

from ledger import bundle
from ledger.log import EventLog
from ledger.redaction import FORMS, Redaction
from ledger.terminal import ledger_option, log_key


@click.command("export")
@ledger_option
@click.option("--bundle", "target", type=click.Path(path_type=Path), required=True, help="One file for a reviewer.")
@click.option("--redact", multiple=True, metavar="WHAT", help=f"Leave out, as often as needed: {FORMS}.")
@click.option("--key", type=click.Path(path_type=Path), help="The log's key  [default: ~/.labtrail/log.key]")
def export_command(ledger: Path, target: Path, redact: tuple[str, ...], key: Path | None) -> None:
    """Write the ledger with its blobs, a signed head and the public keys to one file that `audit verify` takes.

    What is left out by --redact is named in the audit, and everything else still verifies. Lineage views and prompts
    repeat texts of earlier events, so they are left out wherever a text is.

    Example: labtrail export --bundle demo.bundle --redact trial:3 --redact logs --ledger demo.db
    """
    wishes = Redaction.parse(redact)
    with EventLog.read_only(ledger) as log:
        done = bundle.export(log, target, log_key(key), wishes)
    left_out = f"; withheld: {done.texts} texts, {done.blobs} blobs" if done.texts or done.blobs else ""
    click.echo(f"{target}: {target.stat().st_size:,} bytes, {done.size} events, root {done.root.hex()}{left_out}")
