"""The writer: stores drafts in one transaction with their blobs, the tree's nodes and the head; commits in groups."""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import zstandard

from ledger.events import Draft, Event, EventError, decode, encode, random_salt
from ledger.locks import LedgerError
from ledger.merkle import EMPTY_ROOT, TILE_BITS, TILE_WIDTH, Frontier, leaf_hash, node_hash
from ledger.recipes import digest_of

MAX_BLOB_BYTES = 2**29
"""Also what a stored frame may claim to hold: a crafted one could ask for all memory."""
_INSERT = "INSERT INTO events (seq, entry, leaf, texts, salts) VALUES (?, ?, ?, ?, ?)"


class ConflictError(LedgerError):
    """The log has grown past the head that the caller expected, or an id stands for another event."""


@dataclass(frozen=True)
class Request:
    """What one caller wants appended, all or nothing."""

    drafts: Sequence[Draft]
    expect: int | None = None
    """Size that the caller believes the log has; None where it does not matter."""


class Writer:
    """Appends over the one writing connection, with the writer's lock held.

    Raises LedgerError where the stored head does not fit the stored events: nothing is appended to a damaged log.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int) -> None:
        self.path = path
        self._connection = connection
        self._lock: int | None = lock
        self._pid = os.getpid()
        self._compress = zstandard.ZstdCompressor(level=3, write_content_size=True).compress
        self._frontiers: list[Frontier] = []
        self._prev = ""
        self._stale = False
        self._size = 0
        self.refresh()

    @property
    def size(self) -> int:
        """Number of events this object knows of."""
        return self._size

    def close(self) -> None:
        """Give the lock back; the connection is the caller's."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def append(self, drafts: Sequence[Draft], expect: int | None) -> list[Event]:
        """As `EventLog.append`."""
        [outcome] = self.commit([Request(drafts, expect)])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def commit(self, requests: Sequence[Request]) -> list[list[Event] | LedgerError | EventError]:
        """Append every request in one transaction and return once it is durable.

        A request that cannot be appended gets its error in place of its events and leaves no trace; the others do not
        notice. Raises LedgerError where nothing at all was acknowledged.
        """
        if self._lock is None:
            raise LedgerError(f"{self.path}: closed; open it with EventLog.open to append")
        if self._pid != os.getpid():
            raise LedgerError(f"{self.path}: opened by process {self._pid}; a fork must not append to it")
        try:
            try:
                return self._together(requests)
            except (sqlite3.IntegrityError, LedgerError, EventError):
                # An id that is in the log already, another process wrote, or a request is at fault: look at each.
                return self._one_by_one(requests)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: nothing was acknowledged; append the same ids again: {error}") from error

    def refresh(self) -> int:
        """Look for events that another process appended; returns the new size."""
        size, leaf = next(
            iter(self._connection.execute("SELECT seq + 1, leaf FROM events ORDER BY seq DESC LIMIT 1")), (0, None)
        )
        [(genesis,)] = self._connection.execute("SELECT value FROM meta WHERE key = 'genesis'").fetchall() or [(b"",)]
        self._frontiers = self._right_edge(size)
        self._prev = leaf.hex() if leaf else genesis.decode(errors="replace")
        [(head_size, head_root)] = self._connection.execute("SELECT size, root FROM head").fetchall() or [(0, b"")]
        if (head_size, head_root) != (size, root := self._root()):
            raise LedgerError(
                f"{self.path}: the head says {head_size} events with root {head_root.hex()}, the events give "
                f"{size} with {root.hex()}; run `audit verify`, nothing is appended to a damaged log"
            )
        self._size, self._stale = size, False
        return size

    # --- one transaction ---------------------------------------------------------------------------------

    def _together(self, requests: Sequence[Request]) -> list[list[Event] | LedgerError | EventError]:
        """The common case: everything is new and expected. The first fault raises, and nothing is written."""
        with self._transaction():
            start = self._size
            outcomes: list[list[Event] | LedgerError | EventError] = [
                self._append(request, look=False) for request in requests
            ]
            self._commit(start)
        return outcomes

    def _one_by_one(self, requests: Sequence[Request]) -> list[list[Event] | LedgerError | EventError]:
        """The same with a savepoint around each request, and a look for its ids before it is stored."""
        outcomes: list[list[Event] | LedgerError | EventError] = []
        with self._transaction():
            start = self._size
            for request in requests:
                before = self._state()
                self._connection.execute("SAVEPOINT request")
                try:
                    outcomes.append(self._append(request, look=True))
                except (LedgerError, EventError) as error:
                    self._connection.execute("ROLLBACK TO request")
                    self._frontiers, self._prev, self._size = before
                    outcomes.append(error)
                self._connection.execute("RELEASE request")
            self._commit(start)
        return outcomes

    def _commit(self, start: int) -> None:
        if self._size > start:
            self._connection.execute("UPDATE head SET size = ?, root = ?", (self._size, self._root()))
            self._connection.execute("COMMIT")

    def _append(self, request: Request, look: bool) -> list[Event]:
        drafts, expect = request.drafts, request.expect
        wanted = self._by_id(drafts)
        conflict = expect is not None and expect != self._size
        events = self._known(wanted) if look or conflict else {}
        fresh = [draft for id_, draft in wanted.items() if id_ not in events]
        if fresh:
            if conflict:
                raise ConflictError(f"{self.path}: expected a log of {expect} events, found {self._size}")
            events.update((event.id, event) for event in self._store(fresh))
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
            blobs = self._store_blobs(draft.blobs) if draft.blobs else {}
            entry, texts, salts = encode(draft, seq, recorded_at, prev, blobs, random_salt)
            leaf = leaf_hash(entry)
            rows.append((seq, entry.decode(), leaf, None if texts is None else texts.decode(), salts))
            events.append(Event.at(draft, seq, recorded_at, prev, blobs))
            self._prev = leaf.hex()
            self._grow(leaf)
        self._connection.executemany(_INSERT, rows)
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
        before = self._state()
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

    # --- the tree's right edge ---------------------------------------------------------------------------

    def _state(self) -> tuple[list[Frontier], str, int]:
        return [frontier.copy() for frontier in self._frontiers], self._prev, self._size

    def _right_edge(self, size: int) -> list[Frontier]:
        """Rebuild the incomplete tile of each level from at most 255 hashes a level."""
        frontiers: list[Frontier] = []
        level = 0
        while size >> (TILE_BITS * level) or level == 0:
            count = size >> (TILE_BITS * level)
            frontier = Frontier()
            for value in fetch(self.path, self._connection, level, count - count % TILE_WIDTH, count):
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


def fetch(path: Path, connection: sqlite3.Connection, level: int, start: int, stop: int) -> list[bytes]:
    """Hashes of the nodes start..stop of a tile level, 0 for leaves. Raises LedgerError where one is missing."""
    query = (
        "SELECT leaf FROM events WHERE seq >= ? AND seq < ? ORDER BY seq"
        if level == 0
        else f"SELECT hash FROM nodes WHERE level = {level:d} AND idx >= ? AND idx < ? ORDER BY idx"
    )
    found = [row[0] for row in connection.execute(query, (start, stop))]
    if len(found) != stop - start:
        raise LedgerError(f"{path}: tree nodes {start} to {stop} of level {level} are missing; run `audit verify`")
    return found


def _same(draft: Draft, other: Draft | Event) -> bool:
    mine = (draft.body, draft.campaign, draft.trial, draft.actor)
    return mine == (other.body, other.campaign, other.trial, other.actor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
