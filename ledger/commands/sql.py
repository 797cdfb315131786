"""Command `sql`: a question to the lineage views, one-shot, from a file or at a prompt."""

import sys
from pathlib import Path

import click
import pyarrow as pa

from ledger.analysis import Ledger
from ledger.answers import csv_of, json_of, markdown_of, parquet_of, table_of
from ledger.named import library
from ledger.prompt import converse
from ledger.store import new_file
from ledger.terminal import emit, home, screen, wide

FORMATS = ("table", "csv", "json", "parquet", "markdown")


@click.command()
@click.argument("query", required=False)
@click.option(
    "--ledger",
    "ledgers",
    multiple=True,
    default=("labtrail.db",),
    show_default="labtrail.db",
    help="A ledger file, or a pattern such as 'runs/*.db'; may be given more than once.",
)
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read the query from a file."
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write to a new file.")
@click.option("--as-of", type=click.IntRange(min=0), help="Only the first so many events of each ledger.")
@click.option("--list", "listing", is_flag=True, help="List the named queries.")
def sql(
    query: str | None,
    ledgers: tuple[str, ...],
    file: Path | None,
    form: str,
    out: Path | None,
    as_of: int | None,
    listing: bool,
) -> None:
    """Ask the lineage views a question in SQL, or a named query: @champions.

    Without QUERY it is read from a pipe, or asked for at a prompt. `SHOW TABLES` and `DESCRIBE trials` tell what
    there is. With several ledgers every view begins with a column `ledger`.

    Example: labtrail sql 'SELECT trial, verdict, score, hypothesis FROM trials' --ledger demo.db
    """
    if listing:
        for name, named in library().items():
            click.echo(f"@{name:<14}{named.title}")
        return
    if query is not None and file is not None:
        raise click.UsageError("expected a QUERY or --file, found both")
    if form == "parquet" and out is None:
        raise click.UsageError("parquet is binary; say where to with --out FILE")
    asked = query if query is not None else _given(file)
    with Ledger.open(*ledgers, as_of=as_of) as ledger:
        if asked is None:
            converse(ledger, lambda question: emit(_text(answer(ledger, question), form, True)), home() / "sql_history")
            return
        found = answer(ledger, asked)
    if out is None:
        emit(_text(found, form, sys.stdout.isatty()))
    else:
        content = parquet_of(found) if form == "parquet" else _text(found, form, False).encode(errors="replace")
        with new_file(out) as target:
            target.write(content)
        click.echo(f"{out}: {found.num_rows:,} rows")


def answer(ledger: Ledger, question: str) -> pa.Table:
    """The answer to SQL, or to a named query `@name`."""
    name = question.strip().removesuffix(";")
    return (ledger.named(name[1:].strip()) if name.startswith("@") else ledger.sql(question)).arrow


def _given(file: Path | None) -> str | None:
    """The query from a file or a pipe; none where a person sits at the terminal."""
    if file is None and sys.stdin.isatty():
        return None
    try:
        return sys.stdin.read() if file is None else file.read_text()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{file or 'stdin'}: expected SQL as UTF-8 text, {error.reason}") from error


def _text(found: pa.Table, form: str, for_terminal: bool) -> str:
    match form:
        case "csv":
            return csv_of(found, for_terminal)
        case "json":
            return json_of(found)
        case "markdown":
            return markdown_of(found)
        case _:
            return table_of(found, screen() if for_terminal else wide())
