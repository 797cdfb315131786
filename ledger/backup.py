"""A copy of a ledger while it is written to, through SQLite's online backup and checked before it gets its name."""

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from ledger.locks import LedgerError
from ledger.log import EventLog, Head
from ledger.store import connect_to_read, expect_file, sync_folder

PAGES_A_STEP = 4096


def backup(source: Path, target: Path) -> Head:
    """Copy the ledger at `source` to `target`, one state of it, and return that state's head.

    The writer goes on meanwhile. `target` appears whole or not at all. Raises LedgerError where something stands at
    `target`, or where the copy's head does not fit its events.
    """
    expect_file(source)
    if target.exists():
        raise LedgerError(f"{target}: expected no file, found one; choose another name")
    draft = target.with_name(f"{target.name}.{secrets.token_hex(8)}.new")
    try:
        _copy(source, draft)
        with closing(EventLog.read_only(draft)) as copy:
            head = Head(copy.size, copy.tree(copy.size).root())
            if copy.head() != head:
                raise LedgerError(f"{source}: the head does not fit the events; run `audit verify`")
        os.link(draft, target)
        sync_folder(target)
    except sqlite3.Error as error:
        raise LedgerError(f"{source}: the backup failed, {target} was not made: {error}") from error
    except OSError as error:
        raise LedgerError(f"{target}: the backup failed: {error.strerror}") from error
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    return head


def _copy(source: Path, draft: Path) -> None:
    with closing(connect_to_read(source)) as reading, closing(sqlite3.connect(draft)) as writing:
        writing.execute("PRAGMA synchronous=FULL")
        # One read transaction: each step of a backup would otherwise start again after an append.
        reading.execute("BEGIN")
        reading.execute("SELECT size FROM head").fetchone()
        reading.backup(writing, pages=PAGES_A_STEP)
        # A copy in WAL mode cannot be opened where nothing may be written beside it; the first writer turns WAL on.
        writing.execute("PRAGMA journal_mode=DELETE")
    with draft.open("rb") as file:
        os.fsync(file.fileno())
