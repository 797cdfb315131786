"""The ledger file as an auditor opens it: read-only, one snapshot, nothing assumed about what it holds."""

import sqlite3
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import zstandard

from ledger.locks import LedgerError
from ledger.store import check_format, connect_to_read, expect_file, raise_as_ledger_error

MAX_CONTENT_BYTES = 64 * 2**20
"""Largest blob that is taken apart: a few bytes of zstd can stand for terabytes."""
CHUNK_BYTES = 2**20


UNREADABLE = (sqlite3.DatabaseError, UnicodeDecodeError, MemoryError)
"""What reading a damaged file raises: SQLite's message may quote damaged bytes that Python fails to decode, and a
damaged length may ask for more memory than there is.
"""


class BlobError(LedgerError):
    """A blob cannot be had: missing, damaged or not what its digest says."""


class WithheldBlob(BlobError):
    """This copy of the ledger leaves the blob out: allowed, and nobody can check what depends on it."""


class Content(NamedTuple):
    """What a stored frame holds."""

    digest: str
    size: int


class LedgerFile:
    """Read access for checks; `EventLog` would refuse a file whose tree has holes, and those are to be reported."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.connection = connection

    @classmethod
    def open(cls, path: Path) -> "LedgerFile":
        """Raises LedgerError in one line where `path` is no ledger; a damaged ledger opens."""
        expect_file(path)
        try:
            connection = connect_to_read(path)
            # Broken cells are to be errors, not values. (trusted_schema=OFF would forbid the generated columns.)
            connection.execute("PRAGMA cell_size_check=ON")
            _expect_ledger(path, connection)
            # One read transaction: a writer that goes on appending cannot move the ground under the checks.
            connection.execute("BEGIN")
        except (sqlite3.Error, OSError) as error:
            raise_as_ledger_error(path, error)
        return cls(path, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def entries(self) -> Iterator[tuple[object, object, object, object, object]]:
        """(seq, entry, leaf, texts, salts) in order of seq, of whatever types the file holds.

        Raises sqlite3.DatabaseError.
        """
        yield from self.connection.execute("SELECT seq, entry, leaf, texts, salts FROM events ORDER BY seq")

    def expected_size(self) -> int | None:
        """How many events there seem to be: for a progress bar, not for a check."""
        try:
            (last,) = self.connection.execute("SELECT max(seq) FROM events").fetchone()
        except UNREADABLE:
            return None
        return last + 1 if isinstance(last, int) else None

    def frame(self, digest: str) -> tuple[object, bytes]:
        """(size, frame) of a blob as stored. Raises BlobError where it is not there, not readable or withheld."""
        try:
            row = self.connection.execute(
                "SELECT size, frame FROM blobs WHERE digest = ?", (bytes.fromhex(digest),)
            ).fetchone()
        except UNREADABLE as error:
            raise BlobError(f"the blob cannot be read: {error}") from error
        if row is None:
            raise BlobError("the blob is not in the ledger")
        if row[1] is None:
            raise WithheldBlob("withheld")
        if not isinstance(row[1], bytes):
            raise BlobError(f"expected a frame of bytes, found {type(row[1]).__name__}")
        return row[0], row[1]

    def holds(self, digest: str) -> bool:
        """Whether there is a blob with this digest, whatever its content. Raises BlobError where nobody can tell."""
        try:
            found = self.connection.execute("SELECT 1 FROM blobs WHERE digest = ?", (bytes.fromhex(digest),)).fetchone()
        except UNREADABLE as error:
            raise BlobError(f"the blob cannot be read: {error}") from error
        return found is not None

    def blob(self, digest: str) -> bytes:
        """Content by digest, checked. Raises BlobError."""
        size, frame = self.frame(digest)
        if not isinstance(size, int) or size > MAX_CONTENT_BYTES:
            raise BlobError(f"expected at most {MAX_CONTENT_BYTES:,} bytes of content, the ledger says {size}")
        content = b"".join(_chunks(frame, size))
        if (found := sha256(content).hexdigest()) != digest:
            raise BlobError(f"the content's digest is {found}")
        return content


def content_of(frame: bytes, limit: int) -> Content:
    """Digest and size of what a frame holds, in constant memory; reading stops behind `limit`. Raises BlobError."""
    digest, size = sha256(), 0
    for chunk in _chunks(frame, limit):
        digest.update(chunk)
        size += len(chunk)
    return Content(digest.hexdigest(), size)


def _chunks(frame: bytes, limit: int) -> Iterator[bytes]:
    size = 0
    try:
        with zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(frame) as reader:
            while size <= limit and (chunk := reader.read(CHUNK_BYTES)):
                size += len(chunk)
                yield chunk
    except zstandard.ZstdError as error:
        raise BlobError(f"the frame does not decompress: {error}") from error


def _expect_ledger(path: Path, connection: sqlite3.Connection) -> None:
    try:
        check_format(path, connection)
    except (UnicodeDecodeError, MemoryError):
        pass  # as below
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
        # Damaged behind a good header: a finding, not a file of another kind.
