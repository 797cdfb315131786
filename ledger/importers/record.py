"""What every importer hands over: runs of sources of records; and how text and numbers of others are taken in."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ledger.imported import ImportedTask, ImportedTrial
from ledger.parts import decimal

MAX_LINE_BYTES = 2**20
MAX_SOURCE_BYTES = 2**28
MAX_TEXT_BYTES = 12_000
"""Of a hypothesis or notes in an event, which has to fit an entry; the raw bytes have all of it."""
MAX_NAME_CHARS = 120


class ImportFault(ValueError):
    """Records cannot be imported; the message names the file and line, what was expected and what was found."""


@dataclass(frozen=True)
class Record:
    """One record of a source, with the trial that it tells of, if any."""

    line: int
    """Counted from 1; 0 for the whole source."""
    raw: bytes
    number: int | None = None
    """The trial's number in its campaign."""
    trial: ImportedTrial | None = None
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    """Code, logs and the like that belong to the trial, by name."""


@dataclass(frozen=True)
class Source:
    """One file of another harness, whole."""

    name: str
    """Path within the imported folder."""
    digest: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Run:
    """One run of another harness: it becomes one campaign, in one transaction."""

    format: str
    campaign: str
    task: ImportedTask
    sources: tuple[Source, ...]
    """The first one tells of the trials."""

    @property
    def trials(self) -> Iterator[ImportedTrial]:
        """All trials, in order of their records."""
        return (record.trial for source in self.sources for record in source.records if record.trial is not None)


def whole(path: Path, name: str, *records: Record) -> Source:
    """A source that stands whole in its first record. Raises ImportFault where it is larger than MAX_SOURCE_BYTES."""
    content = content_of(path)
    return Source(name, hashlib.sha256(content).hexdigest(), (Record(0, content), *records))


def content_of(path: Path) -> bytes:
    """All bytes of a file. Raises ImportFault."""
    try:
        if (size := path.stat().st_size) > MAX_SOURCE_BYTES:
            raise ImportFault(f"{path}: expected at most {MAX_SOURCE_BYTES:,} bytes, found {size:,}")
        return path.read_bytes()
    except OSError as error:
        raise ImportFault(f"{path}: cannot be read: {error.strerror}") from error


def lines_of(path: Path) -> list[bytes]:
    """The lines of a text file, each with its end, so that joined they are the file.

    Raises ImportFault for a line over MAX_LINE_BYTES, for NUL bytes and for what is not UTF-8.
    """
    content = content_of(path)
    *ended, last = content.split(b"\n")
    lines = [line + b"\n" for line in ended] + ([last] if last else [])
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE_BYTES:
            raise ImportFault(f"{path}, line {number}: expected at most {MAX_LINE_BYTES:,} bytes, found {len(line):,}")
        if b"\0" in line:
            raise ImportFault(f"{path}, line {number}: expected text, found NUL bytes; the file is damaged")
        text_of(line, f"{path}, line {number}")
    return lines


def text_of(raw: bytes, place: str) -> str:
    """UTF-8 as text. Raises ImportFault."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        found = f"byte 0x{raw[error.start]:02x} at position {error.start + 1}"
        raise ImportFault(f"{place}: expected UTF-8, found {found}; convert the file first") from None


def prose(text: str) -> str:
    """Text for an event: control characters become spaces, and what is too long for an entry is cut with a mark."""
    shown = "".join(char if char.isprintable() or char == "\n" else " " for char in text).strip()
    encoded = shown.encode(errors="replace")
    if len(encoded) <= MAX_TEXT_BYTES:
        return encoded.decode()
    return encoded[:MAX_TEXT_BYTES].decode(errors="ignore") + " […]"


def name_of(text: str) -> str:
    """A short name for an event: one printable line."""
    return " ".join(prose(text).split())[:MAX_NAME_CHARS]


_WORDED = re.compile(r"(minus|negative|plus|positive)[_ ]?([0-9.]+)", re.IGNORECASE)


def number(text: str, what: str, repaired: list[str], unknown: list[str]) -> str | None:
    """A finite number as decimal text; None where there is none. Says what it had to repair or could not read."""
    stripped = text.strip()
    if not stripped:
        return None
    plain = stripped.strip("'\" ")
    if worded := _WORDED.fullmatch(plain):
        plain = ("-" if worded[1].lower() in ("minus", "negative") else "") + worded[2]
    try:
        value = float(plain)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        unknown.append(f"{what}: expected a number, found {name_of(text)!r}")
        return None
    if plain != stripped:
        repaired.append(f"{what}: {name_of(text)!r} read as {value!r}")
    return decimal(value)
