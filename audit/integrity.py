"""Checks of the file itself: its schema, every row of it, the hash chain, the tree, the blobs."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import ClassVar, NamedTuple, Protocol

from audit.file import UNREADABLE, BlobError, LedgerFile, content_of
from audit.report import Check
from ledger.merkle import TILE_BITS, TILE_WIDTH, Frontier, leaf_hash, root_of
from ledger.store import expected_schema, genesis_of

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_HEAD = re.compile(
    rb'\{"seq":(?P<seq>0|[1-9][0-9]*),"id":"[^"\\]*","type":"[^"\\]*","version":[0-9]+,"campaign":(?:null|'
    + _STRING
    + rb'),"trial":(?:null|[0-9]+),"actor":'
    + _STRING
    + rb',"recorded_at":"[^"\\]*","prev":"(?P<prev>[0-9a-f]{64})","blobs":'
)
"""How `ledger.events.encode` begins an entry. Read by one pattern, so that no two JSON parsers can differ on it."""
_JSON = json.JSONDecoder()
_NO_BLOBS: dict[str, str] = {}


class Row(NamedTuple):
    """One event as stored, with what its bytes begin with."""

    seq: int
    entry: bytes
    stored: object
    """The leaf in the file."""
    leaf: bytes
    """The leaf calculated from `entry`."""
    head: re.Match[bytes] | None
    texts: bytes | None
    salts: bytes | None

    @property
    def blobs(self) -> dict[str, str]:
        """Content digest -> SHA-256 of the frame, of the blobs first stored with this event; empty where unreadable."""
        if self.head is None or self.entry.startswith(b"{}", self.head.end()):
            return _NO_BLOBS
        try:
            found, _ = _JSON.raw_decode(self.entry[self.head.end() :].decode())
        except (ValueError, RecursionError):
            return _NO_BLOBS
        return {k: v for k, v in found.items() if _is_digest(k) and _is_digest(v)} if isinstance(found, dict) else {}


class Scan(Protocol):
    """A check that looks at every stored event once."""

    name: ClassVar[str]
    proves: ClassVar[str]

    def __init__(self, file: LedgerFile, check: Check) -> None: ...

    def see(self, row: Row) -> None:
        """The next event in order of seq."""

    def end(self) -> None:
        """No event is left."""


def rows(file: LedgerFile, stopped: Callable[[str, str], None]) -> Iterator[Row]:
    """Every event that can be read. What cannot is told to `stopped` as place and message, and ends the rows."""
    seen = "before the first event"
    try:
        for seq, entry, stored, texts, salts in file.entries():
            seen = f"past event {seq}"
            if not isinstance(seq, int) or not isinstance(entry, bytes):
                stopped(f"event {seq}", f"expected an entry of text, found {type(entry).__name__}")
                continue
            texts, salts = (part if isinstance(part, bytes) else None for part in (texts, salts))
            yield Row(seq, entry, stored, leaf_hash(entry), _HEAD.match(entry), texts, salts)
    except UNREADABLE as error:
        stopped("file", f"the file cannot be read {seen}: {error}")


def check_file(file: LedgerFile, check: Check) -> bool:
    """SQLite's own check, the schema, and the meta rows. False where the tables are not those of a ledger."""
    try:
        for (line,) in file.connection.execute("PRAGMA integrity_check"):
            if line != b"ok":
                check.fault("file", f"SQLite: {_text(line)}")
    except UNREADABLE as error:
        check.fault("file", f"SQLite cannot check the file: {error}")
    try:
        if not _check_schema(file, check):
            return False
        _check_meta(file, check)
    except UNREADABLE as error:
        check.fault("file", f"the schema cannot be read: {error}")
        return False
    return True


def _check_schema(file: LedgerFile, check: Check) -> bool:
    """Whether every table is as expected. Anything else that differs is a finding and can be read past."""
    wanted, found = _objects_of_ledger(), dict(_objects(file.connection))
    readable = True
    for name, (kind, table, sql) in wanted.items():
        check.checked += 1
        if name not in found:
            check.fault(f"{kind} {name}", f"expected {' '.join((sql or kind).split())}, found nothing")
        elif found[name] != (kind, table, sql):
            said = " ".join(str(part) for part in found[name])
            check.fault(f"{kind} {name}", f"expected {kind} {table} {sql}, the file says {said}")
        else:
            continue
        readable = readable and kind != "table"
    for name, (kind, table, sql) in found.items():
        if name in wanted:
            continue
        if name.startswith("sqlite_stat"):
            check.note(f"{kind} {name}", "statistics that ANALYZE wrote; no part of a ledger, and harmless")
        else:
            check.fault(f"{kind} {name}", f"expected no such object, the file says {table} {sql}")
    return readable


