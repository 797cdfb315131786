"""A query's answer in each form: table, CSV, JSON, Markdown and Parquet."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Column
from rich.table import Table as Grid
from rich.text import Text

from ledger.terminal import plain


def csv_of(answer: pa.Table, for_terminal: bool = False) -> str:
    """CSV with a header (RFC 4180, newline at the end of a row); nothing stands for NULL, lists are JSON.

    For a terminal without control characters: those of a hostile text could rewrite the screen.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(answer.column_names)
    for row in _rows(answer):
        cells = (_cell(value) for value in row)
        writer.writerow([plain(Text(cell)).plain for cell in cells] if for_terminal else list(cells))
    return buffer.getvalue()


def json_of(answer: pa.Table) -> str:
    """A JSON array of one object a row; NaN and infinity, which JSON does not have, become null."""
    names = unique_names(answer.column_names)
    rows = [json.dumps(dict(zip(names, map(_jsonable, row), strict=True)), allow_nan=False) for row in _rows(answer)]
    return "[" + ",\n ".join(rows) + "]\n"


def markdown_of(answer: pa.Table) -> str:
    """A table of GitHub's Markdown; no value can end its cell."""
    numeric = [pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in answer.schema.types]
    lines = [answer.column_names, ["--:" if right else "---" for right in numeric]]
    lines += [[_markdown_cell(value) for value in row] for row in _rows(answer)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def parquet_of(answer: pa.Table) -> bytes:
    """A Parquet file, zstd-compressed, with the types of the query."""
    buffer = io.BytesIO()
    pq.write_table(answer.rename_columns(unique_names(answer.column_names)), buffer, compression="zstd")
    return buffer.getvalue()


def table_of(answer: pa.Table, console: Console) -> str:
    """Columns for a person to read on this console, numbers to 6 digits."""
    columns = (Column(header=_safe(name)) for name in answer.column_names)
    grid = Grid(*columns, box=None, padding=(0, 2, 0, 0), header_style="bold")
    for row in _rows(answer):
        grid.add_row(*(_safe(shown(value)) for value in row))
    with console.capture() as captured:
        console.print(grid)
        if not answer.num_rows:
            console.print("no rows")
    return captured.get()


def shown(value: object) -> str:
    """A value for a person: numbers to 6 digits, nothing for NULL."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return " ".join(map(shown, value))
    return _cell(value)


def unique_names(names: Iterable[str]) -> list[str]:
    """Column names with `_1`, `_2` … where a query gives one twice: an object has each key once."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        while (candidate := f"{name}_{seen[name]}" if seen[name] else name) in unique:
            seen[name] += 1
        seen[name] += 1
        unique.append(candidate)
    return unique


def _rows(answer: pa.Table) -> Iterable[tuple[Any, ...]]:
    if not answer.num_columns:
        return []
    return zip(*(column.to_pylist() for column in answer.columns), strict=True)


def _safe(text: str) -> Text:
    return plain(Text(text))


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).lower()
        case list() | dict():
            return json.dumps(_jsonable(value), allow_nan=False)
        case bytes():
            return value.hex()
        case _:
            return str(value)


def _jsonable(value: object) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return str(value)
        case date() | time():
            return value.isoformat()
        case timedelta() | UUID():
            return str(value)
        case bytes():
            return value.hex()
        case dict():
            return {str(key): _jsonable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_jsonable(inner) for inner in value]
        case _:
            return str(value)


def _markdown_cell(value: object) -> str:
    text = plain(Text(shown(value))).plain
    for mark in "\\|<>`*_[]":
        text = text.replace(mark, f"\\{mark}")
    return text
