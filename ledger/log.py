"""EventLog: append to the ledger file and read from it; one writer, many readers."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zstandard

from ledger.events import Draft, Event, Written, decode
from ledger.locks import LedgerError, OwnedError, lock
from ledger.merkle import Tree
from ledger.recipes import digest_of
from ledger.remote import Remote
from ledger.store import (
    check_format,
    connect_to_read,
    connect_to_write,
    create_file,
    expect_file,
    expected_schema,
    genesis_of,
    raise_as_ledger_error,
)
from ledger.writer import MAX_BLOB_BYTES, ConflictError, Writer, fetch

__all__ = [
    "ConflictError",
    "EventLog",
    "Head",
    "LedgerError",
    "OwnedError",
    "WithheldBlob",
    "expected_schema",
    "genesis_of",
]


class WithheldBlob(LedgerError):
    """The blob was left out of this copy of the ledger."""


@dataclass(frozen=True)
class Head:
    """The state of the whole log in one value."""

    size: int
    root: bytes


class EventLog:
    """One ledger file.

    Open it with `EventLog.create`, `EventLog.open` (to append, through its owner where it has one), `EventLog.own`
    (as its one writer) or `EventLog.read_only`. An append that returned survives power loss: the file is in WAL mode
    with `synchronous=FULL`. For one thread and one process: a fork does not inherit it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, writer: Writer | Remote | None) -> None:
        self.path = path
        self._connection = connection
        self._writer = writer
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._size = 0
        if not isinstance(writer, Writer):
            self.refresh()

    @classmethod
    def create(cls, path: Path, origin: str | None = None) -> "EventLog":
        """Make a new ledger. Raises LedgerError where something stands at `path` already.

        `origin` names the log in its checkpoints and stays for its life; a random one by default.
        """
        descriptor = lock(path)
        try:
            create_file(path, origin)
        except BaseException as error:
            os.close(descriptor)
            raise_as_ledger_error(path, error)
        return cls._writing(path, descriptor)

    @classmethod
    def own(cls, path: Path) -> "EventLog":
        """Open an existing ledger as its one writer.

        Raises OwnedError where another process holds it, and LedgerError where the stored head does not fit the
        stored events: nothing is appended to a damaged log.
        """
        expect_file(path)
        return cls._writing(path, lock(path))

    @classmethod
    def open(cls, path: Path) -> "EventLog":
        """Open an existing ledger to append: as its one writer, or through the owner that serves it (`labtrail own`).

        Raises OwnedError where another process holds it without serving it, and LedgerError as `own` does.
        """
        try:
            return cls.own(path)
        except OwnedError:
            remote = Remote.join(path)
            if remote is None:
                raise
        try:
            return cls(path, connect_to_read(path), remote)
        except BaseException as error:
            remote.close()
            raise_as_ledger_error(path, error)

    @classmethod
    def _writing(cls, path: Path, descriptor: int) -> "EventLog":
        try:
            connection = connect_to_write(path)
            check_format(path, connection)
            return cls(path, connection, Writer(path, connection, descriptor))
        except BaseException as error:
            os.close(descriptor)
            raise_as_ledger_error(path, error)

    @classmethod
    def read_only(cls, path: Path) -> "EventLog":
        """Open for reading beside a writer or without one, in a folder that cannot be written too.

        Never writes to the ledger, and opens a damaged one as well. What it sees is as of `size` or later; use
        `snapshot` where several reads must see the same state.
        """
        expect_file(path)
        try:
            connection = connect_to_read(path)
            check_format(path, connection)
            return cls(path, connection, None)
        except BaseException as error:
            raise_as_ledger_error(path, error)

    def close(self) -> None:
        """Close the file and give the writer's lock back."""
        self._connection.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- writing -----------------------------------------------------------------------------------------

    def append(self, drafts: Sequence[Draft], *, expect: int | None = None) -> list[Event]:
        """Append all drafts in one transaction, or none.

        Returns the events as stored once they are durable. A draft whose id is in the log already is not
        stored again: its first event is returned. `expect` is the size the caller believes the log has; where
        it differs and a draft is new, nothing is written and ConflictError is raised.
        """
        if self._writer is None:
            raise LedgerError(f"{self.path}: not open for writing; open it with EventLog.open to append")
        if isinstance(self._writer, Remote) and self._writer.broken:
            self._reopen()
        events = self._writer.append(drafts, expect)
        self._size = max(self._size, *(event.seq + 1 for event in events), 0)
        return events

    def _reopen(self) -> None:
        """The owner went away: go on with the next one, or as the writer."""
        with EventLog.open(self.path) as other:
            mine = self._connection, self._writer
            self._connection, self._writer, self._size = other._connection, other._writer, other.size
            other._connection, other._writer = mine

    @property
    def writer(self) -> Writer:
        """Raises LedgerError where this is not the process that writes."""
        if not isinstance(self._writer, Writer):
            raise LedgerError(f"{self.path}: not open as its one writer; open it with EventLog.own")
        return self._writer

    # --- reading -----------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of events this object knows of; `refresh` looks for more."""
        return self._writer.size if isinstance(self._writer, Writer) else self._size

    def head(self) -> Head:
        """Size and root as stored in the file. Raises LedgerError where there is none."""
        for size, root in self._select("SELECT size, root FROM head"):
            if isinstance(size, int) and isinstance(root, bytes):
                return Head(size, root)
        raise LedgerError(f"{self.path}: the ledger has no head that can be read; run `audit verify`")

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes, bytes]]:
        """(seq, entry, leaf) as stored, unchecked, in order of seq."""
        return self._select(
            "SELECT seq, entry, leaf FROM events WHERE seq >= ? AND seq < ? ORDER BY seq", (start, _sql_stop(stop))
        )

    def written(self, start: int = 0, stop: int | None = None, campaign: str | None = None) -> Iterator[Written]:
        """Entries with the texts that they commit to, as stored, unchecked, in order of seq."""
        where = "" if campaign is None else "AND json_extract(entry, '$.campaign') = ?"
        rows = self._select(
            f"SELECT entry, texts, salts FROM events WHERE seq >= ? AND seq < ? {where} ORDER BY seq",
            (start, _sql_stop(stop), *(() if campaign is None else (campaign,))),
        )
        return (Written(*row) for row in rows)

    def events(self, start: int = 0, stop: int | None = None, campaign: str | None = None) -> Iterator[Event]:
        """Decoded events in order of seq. Raises EventError at an entry that is not a known event."""
        return (decode(*written) for written in self.written(start, stop, campaign))

    def blob(self, digest: str) -> bytes:
        """Content by digest, checked.

        Raises WithheldBlob where this copy leaves it out, LedgerError where it is missing or not what the digest says.
        """
        for (frame,) in self._select("SELECT frame FROM blobs WHERE digest = ?", (bytes.fromhex(digest),)):
            if frame is None:
                raise WithheldBlob(f"{self.path}: blob {digest} is withheld from this copy")
            content = self.content(frame)
            if digest_of(content) != digest:
                raise LedgerError(f"{self.path}: blob {digest} holds content with digest {digest_of(content)}")
            return content
        raise LedgerError(f"{self.path}: blob {digest} is not in the ledger")

    def frames(self) -> Iterator[tuple[bytes, int, bytes | None]]:
        """(digest, size, frame) of every blob as stored, unchecked; a frame that is withheld is None."""
        return self._select("SELECT digest, size, frame FROM blobs ORDER BY digest")

    def content(self, frame: bytes) -> bytes:
        """Decompress a stored frame. Raises LedgerError where it is not a whole zstd frame of bearable size."""
        try:
            claimed = zstandard.frame_content_size(frame)
            if not 0 <= claimed <= MAX_BLOB_BYTES:
                raise LedgerError(f"{self.path}: a blob claims {claimed:,} bytes, the most is {MAX_BLOB_BYTES:,}")
            return self._decompress(frame)
        except zstandard.ZstdError as error:
            raise LedgerError(f"{self.path}: a blob does not decompress: {error}") from error

    def nodes(self) -> Iterator[tuple[int, int, bytes]]:
        """(level, index, hash) of every stored tree node, unchecked."""
        return self._select("SELECT level, idx, hash FROM nodes ORDER BY level, idx")

    def meta(self) -> dict[str, str]:
        """The ledger's own facts: origin, format, genesis."""
        rows = self._select("SELECT key, value FROM meta")
        return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in rows}

    def tree(self, size: int | None = None) -> Tree:
        """The Merkle tree over the first `size` events, for proofs."""
        return Tree(self.size if size is None else size, self._fetch)

    @contextmanager
    def snapshot(self) -> Iterator[int]:
        """One state of the file for every read in the block, whatever a writer appends meanwhile; gives its size."""
        self._connection.execute("BEGIN")
        try:
            yield self.refresh()
        finally:
            self._connection.execute("ROLLBACK")

    @property
    def connection(self) -> sqlite3.Connection:
        """The SQLite connection, for checks of the file itself. Text comes as bytes."""
        return self._connection

    def refresh(self) -> int:
        """Look for events that another process appended; returns the new size."""
        try:
            if isinstance(self._writer, Writer):
                return self._writer.refresh()
            [(self._size,)] = self._connection.execute("SELECT coalesce(max(seq) + 1, 0) FROM events")
            return self._size
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: SQLite cannot read the ledger: {error}") from error

    def _select(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        try:
            yield from self._connection.execute(sql, parameters)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: SQLite cannot read the ledger: {error}") from error

    def _fetch(self, level: int, start: int, stop: int) -> list[bytes]:
        try:
            return fetch(self.path, self._connection, level, start, stop)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: SQLite cannot read the ledger: {error}") from error


def _sql_stop(stop: int | None) -> int:
    return 2**62 if stop is None else stop
