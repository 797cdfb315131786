"""The writer's lock: one process at a time holds a ledger, and whoever is refused learns which."""

import fcntl
import os
import time
from pathlib import Path

PATIENCE_S = 0.25
"""A reader that asks whether a writer is there holds the lock for microseconds; a writer waits that out."""
_RETRY_S = 0.01


class LedgerError(Exception):
    """The ledger cannot be used as asked; the message says what was expected, found, and what to do."""


class OwnedError(LedgerError):
    """Another process writes to the ledger."""


def lock(path: Path) -> int:
    """Take the writer's lock of the ledger at `path`; close the descriptor to give it back.

    The kernel gives it back when the process dies, however it dies. Raises OwnedError naming the process that holds it.
    """
    try:
        descriptor = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LedgerError(
            f"{path}: the folder cannot be written ({error.strerror}); choose another with --ledger"
        ) from error
    try:
        if not _acquire(descriptor):
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise OwnedError(f"{path}: process {owner} is writing to this ledger; wait for it or stop it first")
        os.pwrite(descriptor, f"{os.getpid():<20}\n".encode(), 0)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise LedgerError(f"{path}: the writer's lock cannot be taken: {error.strerror}") from error
        raise
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether a writer holds the ledger."""
    try:
        descriptor = os.open(_lock_path(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _acquire(descriptor: int) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_RETRY_S)


def _lock_path(path: Path) -> Path:
    # The lock is a file of its own: closing a second handle on the database would cancel SQLite's POSIX locks.
    return path.with_name(path.name + ".lock")