def _objects_of_ledger() -> dict[str, tuple[str, str, str | None]]:
    with sqlite3.connect(":memory:") as connection:
        connection.text_factory = bytes
        for statement in expected_schema().values():
            connection.execute(statement)
        return dict(_objects(connection))


def _objects(connection: sqlite3.Connection) -> Iterator[tuple[str, tuple[str, str, str | None]]]:
    for row in connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_master"):
        name, kind, table, sql = (None if part is None else _text(part) for part in row)
        yield str(name), (str(kind), str(table), sql)


def _check_meta(file: LedgerFile, check: Check) -> None:
    meta = _meta(file)
    check.checked += len(meta)
    check.compare("meta", "genesis", genesis_of(meta), meta.get("genesis"), "the row")


class Hashes:
    """Every entry hashes to its leaf, follows the one before, and none is missing."""

    name: ClassVar[str] = "hashes"
    proves: ClassVar[str] = "no byte of any event changed, none is missing, each follows the one before"

    def __init__(self, file: LedgerFile, check: Check) -> None:
        self._check = check
        self._next, self._prev = 0, _genesis(file)

    def see(self, row: Row) -> None:
        place = f"event {row.seq}"
        self._check.checked += 1
        if row.seq != self._next:
            gap = f"event {self._next}" if row.seq == self._next + 1 else f"events {self._next} to {row.seq - 1}"
            self._check.fault(gap, f"expected it here, the next in the file is event {row.seq}")
        if row.leaf != row.stored:
            self._check.compare(place, "leaf", row.leaf.hex(), _hex(row.stored), "the row")
        if row.head is None:
            self._check.fault(place, f"expected an entry as labtrail writes it, found {row.entry[:60]!r}…")
        else:
            if int(row.head["seq"]) != row.seq:
                self._check.compare(place, "seq", row.seq, int(row.head["seq"]), "the entry")
            # Behind a gap nothing is known to compare with: the gap is the finding.
            if row.seq == self._next and row.head["prev"] != self._prev:
                self._check.compare(place, "previous leaf", self._prev.decode(), row.head["prev"].decode())
        self._next, self._prev = row.seq + 1, row.leaf.hex().encode()

    def end(self) -> None:
        """A missing tail is for the tree to find: the head says how many there are."""


