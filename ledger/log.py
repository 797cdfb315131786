"""EventLog: append to the ledger file and read from it; one writer, many readers."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zstandard

from ledger.events import Draft, Event, Written, decode, encode, random_salt
from ledger.locks import LedgerError, OwnedError, lock
from ledger.merkle import EMPTY_ROOT, TILE_BITS, TILE_WIDTH, Frontier, Tree, leaf_hash, node_hash
from ledger.recipes import digest_of
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

__all__ = ["ConflictError", "EventLog", "Head", "LedgerError", "OwnedError", "expected_schema", "genesis_of"]

MAX_BLOB_BYTES = 2**29
"""Also what a stored frame may claim to hold: a crafted one could ask for all memory."""


class ConflictError(LedgerError):
    """The log has grown past the head that the caller expected, or an id stands for another event."""


@dataclass(frozen=True)
class Head:
    """The state of the whole log in one value."""

    size: int
    root: bytes


class EventLog:
    """One ledger file.

    Open it with `EventLog.create`, `EventLog.open` (the one writer) or `EventLog.read_only`. An append that
    returned survives power loss: the file is in WAL mode with `synchronous=FULL`. For one thread and one process:
    a fork does not inherit it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int | None) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._pid = os.getpid()
        self._compress = zstandard.ZstdCompressor(level=3, write_content_size=True).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._frontiers: list[Frontier] = []
        self._prev = ""
        self._stale = False
        self._size = 0
        self.refresh()

    @classmethod
    def create(cls, path: Path, origin: str | None = None) -> "EventLog":
        """Make a new ledger. Raises LedgerError where something stands at `path` already.

        `origin` names the log in its checkpoints and stays for its life; a random one by default.
        """
        descriptor = lock(path)
        try:
            create_file(path, origin)
            return cls(path, connect_to_write(path), descriptor)
        except BaseException as error:
            os.close(descriptor)
            raise_as_ledger_error(path, error)

    @classmethod
    def open(cls, path: Path) -> "EventLog":
        """Open an existing ledger as its one writer.

        Raises OwnedError where another process holds it, and LedgerError where the stored head does not fit the
        stored events: nothing is appended to a damaged log.
        """
        expect_file(path)
        descriptor = lock(path)
        try:
            connection = connect_to_write(path)
            check_format(path, connection)
            return cls(path, connection, descriptor)
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
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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
        if self._lock is None:
            raise LedgerError(f"{self.path}: not open for writing; open it with EventLog.open to append")
        if self._pid != os.getpid():
            raise LedgerError(f"{self.path}: opened by process {self._pid}; a fork must not append to it")
        try:
            try:
                return self._append(drafts, expect, look=False)
            except sqlite3.IntegrityError:
                # An id that is in the log already, or another process wrote: the second try looks before it stores.
                return self._append(drafts, expect, look=True)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: nothing was acknowledged; append the same ids again: {error}") from error

    def _append(self, drafts: Sequence[Draft], expect: int | None, look: bool) -> list[Event]:
        wanted = self._by_id(drafts)
        with self._transaction():
            conflict = expect is not None and expect != self._size
            events = self._known(wanted) if look or conflict else {}
            fresh = [draft for id_, draft in wanted.items() if id_ not in events]
            if fresh:
                if conflict:
                    raise ConflictError(f"{self.path}: expected a log of {expect} events, found {self._size}")
                events.update((event.id, event) for event in self._store(fresh))
                self._connection.execute("UPDATE head SET size = ?, root = ?", (self._size, self._root()))
                self._connection.execute("COMMIT")
        return [events[draft.id] for draft in drafts]

    def _by_id(self, drafts: Sequence[Draft]) -> dict[str, Draft]:
        wanted = {draft.id: draft for draft in drafts}
        if len(wanted) < len(drafts):
            for draft in drafts:
                if not _same(draft, wanted[draft.id]):
                    raise ConflictError(f"{self.path}: id {draft.id} stands for two different drafts")
        return wanted

    def _store(self, drafts: Iterable[Draft]) -> list[Event]:
        recorded_at = _now()
        rows: list[tuple[int, str, bytes, str | None, bytes | None]] = []
        events: list[Event] = []
        for draft in drafts:
            seq, prev = self._size, self._prev
            blobs = self._store_blobs(draft.blobs)
            entry, texts, salts = encode(draft, seq, recorded_at, prev, blobs, random_salt)
            leaf = leaf_hash(entry)
            rows.append((seq, entry.decode(), leaf, None if texts is None else texts.decode(), salts))
            events.append(Event.at(draft, seq, recorded_at, prev, blobs))
            self._prev = leaf.hex()
            self._grow(leaf)
        self._connection.executemany("INSERT INTO events (seq, entry, leaf, texts, salts) VALUES (?, ?, ?, ?, ?)", rows)
        return events

    def _store_blobs(self, contents: Iterable[bytes]) -> dict[str, str]:
        """Store the contents that are new; returns {digest: digest of the stored frame} of those."""
        frames: dict[str, str] = {}
        for content in contents:
            digest = digest_of(content)
            if digest in frames or self._has_blob(digest):
                continue
            if len(content) > MAX_BLOB_BYTES:
                raise LedgerError(f"{self.path}: a blob has at most {MAX_BLOB_BYTES:,} bytes, found {len(content):,}")
            frame = self._compress(content)
            self._connection.execute(
                "INSERT INTO blobs (digest, size, frame) VALUES (?, ?, ?)", (bytes.fromhex(digest), len(content), frame)
            )
            frames[digest] = digest_of(frame)
        return frames

    def _grow(self, leaf: bytes) -> None:
        """Push a leaf; where it completes a tile, store the tile's root one level up."""
        self._size += 1
        value, level = leaf, 0
        while True:
            frontier = self._frontiers[level]
            frontier.push(value)
            if frontier.size < TILE_WIDTH:
                return
            value, self._frontiers[level] = frontier.root(), Frontier()
            level += 1
            if level == len(self._frontiers):
                self._frontiers.append(Frontier())
            index = (self._size >> (TILE_BITS * level)) - 1
            self._connection.execute("INSERT INTO nodes (level, idx, hash) VALUES (?, ?, ?)", (level, index, value))

    def _known(self, wanted: Mapping[str, Draft]) -> dict[str, Event]:
        """Events of the log that carry one of these ids."""
        known: dict[str, Event] = {}
        for id_, draft in wanted.items():
            for row in self._connection.execute("SELECT entry, texts, salts FROM events WHERE id = ?", (id_,)):
                event = decode(*row)
                if not _same(draft, event):
                    raise ConflictError(f"{self.path}: id {id_} stands for another event, seq {event.seq}")
                known[id_] = event
        return known

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE, and ROLLBACK of whatever the block did not commit."""
        if self._stale:
            self.refresh()
        before = [frontier.copy() for frontier in self._frontiers], self._prev, self._size
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
        except BaseException:
            self._frontiers, self._prev, self._size = before
            # A commit that reports an error may have reached the disk: the next append looks before it writes.
            self._stale = True
            raise
        finally:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")

    # --- reading -----------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of events this object knows of; `refresh` looks for more."""
        return self._size

    def head(self) -> Head:
        """Size and root as stored in the file. Raises LedgerError where there is none."""
        for size, root in self._select("SELECT size, root FROM head"):
            return Head(size, root)
        raise LedgerError(f"{self.path}: the ledger has no head; run `audit verify`")

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
        """Content by digest, checked. Raises LedgerError where it is missing or not what the digest says."""
        for (frame,) in self._select("SELECT frame FROM blobs WHERE digest = ?", (bytes.fromhex(digest),)):
            content = self.content(frame)
            if digest_of(content) != digest:
                raise LedgerError(f"{self.path}: blob {digest} holds content with digest {digest_of(content)}")
            return content
        raise LedgerError(f"{self.path}: blob {digest} is not in the ledger")

    def frames(self) -> Iterator[tuple[bytes, int, bytes]]:
        """(digest, size, frame) of every blob as stored, unchecked."""
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
        return Tree(self._size if size is None else size, self._fetch)

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
        size, leaf = next(self._select("SELECT seq + 1, leaf FROM events ORDER BY seq DESC LIMIT 1"), (0, None))
        if self._lock is not None:
            self._frontiers = self._right_edge(size)
            self._prev = leaf.hex() if leaf else self.meta().get("genesis", "")
            head, found = self.head(), Head(size, self._root())
            if head != found:
                raise LedgerError(
                    f"{self.path}: the head says {head.size} events with root {head.root.hex()}, the events give "
                    f"{found.size} with {found.root.hex()}; run `audit verify`, nothing is appended to a damaged log"
                )
        self._size, self._stale = size, False
        return size

    def _select(self, sql: str, parameters: Sequence[Any] = ()) -> Iterator[Any]:
        try:
            yield from self._connection.execute(sql, parameters)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: SQLite cannot read the ledger: {error}") from error

    def _fetch(self, level: int, start: int, stop: int) -> list[bytes]:
        query = (
            "SELECT leaf FROM events WHERE seq >= ? AND seq < ? ORDER BY seq"
            if level == 0
            else f"SELECT hash FROM nodes WHERE level = {level:d} AND idx >= ? AND idx < ? ORDER BY idx"
        )
        found = [row[0] for row in self._select(query, (start, stop))]
        if len(found) != stop - start:
            raise LedgerError(
                f"{self.path}: tree nodes {start} to {stop} of level {level} are missing; run `audit verify`"
            )
        return found

    def _right_edge(self, size: int) -> list[Frontier]:
        """Rebuild the incomplete tile of each level from at most 255 hashes a level."""
        frontiers: list[Frontier] = []
        level = 0
        while size >> (TILE_BITS * level) or level == 0:
            count = size >> (TILE_BITS * level)
            frontier = Frontier()
            for value in self._fetch(level, count - count % TILE_WIDTH, count):
                frontier.push(value)
            frontiers.append(frontier)
            level += 1
        return frontiers

    def _root(self) -> bytes:
        """Tree hash: the complete subtrees of all levels, joined from the smallest to the largest."""
        value: bytes | None = None
        for frontier in self._frontiers:
            for left in reversed(frontier.roots):
                value = left if value is None else node_hash(left, value)
        return EMPTY_ROOT if value is None else value

    def _has_blob(self, digest: str) -> bool:
        row = self._connection.execute("SELECT 1 FROM blobs WHERE digest = ?", (bytes.fromhex(digest),)).fetchone()
        return row is not None


def _same(draft: Draft, other: Draft | Event) -> bool:
    mine = (draft.body, draft.campaign, draft.trial, draft.actor)
    return mine == (other.body, other.campaign, other.trial, other.actor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _sql_stop(stop: int | None) -> int:
    return 2**62 if stop is None else stop
