"""Console script `audit`: trust nothing, read one file, say what it shows."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from audit.claims.command import command as claims_command
from audit.domains import command as domains_command
from audit.held import Held
from audit.report import Check, Finding, Report
from audit.verify import Progress, verify
from ledger import terminal
from ledger.bundle import is_bundle, unpacked
from ledger.checkpoint import CheckpointError, read, verified
from ledger.keys import COSIGNATURE, KeyFault, VerifierKey
from ledger.locks import LedgerError
from ledger.merkle import ProofError
from ledger.proof import check_proof

SHOWN = 20
"""Findings of one check that are printed; --json has more."""
WIDTH_PIPED = 160
LINE_CHARS = 600


class KeyText(click.ParamType[VerifierKey]):
    """A verifier key as text, or a file with one in it."""

    name = "key"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> VerifierKey:
        try:
            return VerifierKey.parse(value if "+" in value else Path(value).read_text().strip())
        except (KeyFault, OSError, UnicodeDecodeError) as error:
            self.fail(str(error), param, ctx)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def cli() -> None:
    """Check a ledger that somebody else wrote, offline and without trusting them.

    Example: audit verify demo.db
    """


@cli.command("verify")
@click.argument("ledger", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A checkpoint of this ledger kept elsewhere.")
@click.option("--key", type=KeyText(), metavar="KEY", help="The key that signed the checkpoint.")
@click.option(
    "--witness-key",
    "witnesses",
    type=KeyText(),
    multiple=True,
    metavar="KEY",
    help="Demand this witness's cosignature.",
)
@click.option("--evaluator-key", type=KeyText(), metavar="KEY", help="Accept scores signed with this key only.")
def verify_command(
    ledger: Path,
    as_json: bool,
    checkpoint: Path | None,
    key: VerifierKey | None,
    witnesses: tuple[VerifierKey, ...],
    evaluator_key: VerifierKey | None,
) -> None:
    """Rebuild and check everything that a ledger, or a bundle of `labtrail export --bundle`, claims.

    Exit code 0 where it is sound (notes allowed), 1 where something was found, 2 where it cannot be read.

    Example: audit verify demo.db --checkpoint demo.db.checkpoint --key ~/.labtrail/log.pub
    """
    with unpacked(ledger) if is_bundle(ledger) else nullcontext() as bundle:
        note = read(checkpoint) if checkpoint is not None else bundle.note if bundle else None
        if (note is None) != (key is None) and bundle is None:
            raise click.UsageError("--checkpoint and --key belong together: a head is believed where it is signed")
        trusted = key or (bundle.log_key if bundle else None)
        held = verified(note, trusted) if note is not None and trusted is not None else None
        if witnesses and note is None:
            raise click.UsageError("--witness-key needs the checkpoint that the witness cosigned: --checkpoint")
        for witness in witnesses:
            assert note is not None
            verified(note, replace(witness, kind=COSIGNATURE))
        with _bar() as progress:
            report = verify(bundle.ledger if bundle else ledger, evaluator_key, progress, held)
    report = replace(report, path=ledger)
    if key is None and bundle is not None:
        whose = "whose key signed the head: the bundle itself names it (pin one with --key)"
        next(check for check in report.checks if check.name == Held.name).missed(whose)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _print(report)
    raise SystemExit(0 if report.sound else 1)


@cli.command("check-proof")
@click.argument("proof", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--key", type=KeyText(), metavar="KEY", required=True, help="The log's public key.")
@click.option("--json", "as_json", is_flag=True, help="Print the proved events as JSON.")
def check_proof_command(proof: Path, key: VerifierKey, as_json: bool) -> None:
    """Check the proof of one trial, made by `labtrail prove`, without the ledger.

    Exit code 0 where it holds, 1 where it does not.

    Example: audit check-proof trial-3.proof --key ~/.labtrail/log.pub
    """
    try:
        proved = check_proof(proof.read_bytes(), key)
    except ProofError as error:
        click.echo(f"NOT PROVED: {error}")
        raise SystemExit(1) from None
    if as_json:
        events = [{"seq": event.seq, "type": event.type, "actor": event.actor} for event in proved.events]
        click.echo(json.dumps({"size": proved.checkpoint.size, "events": events}, indent=2))
        return
    for event in proved.events:
        click.echo(f"event {event.seq}: {event.type} by {event.actor} at {event.recorded_at}")
    head = proved.checkpoint
    click.echo(
        f"PROVED: {len(proved.events)} events stand in the log {head.origin} of {head.size} events, {head.root.hex()}"
    )


cli.add_command(domains_command, "domains")
cli.add_command(claims_command, "claims")


def main() -> None:
    """Console script."""
    terminal.run(cli, "audit", (LedgerError, CheckpointError, OSError))


def _print(report: Report) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDTH_PIPED, highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, right in (("check", False), ("checked", True), ("findings", True), ("notes", True), ("proves", False)):
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "proves")
    for check in report.checks:
        found = Text(f"{check.errors:,}", style="bold red" if check.errors else "green")
        table.add_row(check.name, f"{check.checked:,}", found, f"{check.notes:,}", check.proves)
    console.print(table)
    for check in report.checks:
        _print_findings(check)
    _print_missing(report)
    click.echo(report.conclusion)


def _print_findings(check: Check) -> None:
    for finding in check.findings[:SHOWN]:
        click.echo(_line(finding))
    if (more := check.errors + check.notes - SHOWN) > 0:
        click.echo(f"{check.name}: {more:,} more like these; --json lists them")


def _line(finding: Finding) -> str:
    line = str(finding)
    return line if len(line) <= LINE_CHARS else f"{line[:LINE_CHARS]}… ({len(line):,} characters)"


def _print_missing(report: Report) -> None:
    missing = [(check.name, what, times) for check in report.checks for what, times in check.not_recorded.items()]
    for name, what, times in missing:
        click.echo(f"not recorded: {name}: {what}" + (f" ({times:,} times)" if times > 1 else ""))
    if missing:
        click.echo()


@contextmanager
def _bar() -> Iterator[Progress | None]:
    """A bar on stderr, where that is a terminal and the work takes more than a moment."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("checking events"), BarColumn(), MofNCompleteColumn())
    with ProgressBar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    main()