class Tree:
    """The stored nodes and the head are those of the tree over the entries."""

    name: ClassVar[str] = "tree"
    proves: ClassVar[str] = "the tree head and every stored node are those of the tree over these events"

    def __init__(self, file: LedgerFile, check: Check) -> None:
        self._file, self._check = file, check
        self._levels: list[list[bytes]] = [[]]
        self._made: list[int] = [0]
        self.size = 0
        self.root = b""
        """Calculated, once `end` was called and no event is missing."""
        self._whole = True

    def see(self, row: Row) -> None:
        if row.seq != self.size:
            self._whole = False
        self.size += 1
        pending = self._levels[0]
        pending.append(row.leaf)
        if len(pending) == TILE_WIDTH and self._whole:
            self._close(0)

    def end(self) -> None:
        try:
            self._check_head()
            self._check_extra()
        except UNREADABLE as error:
            self._check.fault("head", f"the head and the nodes cannot be read: {error}")

    def _close(self, level: int) -> None:
        """A tile is full: its root is the next node one level up."""
        node, self._levels[level] = root_of(self._levels[level]), []
        if level + 1 == len(self._levels):
            self._levels.append([])
            self._made.append(0)
        self._compare_node(level + 1, self._made[level + 1], node)
        self._made[level + 1] += 1
        self._levels[level + 1].append(node)
        if len(self._levels[level + 1]) == TILE_WIDTH:
            self._close(level + 1)

    def _compare_node(self, level: int, index: int, node: bytes) -> None:
        place = f"tree node {index} of level {level}"
        self._check.checked += 1
        try:
            row = self._file.connection.execute(
                "SELECT hash FROM nodes WHERE level = ? AND idx = ?", (level, index)
            ).fetchone()
        except UNREADABLE as error:
            self._check.fault(place, f"cannot be read: {error}")
            return
        if row is None:
            self._check.fault(place, f"calculated {node.hex()}, found no such row")
        elif row[0] != node:
            self._check.compare(place, "hash", node.hex(), _hex(row[0]), "the row")

    def _check_head(self) -> None:
        rows = self._file.connection.execute("SELECT only, size, root FROM head").fetchall()
        self._check.checked += 1
        if len(rows) != 1 or rows[0][0] != 1:
            self._check.fault("head", f"expected one row, found {len(rows)}")
            return
        _, size, root = rows[0]
        self._check.compare("head", "size", self.size, size, "the head")
        if not self._whole:
            self._check.missed("root and nodes of the tree, because events are missing")
            return
        self.root = self._root()
        self._check.compare("head", "root", self.root.hex(), _hex(root), "the head")

    def _root(self) -> bytes:
        total = Frontier()
        for level in range(len(self._levels) - 1, -1, -1):
            for node in self._levels[level]:
                total.push(node, 1 << (TILE_BITS * level))
        return total.root()

    def _check_extra(self) -> None:
        """Nodes that no tile has: behind the last of each level, or of a level that is not there."""
        for level, index in self._file.connection.execute("SELECT level, idx FROM nodes ORDER BY level, idx"):
            numbers = isinstance(level, int) and isinstance(index, int)
            known = numbers and 1 <= level < len(self._made) and 0 <= index < self._made[level]
            if self._whole and not known:
                self._check.fault(f"tree node {index} of level {level}", "expected no such node, found one")


class Blobs:
    """Every blob is the one that an event committed to, and no blob is there that none committed to."""

    name: ClassVar[str] = "blobs"
    proves: ClassVar[str] = (
        "every stored blob is the one that an event committed to, byte for byte, and none is missing"
    )

    def __init__(self, file: LedgerFile, check: Check) -> None:
        self._file, self._check = file, check
        self._committed = 0

    def see(self, row: Row) -> None:
        for digest, frame_digest in row.blobs.items():
            self._check.checked += 1
            self._committed += 1
            self._check_blob(row.seq, digest, frame_digest)

    def end(self) -> None:
        try:
            (found,) = self._file.connection.execute("SELECT count(*) FROM blobs").fetchone()
            if found != self._committed or self._check.errors:
                self._name_strangers()
        except UNREADABLE as error:
            self._check.fault("blobs", f"the blobs cannot be counted: {error}")

    def _check_blob(self, seq: int, digest: str, frame_digest: str) -> None:
        place = f"blob {digest}"
        try:
            size, frame = self._file.frame(digest)
            found = sha256(frame).hexdigest()
            if not self._check.compare(place, "frame", found, frame_digest, f"event {seq}"):
                return
            content = content_of(frame, size if isinstance(size, int) else 0)
        except BlobError as error:
            self._check.unreadable(place, "a blob", error)
            return
        # Reading stops behind the stated size, so that a frame that holds more is told by its size alone.
        if self._check.compare(place, "size", content.size, size, "the row"):
            self._check.compare(place, "content", content.digest, digest, "the row")

    def _name_strangers(self) -> None:
        """A second pass, only where the numbers differ: the digests of all blobs need not fit into memory."""
        committed: dict[bytes, int] = {}
        for row in rows(self._file, self._check.fault):
            for digest in row.blobs:
                if (first := committed.setdefault(bytes.fromhex(digest), row.seq)) != row.seq:
                    self._check.fault(f"event {row.seq}", f"stores blob {digest}, which event {first} stored")
        for (digest,) in self._file.connection.execute("SELECT digest FROM blobs ORDER BY rowid"):
            if digest not in committed:
                self._check.fault(f"blob {_hex(digest)}", "expected an event that stored it, found none")


def _genesis(file: LedgerFile) -> bytes:
    """What the first event must name as its previous leaf: calculated from the other meta rows."""
    try:
        return genesis_of(_meta(file)).encode()
    except UNREADABLE:
        return b""


def _meta(file: LedgerFile) -> dict[str, str]:
    return {_text(key): _text(value) for key, value in file.connection.execute("SELECT key, value FROM meta")}


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else repr(value)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _hex(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)
