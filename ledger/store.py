"""The ledger's file: its schema, its format, and how it is made and connected to."""

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import BinaryIO, NoReturn

from sqlite_utils import Database

from ledger.locks import LedgerError, is_locked

APPLICATION_ID = 0x4C545231  # "LTR1"
FORMAT = 2
PAGE_SIZE_BYTES = 8192
CHECKPOINT_PAGES = 2000  # 16 MB of write-ahead log: each page is copied into the file less often
BUSY_TIMEOUT_S = 10.0
SCHEMA = resources.files("ledger").joinpath("schema.sql").read_text()


def create_file(path: Path, origin: str | None) -> None:
    """Make an empty ledger at `path`, whole or not at all. The caller holds the lock."""
    for name in (path, _beside(path, "-wal"), _beside(path, "-shm")):
        # A write-ahead log that outlived its ledger would be played into the new one.
        if name.exists() and (name != path or path.stat().st_size):
            raise LedgerError(f"{path}: expected no file {name.name}, found one; open it or choose another name")
    draft = _beside(path, ".new")
    for name in (draft, _beside(draft, "-wal"), _beside(draft, "-shm")):
        name.unlink(missing_ok=True)
    # Built under another name: if the process dies here, no half-made ledger stands at `path`.
    _write_schema(draft, origin or f"labtrail/{secrets.token_hex(8)}")
    draft.rename(path)
    sync_folder(path)


def begin_copy(path: Path, meta: dict[str, str]) -> sqlite3.Connection:
    """A new file at `path` with the tables of a ledger and these meta rows, in a transaction.

    The caller fills the other tables, the head last, commits and closes. It can be read where nothing may be written.
    """
    connection = _connect(path, "rwc")
    connection.execute(f"PRAGMA page_size={PAGE_SIZE_BYTES}")
    connection.execute("BEGIN IMMEDIATE")
    _write_tables(connection, meta)
    return connection


def connect_to_write(path: Path) -> sqlite3.Connection:
    """The one writing connection: an append that returned survives power loss."""
    connection = _connect(path, "rw")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
    return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A connection that cannot write to the ledger, for use beside a writer or without one.

    SQLite puts its `-shm` and an empty `-wal` beside the ledger, for a writer may start at any time. Where the folder
    cannot be written and no writer is there, the file is opened immutable.
    """
    shared = _beside(path, "-wal").exists() or is_locked(path) or os.access(path.parent, os.W_OK)
    return _connect(path, "ro" if shared else "ro&immutable=1")


def check_format(path: Path, connection: sqlite3.Connection) -> None:
    """Raises LedgerError unless the file is a ledger in the format that this program knows."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise LedgerError(f"{path}: expected a labtrail ledger, found another SQLite database")
    if version != FORMAT:
        raise LedgerError(
            f"{path}: format {version}, this program reads format {FORMAT}; use the labtrail that wrote it"
        )


def expect_file(path: Path) -> None:
    """Raises LedgerError unless a non-empty file stands at `path`."""
    try:
        exists = path.exists()
    except OSError as error:
        raise LedgerError(f"{path}: the ledger cannot be reached: {error.strerror}") from error
    if not exists:
        raise LedgerError(f"{path}: no such ledger; `labtrail run TASK --ledger {path}` makes one")
    if not path.is_file():
        raise LedgerError(f"{path}: expected a ledger file, found a folder or device")
    if path.stat().st_size == 0:
        raise LedgerError(f"{path}: expected a ledger, found an empty file")


def expected_schema() -> dict[str, str]:
    """Name -> SQL of every table, index and trigger a ledger has."""
    connection = sqlite3.connect(":memory:")
    connection.executescript(SCHEMA)
    return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def genesis_of(meta: dict[str, str]) -> str:
    """The `prev` of the first event: SHA-256 over the other meta rows, so that the tree covers them."""
    facts = {key: value for key, value in sorted(meta.items()) if key != "genesis"}
    return sha256(json.dumps(facts, separators=(",", ":")).encode()).hexdigest()


def sync_folder(path: Path) -> None:
    """Make the name of the file at `path` as durable as its content: a rename alone can be lost with the power."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content`, durably: a reader finds the old or the new, and a crash leaves one."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name, whole and durable, when the block ends well.

    Raises LedgerError where something stands at `path`.
    """
    if path.exists():
        raise LedgerError(f"{path}: expected no file, found one; choose another name")
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError as error:
        raise LedgerError(f"{path}: expected no file, found one; choose another name") from error
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path)


def raise_as_ledger_error(path: Path, error: BaseException) -> NoReturn:
    """Raise `error`, as a LedgerError where it is SQLite's or the system's."""
    if isinstance(error, sqlite3.OperationalError):
        raise LedgerError(f"{path}: SQLite cannot open or read the ledger: {error}") from error
    if isinstance(error, sqlite3.DatabaseError):
        raise LedgerError(
            f"{path}: expected a labtrail ledger, found a file that SQLite cannot read: {error}"
        ) from error
    if isinstance(error, UnicodeDecodeError | MemoryError):
        # SQLite quotes damaged names in its messages, and takes lengths in damaged pages for what they say.
        raise LedgerError(f"{path}: the file is damaged; `audit verify {path}` says where") from error
    if isinstance(error, OSError):
        raise LedgerError(f"{path}: {error.strerror}") from error
    raise error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    quoted = str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(f"file:{quoted}?mode={mode}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    # Entries are hashed bytes: decoding and encoding them again must not stand between file and check.
    connection.text_factory = bytes
    return connection


def _write_schema(path: Path, origin: str) -> None:
    connection = _connect(path, "rwc")
    try:
        connection.text_factory = str
        connection.execute(f"PRAGMA page_size={PAGE_SIZE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        database = Database(connection, recursive_triggers=False, execute_plugins=False)
        meta = {"format": str(FORMAT), "origin": origin}
        with database.atomic():
            _write_tables(connection, {**meta, "genesis": genesis_of(meta)})
            database.table("head").insert({"only": 1, "size": 0, "root": sha256(b"").digest()})
    finally:
        connection.close()


def _write_tables(connection: sqlite3.Connection, meta: dict[str, str]) -> None:
    for statement in _statements(SCHEMA):
        connection.execute(statement)
    connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", meta.items())
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={FORMAT}")


def _statements(script: str) -> Iterable[str]:
    """Statements of a script one by one: executescript would commit the transaction they stand in."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
