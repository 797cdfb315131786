"""Ledger: one ledger or several, read for analysis; every view as an Arrow table, for pandas and polars too."""

import glob
import importlib
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from ledger.log import EventLog, LedgerError
from ledger.named import query_named
from ledger.views import Views, in_memory, reading

ORIGIN = "ledger"
"""The column that says which ledger a row is from, where there is more than one."""


@dataclass(frozen=True)
class Frame:
    """A query's answer. Any library that takes Arrow's C stream reads it: `polars.DataFrame(frame)`."""

    arrow: pa.Table

    def df(self) -> Any:
        """A pandas DataFrame. Raises ModuleNotFoundError where pandas is not installed."""
        return self.arrow.to_pandas()

    def pl(self) -> Any:
        """A polars DataFrame. Raises ModuleNotFoundError where polars is not installed."""
        return importlib.import_module("polars").from_arrow(self.arrow)

    def records(self) -> list[dict[str, Any]]:
        """One dict a row."""
        return self.arrow.to_pylist()  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.arrow.__arrow_c_stream__(requested_schema)


class Ledger:
    """One ledger, or several read as one: then every view begins with the column `ledger`, the path of each row's file.

    Read-only, and safe beside a running campaign. What it shows is as of the moment it was opened; `refresh` takes
    what was appended since. For one thread.
    """

    def __init__(self, paths: Sequence[Path], as_of: int | None = None) -> None:
        with ExitStack() as stack:
            self._views: dict[str, Views] = {}
            for path in paths:
                views = Views.of(stack.enter_context(EventLog.read_only(path)), as_of)
                stack.callback(views.close)
                views.lock_down()
                self._views[str(path)] = views
            self._first = next(iter(self._views.values()))
            self._joined = in_memory()
            stack.callback(self._joined.close)
            self._resources = stack.pop_all()
        self._as_of = as_of
        self._filled: set[str] = set()
        if len(self._views) > 1:
            self._forget()
            self._joined.execute("SET enable_external_access = false")
            self._joined.execute("SET lock_configuration = true")

    @classmethod
    def open(cls, *paths: Path | str, as_of: int | None = None) -> "Ledger":
        """Open ledgers; a path may hold wildcards, as in `runs/*.db`. `as_of` reads the first so many events of each.

        Raises LedgerError where one is missing or no ledger, and QueryError where its events cannot be read.
        """
        return cls(list(_expanded(paths)), as_of)

    @property
    def names(self) -> tuple[str, ...]:
        """Every view and table there is to ask."""
        return self._first.names

    def columns(self, name: str) -> tuple[str, ...]:
        """Columns of one view."""
        return tuple(self._first.arrow(f"FROM {name} LIMIT 0").column_names)

    def sql(self, query: str) -> Frame:
        """The answer to one reading query. Raises QueryError."""
        if len(self._views) == 1:
            return Frame(self._first.arrow(query))
        for name in self.names:
            if name not in self._filled and re.search(rf"\b{name}\b", query, flags=re.IGNORECASE):
                self._fill(name, self._from_each(f"FROM {name}"))
                self._filled.add(name)
        with reading(self._joined, query):
            return Frame(self._joined.sql(query).to_arrow_table())

    def named(self, name: str) -> Frame:
        """The answer to a query of the library, asked of each ledger by itself. Raises QueryError."""
        query = query_named(name).sql
        return Frame(self._first.arrow(query) if len(self._views) == 1 else self._from_each(query))

    def trials(self) -> Frame:
        """One row a trial; trial 0 of a campaign is its baseline."""
        return self.sql("FROM trials")

    def runs(self) -> Frame:
        """One row an execution of a trial."""
        return self.sql("FROM runs")

    def scores(self) -> Frame:
        """One row a metric of a scored run."""
        return self.sql("FROM scores")

    def lineage(self) -> Frame:
        """One row a trial: its depth and its ancestors."""
        return self.sql("FROM lineage")

    def champions(self) -> Frame:
        """One row each time that the best trial changed."""
        return self.sql("FROM champions")

    def failures(self) -> Frame:
        """Failures by label and domain."""
        return self.sql("FROM failures")

    def specialists(self) -> Frame:
        """What each specialist achieved."""
        return self.sql("FROM specialists")

    def campaigns(self) -> Frame:
        """One row a campaign."""
        return self.sql("FROM campaigns")

    def sessions(self) -> Frame:
        """One row a session of a specialist."""
        return self.sql("FROM sessions")

    def costs(self) -> Frame:
        """Tokens, money and seconds, and what a gain cost."""
        return self.sql("FROM costs")

    def evidence(self) -> Frame:
        """Which kinds of evidence there are for each trial."""
        return self.sql("FROM evidence")

    def epochs(self) -> Frame:
        """The spans in which scores may be compared."""
        return self.sql("FROM epochs")

    def refresh(self) -> None:
        """Take events that were appended since. Raises QueryError."""
        grown = False
        for views in self._views.values():
            before = views.position
            grown |= views.catch_up(self._as_of) != before
        if grown and len(self._views) > 1:
            self._forget()

    def close(self) -> None:
        """Close the files and forget the views."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _from_each(self, query: str) -> pa.Table:
        parts = []
        for path, views in self._views.items():
            part = views.arrow(query)
            parts.append(part.add_column(0, ORIGIN, pa.array([path] * part.num_rows, pa.string())))
        return pa.concat_tables(parts, promote_options="permissive")

    def _forget(self) -> None:
        """Every view is there, empty: a query fills those that it names."""
        self._filled.clear()
        for name in self.names:
            empty = self._first.arrow(f"FROM {name} LIMIT 0")
            self._fill(name, empty.add_column(0, ORIGIN, pa.array([], pa.string())))

    def _fill(self, name: str, rows: pa.Table) -> None:
        self._joined.register("incoming", rows)
        self._joined.execute(f"CREATE OR REPLACE TABLE {name} AS FROM incoming")
        self._joined.unregister("incoming")


def _expanded(paths: Sequence[Path | str]) -> Iterator[Path]:
    """Each file once, in the order given, wildcards sorted."""
    seen: set[Path] = set()
    for path in paths:
        found = [Path(path)]
        if glob.has_magic(str(path)) and not Path(path).exists():
            found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
            if not found:
                raise LedgerError(f"{path}: expected at least one ledger, no file has such a name")
        for one in found:
            if one.resolve() not in seen:
                seen.add(one.resolve())
                yield one
    if not seen:
        raise LedgerError("expected at least one ledger, found no path")
