"""Rows of a tab-separated file as they were meant: quoting undone, and rows whose tabs were lost put together again."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from ledger.importers.record import ImportFault, text_of

_CLOSED = re.compile(r'"((?:[^"]|"")*)"')
_MARKUP = re.compile(r"</(?:hypothesis|notes|parameter|invoke)>|<(?:parameter|invoke)\b[^>]*>")
_NOTES = re.compile(r'<parameter name="notes">(.*?)(?:</(?:notes|parameter|invoke)>|$)', re.DOTALL)


@dataclass
class Row:
    """One row, by column name, with what had to be repaired and what stays unknown."""

    line: int
    columns: dict[str, str]
    repaired: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def read_rows(path: Path, lines: list[bytes], text: str, status: str, statuses: Collection[str]) -> list[Row]:
    """The rows behind the header. `text` is the free-text column before `status`, where rows come apart.

    A row that cannot be put together is kept with the columns it has; the last one may not be cut. Raises ImportFault.
    """
    if not lines:
        raise ImportFault(f"{path}: expected a header line, found an empty file")
    header = text_of(lines[0], f"{path}, line 1").rstrip("\r\n").split("\t")
    if missing := {"exp_id", text, status} - set(header):
        raise ImportFault(f"{path}, line 1: expected the column {min(missing)}, found {', '.join(header)[:200]}")
    rows: list[Row] = []
    for number, raw in enumerate(lines[1:], start=2):
        if not raw.strip():
            continue
        row = _row(number, raw.decode().rstrip("\r\n").split("\t"), header, text, status, statuses)
        if row.unknown and number == len(lines) and not raw.endswith(b"\n"):
            raise ImportFault(
                f"{path}, line {number}: expected {len(header)} columns and an end of line, found the file cut; "
                "remove the rest of that line from a copy, or get the whole file"
            )
        rows.append(row)
    return rows


def _row(number: int, cells: list[str], header: list[str], text: str, status: str, statuses: Collection[str]) -> Row:
    row = Row(number, dict.fromkeys(header, ""))
    at = header.index(text)
    if len(cells) == len(header):
        row.columns.update(zip(header, cells, strict=True))
    elif len(cells) == at + 1 and (tail := _tail(cells[at], header[at + 1 :], status, statuses)) is not None:
        joined, rest = tail
        row.columns.update(zip(header, [*cells[:at], joined, *rest], strict=True))
        row.repaired.append(f"{len(rest)} columns behind {text} stood in it, their tabs turned into spaces")
    else:
        row.columns.update(zip(header, cells, strict=False))
        row.unknown.append(f"expected {len(header)} columns, found {len(cells)}")
    for name, value in row.columns.items():
        if whole := _CLOSED.fullmatch(value):
            row.columns[name] = whole[1].replace('""', '"')
    _split_markup(row, text)
    return row


def _tail(cell: str, names: list[str], status: str, statuses: Collection[str]) -> tuple[str, list[str]] | None:
    """The text and the columns behind it, where a quoted text is followed by them with a space for each tab."""
    closed = _CLOSED.match(cell)
    if closed is None or cell[closed.end() : closed.end() + 1] != " ":
        return None
    rest = cell[closed.end() + 1 :].split(" ", len(names) - 1)
    if len(rest) != len(names) or rest[names.index(status)] not in statuses:
        return None
    return closed[0], rest


def _split_markup(row: Row, text: str) -> None:
    """Take a tool call's markup out of the text, and the notes that came with it to their column."""
    found = _MARKUP.search(row.columns[text])
    if found is None:
        return
    whole = row.columns[text]
    notes = _NOTES.search(whole)
    row.columns[text] = whole[: found.start()].strip()
    if notes is not None and "notes" in row.columns:
        row.columns["notes"] = " ".join(part for part in (notes[1].strip(), row.columns["notes"].strip()) if part)
    row.repaired.append(f"{text}: markup of a tool call taken out")
