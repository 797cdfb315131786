"""The interactive prompt of `labtrail sql`: statements over several lines, completion, a history that is kept."""

import os
import readline
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ledger.analysis import Ledger
from ledger.log import LedgerError
from ledger.named import library
from ledger.views import QueryError

HISTORY_LINES = 2000
WORDS = (
    "SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "HAVING", "LIMIT", "JOIN", "USING", "FILTER", "DISTINCT",
    "DESCRIBE", "SHOW TABLES", "SUMMARIZE", "count", "avg", "sum", "min", "max", "round", "quit",
)  # fmt: skip
"""Completed beside the names of views, columns and named queries."""


def converse(ledger: Ledger, reply: Callable[[str], None], history: Path) -> None:
    """Ask for statements until the person leaves. A wrong one is one line on stderr and does not end the prompt."""
    click.echo("End a query with ; · @name asks a named query · Tab completes · quit or Ctrl-D leaves.", err=True)
    with _editing(ledger, history):
        for statement in _statements():
            try:
                ledger.refresh()
                reply(statement)
            except (QueryError, LedgerError) as error:
                click.echo(" ".join(str(error).split()), err=True)
            except KeyboardInterrupt:
                click.echo("interrupted", err=True)


def _statements() -> Iterator[str]:
    """Whole statements: to a semicolon at the end of a line, or one line that is a named query. Ctrl-C starts anew."""
    pending: list[str] = []
    while True:
        try:
            line = input("     ...> " if pending else "labtrail> ")
        except EOFError:
            click.echo(err=True)
            return
        except KeyboardInterrupt:
            click.echo(err=True)
            pending.clear()
            continue
        if not pending and line.strip().rstrip(";").lower() in ("quit", "exit", ".quit", ".exit"):
            return
        if line.strip() or pending:
            pending.append(line)
        if line.rstrip().endswith(";") or (len(pending) == 1 and line.lstrip().startswith("@")):
            yield "\n".join(pending)
            pending.clear()


@contextmanager
def _editing(ledger: Ledger, history: Path) -> Iterator[None]:
    """Completion and history for `input`; the history is kept for its owner alone."""
    words = sorted({*WORDS, *(f"@{name}" for name in library()), *_names(ledger)}, key=str.lower)

    def complete(text: str, state: int) -> str | None:
        found = [word for word in words if word.lower().startswith(text.lower())]
        return found[state] if state < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n,;()=<>+-*/.'\"")
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(HISTORY_LINES)
    history.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(history, os.O_CREAT | os.O_WRONLY, 0o600))
    readline.read_history_file(history)
    try:
        yield
    finally:
        readline.write_history_file(history)
        readline.set_completer(None)


def _names(ledger: Ledger) -> Iterator[str]:
    for name in ledger.names:
        yield name
        yield from ledger.columns(name)
