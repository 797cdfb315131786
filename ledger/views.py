"""DuckDB projections of the log: typed tables that catch up with it, and the views of views.sql over them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import duckdb
import pyarrow as pa

from ledger import dictionary, facts
from ledger.events import Written
from ledger.fold import FEW, Folder
from ledger.log import EventLog, LedgerError

BATCH_EVENTS = 50_000
IMPORTED = b'"type":"record_imported"'
READING = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
VIEWS_SQL = resources.files("ledger").joinpath("views.sql").read_text()


class QueryError(ValueError):
    """DuckDB refused the query; the message is its own, in one line where possible."""


@dataclass(frozen=True)
class Table:
    """A query's answer."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def records(self) -> list[dict[str, Any]]:
        """One dict a row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def in_memory(threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that never fetches an extension, and takes no Python variable for a table."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    if threads is not None:
        config["threads"] = threads
    return duckdb.connect(":memory:", config=config)


def empty(threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory with every view, and no rows."""
    connection = in_memory(threads)
    connection.execute(facts.schema())
    connection.execute(VIEWS_SQL)
    return connection


class Views:
    """The views of one log in a private in-memory DuckDB: no file, so no lock between processes.

    `catch_up` reads the events that are new since the last call; a view is always as of `position`, the number
    of events taken. A batch of events is taken whole or not at all, and rebuilding from zero gives the same rows.
    """

    def __init__(self, log: EventLog, threads: int | None = None) -> None:
        """With few events one thread answers sooner than several; None takes every core."""
        self._log = log
        self.position = 0
        self._connection = empty(threads)
        self._folder = Folder(self._connection)

    @classmethod
    def of(cls, log: EventLog, as_of: int | None = None) -> "Views":
        """The views of the whole log, or of its first `as_of` events. Raises QueryError."""
        views = cls(log)
        views.catch_up(as_of)
        return views

    def catch_up(self, as_of: int | None = None) -> int:
        """Take new events, up to the first `as_of` of the log; returns the position. Raises QueryError."""
        while True:
            stop = self.position + BATCH_EVENTS if as_of is None else min(self.position + BATCH_EVENTS, as_of)
            try:
                batch = list(self._log.written(self.position, stop))
                if not batch:
                    return self.position
                self._take(batch)
            except (ValueError, TypeError, AttributeError, KeyError, duckdb.Error) as error:
                path = self._log.path
                raise QueryError(f"{path}: an event cannot be read; `audit verify {path}` says which") from error

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Table:
        """Run one reading query over the views. Raises QueryError."""
        with reading(self._connection, sql):
            cursor = self._connection.execute(sql, list(parameters))
            columns = tuple(column[0] for column in cursor.description or ())
            return Table(columns, cursor.fetchall())

    def arrow(self, sql: str) -> pa.Table:
        """The answer to one reading query as an Arrow table. Raises QueryError."""
        with reading(self._connection, sql):
            return self._connection.sql(sql).to_arrow_table()

    @property
    def names(self) -> tuple[str, ...]:
        """Every table and view there is to ask, in alphabetical order."""
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY 1"
        return tuple(row[0] for row in self.query(query).rows)

    def last_campaign(self, wanted: str | None = None) -> str:
        """The campaign that started last, or the one wanted where it exists. Raises LedgerError."""
        names = [row[0] for row in self.query("SELECT campaign FROM campaigns ORDER BY started_at").rows]
        if wanted is not None and wanted not in names:
            raise LedgerError(
                f"expected a campaign of the ledger, found {wanted!r}; there are {', '.join(names) or 'none'}"
            )
        if not names:
            raise LedgerError("the ledger has no campaign; `labtrail run TASK` starts one")
        return wanted or str(names[-1])

    def lock_down(self) -> None:
        """Allow questions about the views only: no files, no settings, no further loading."""
        dictionary.comment(self._connection)
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def close(self) -> None:
        """Forget the views."""
        self._connection.close()

    def _take(self, batch: Sequence[Written]) -> None:
        """Fold a batch into the tables: all of it, or nothing."""
        self._connection.execute("BEGIN")
        try:
            if len(batch) <= FEW and not any(IMPORTED in written.entry for written in batch):
                self._folder.take(batch)
            else:
                self._take_many(batch)
            self._connection.execute("COMMIT")
        except BaseException:
            self._folder.forget()
            self._connection.execute("ROLLBACK")
            raise
        self.position += len(batch)

    def _take_many(self, batch: Sequence[Written]) -> None:
        self._folder.forget()
        entries = [written.entry.decode() for written in batch]
        texts = [None if written.texts is None else written.texts.decode() for written in batch]
        arrived = pa.table({"entry": pa.array(entries, pa.string()), "texts": pa.array(texts, pa.string())})
        self._connection.register(facts.ARRIVED, arrived)
        try:
            self._connection.execute(facts.parse())
        finally:
            self._connection.unregister(facts.ARRIVED)
        kinds = {kind for (kind,) in self._connection.execute("SELECT DISTINCT type FROM facts.batch").fetchall()}
        for take, about in facts.TAKES:
            if about is None or not about.isdisjoint(kinds):
                self._connection.execute(take)
        self._connection.execute("TRUNCATE facts.batch")


@contextmanager
def reading(connection: duckdb.DuckDBPyConnection, sql: str) -> Iterator[None]:
    """Raises QueryError unless `sql` is one reading statement, and for what DuckDB says of it in the block."""
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type not in READING:
            raise QueryError("expected one SELECT; the views are read-only")
        yield
    except (duckdb.Error, pa.ArrowException) as error:
        raise QueryError(_one_line(str(error))) from error


def _one_line(message: str) -> str:
    return " ".join(
        line.strip() for line in message.splitlines() if line.strip() and not set(line.strip()) <= set("^ ")
    )
