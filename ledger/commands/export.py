"""Command `export`: a ledger in the forms that other people and programs take."""

from pathlib import Path

import click

from ledger import bundle
from ledger.export.history import export_git
from ledger.export.lines import export_jsonl
from ledger.export.runs import export_mlflow
from ledger.export.tables import export_csv, export_parquet
from ledger.log import EventLog
from ledger.redaction import FORMS, Redaction
from ledger.terminal import ledger_option, log_key
from ledger.views import Views

path_type = click.Path(path_type=Path)


@click.command("export")
@ledger_option
@click.option("--bundle", "target", type=path_type, metavar="FILE", help="One file for a reviewer.")
@click.option("--redact", multiple=True, metavar="WHAT", help=f"Leave out of the bundle, as often as needed: {FORMS}.")
@click.option("--key", type=path_type, help="The log's key, for the bundle  [default: ~/.labtrail/log.key]")
@click.option("--parquet", type=path_type, metavar="DIR", help="Every view as a Parquet file.")
@click.option("--csv", type=path_type, metavar="DIR", help="Every view as a CSV file.")
@click.option("--jsonl", type=path_type, metavar="FILE", help="Every event as a line of JSON.")
@click.option("--git", type=path_type, metavar="DIR", help="One campaign as a git repository, a commit a trial.")
@click.option("--mlflow", metavar="DIR|URI", help="One campaign as runs of an MLflow tracking store.")
@click.option("--campaign", help="Which campaign, for git and MLflow  [default: the last one]")
@click.option("--as-of", type=click.IntRange(min=0), help="Only the first so many events of the log; not for bundles.")
def export_command(
    ledger: Path,
    target: Path | None,
    redact: tuple[str, ...],
    key: Path | None,
    parquet: Path | None,
    csv: Path | None,
    jsonl: Path | None,
    git: Path | None,
    mlflow: str | None,
    campaign: str | None,
    as_of: int | None,
) -> None:
    """Write a ledger in other forms, whole or not at all.

    A bundle holds the ledger with its blobs, a signed head and the public keys in one file that `audit verify` takes.
    What is left out by --redact is named in the audit, and everything else still verifies. Lineage views and prompts
    repeat texts of earlier events, so they are left out wherever a text is.

    A folder of tables may be written again for the same ledger; everything else needs a name that is free.

    Example: labtrail export --ledger demo.db --bundle demo.bundle --redact trial:3 --parquet fleet/demo --git history
    """
    tables = any((parquet, csv, jsonl, git, mlflow))
    if target is None and not tables:
        raise click.UsageError("expected at least one of --bundle, --parquet, --csv, --jsonl, --git and --mlflow")
    if target is None and redact:
        raise click.UsageError("--redact is for bundles; say where to with --bundle FILE")
    wishes = Redaction.parse(redact)
    with EventLog.read_only(ledger) as log:
        if target is not None:
            click.echo(_bundled(log, target, key, wishes))
        if not tables:
            return
        with log.snapshot():
            views = Views.of(log, as_of)
            if parquet:
                click.echo(export_parquet(log, views, parquet))
            if csv:
                click.echo(export_csv(log, views, csv))
            if jsonl:
                click.echo(export_jsonl(log, jsonl, views.position))
            if git:
                click.echo(export_git(log, views.last_campaign(campaign), git, views.position))
            if mlflow:
                click.echo(export_mlflow(log, views, views.last_campaign(campaign), mlflow))
            views.close()


def _bundled(log: EventLog, target: Path, key: Path | None, wishes: Redaction) -> str:
    done = bundle.export(log, target, log_key(key), wishes)
    left_out = f"; withheld: {done.texts} texts, {done.blobs} blobs" if done.texts or done.blobs else ""
    return f"{target}: {target.stat().st_size:,} bytes, {done.size} events, root {done.root.hex()}{left_out}"
