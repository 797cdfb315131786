"""A publication bundle: one file with log, blobs, a signed head and public keys, verified offline elsewhere."""

import json
import os
import secrets
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import file_digest, sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ledger import checkpoint
from ledger.events import CampaignStarted, decode
from ledger.keys import KeyFault, SigningKey, VerifierKey
from ledger.locks import LedgerError
from ledger.log import EventLog
from ledger.notes import Note, NoteError
from ledger.redaction import Plan, Redaction, plan
from ledger.store import begin_copy, sync_folder
from ledger.texts import withhold

FORMAT = "labtrail-bundle/1"
MANIFEST, LEDGER, HEAD = "bundle.json", "ledger.db", "ledger.db.checkpoint"
MAX_BYTES = {MANIFEST: 2**20, HEAD: 2**16, LEDGER: 16 * 2**30}
"""Members of a bundle, all there are, and how large each may be unpacked."""
MAX_RATIO = 200
"""How many times larger than packed; SQLite pages of text come to 20 at most, a bomb to 1,000."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every member: the same ledger gives the same bytes."""
CHUNK_BYTES = 2**20
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)
"""What zipfile raises for files that are none."""


class BundleError(LedgerError):
    """The file is no bundle, or not a whole one; the message says what was expected and found."""


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle. Nothing it says of itself is to be believed before the audit."""

    ledger: Path
    note: Note
    log_key: VerifierKey
    """The key that the bundle names; who holds it the reader has to know from elsewhere."""
    writer: str
    """Program and version that wrote it, and whose `audit` verifies it."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    size: int
    root: bytes
    texts: int
    """Texts that are withheld."""
    blobs: int
    """Blobs that are withheld."""


def export(log: EventLog, target: Path, key: SigningKey, redaction: Redaction | None = None) -> Exported:
    """Write one state of the ledger to the bundle `target`, whole or not at all, and sign its head.

    The writer goes on meanwhile. What `redaction` names is left out, and every leaf still verifies. Raises LedgerError
    where something stands at `target`, CheckpointError where the log does not extend the last head that `key` signed.
    """
    if target.exists():
        raise LedgerError(f"{target}: expected no file, found one; choose another name")
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".new", dir=target.absolute().parent))
    try:
        with log.snapshot():
            note = checkpoint.sign(log, key)
            chosen = plan(log, redaction or Redaction())
            exported = _copy(log, folder / LEDGER, chosen)
            keys = sorted({e.body.evaluator_key for e in log.events() if isinstance(e.body, CampaignStarted)})
        (folder / HEAD).write_bytes(str(note).encode())
        manifest = {
            "format": FORMAT,
            "writer": f"labtrail {version('labtrail')}",
            "size": exported.size,
            "root": exported.root.hex(),
            "log_key": str(key.verifier),
            "evaluator_keys": keys,
            "withheld": {"texts": exported.texts, "blobs": exported.blobs},
            "sha256": {name: _digest(folder / name) for name in (LEDGER, HEAD)},
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False))
        draft = folder / secrets.token_hex(4)
        _pack(folder, draft)
        os.link(draft, target)
        sync_folder(target)
    except sqlite3.Error as error:
        raise LedgerError(f"{target}: the bundle was not made: {error}") from error
    except OSError as error:
        raise LedgerError(f"{target}: the bundle was not made: {error.strerror}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return exported


def _copy(log: EventLog, target: Path, chosen: Plan) -> Exported:
    """The ledger written row by row: a copied file would keep what is left out in pages that no row uses."""
    texts = blobs = 0

    def events() -> Iterator[tuple[Any, ...]]:
        nonlocal texts
        for (seq, entry, leaf), written in zip(log.entries(), log.written(), strict=True):
            said, salts = written.texts, written.salts
            if said is not None and salts is not None:
                event = decode(*written)
                left, salts = withhold(said, salts, lambda name, text: chosen.takes(event, name, text))  # noqa: B023
                texts += sum(text is None for text in json.loads(left).values())
                yield seq, entry.decode(), leaf, left, salts
            else:
                yield seq, entry.decode(), leaf, None, None

    def contents() -> Iterator[tuple[Any, ...]]:
        nonlocal blobs
        for digest, size, frame in log.frames():
            if frame is None or digest.hex() in chosen.blobs:
                blobs += 1
                yield digest, 0, None
            else:
                yield digest, size, frame

    head = log.head()
    with closing(begin_copy(target, log.meta())) as copy:
        copy.executemany("INSERT INTO events (seq, entry, leaf, texts, salts) VALUES (?, ?, ?, ?, ?)", events())
        copy.executemany("INSERT INTO blobs (digest, size, frame) VALUES (?, ?, ?)", contents())
        copy.executemany("INSERT INTO nodes (level, idx, hash) VALUES (?, ?, ?)", log.nodes())
        copy.execute("INSERT INTO head (only, size, root) VALUES (1, ?, ?)", (head.size, head.root))
        copy.execute("COMMIT")
    return Exported(head.size, head.root, texts, blobs)


def _pack(folder: Path, target: Path) -> None:
    with target.open("xb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name in MAX_BYTES:
                member = zipfile.ZipInfo(name, EPOCH)
                member.compress_type, member.external_attr, member.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
                with (folder / name).open("rb") as source, archive.open(member, "w", force_zip64=True) as packed:
                    shutil.copyfileobj(source, packed, CHUNK_BYTES)
        file.flush()
        os.fsync(file.fileno())


def is_bundle(path: Path) -> bool:
    """Whether the file begins as a zip archive does."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


@contextmanager
def unpacked(path: Path) -> Iterator[Bundle]:
    """The bundle at `path` in a temporary folder. Raises BundleError for whatever is not one, hostile files included.

    Members are written under names of our own, never larger than they say and than MAX_BYTES allows.
    """
    with tempfile.TemporaryDirectory(prefix="labtrail-bundle-") as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(path) as archive:
                members = _members(path, archive)
                free = shutil.disk_usage(folder).free
                if (needed := sum(member.file_size for member in members.values())) > free:
                    raise BundleError(f"{path}: unpacking takes {needed:,} bytes, {folder.parent} has {free:,} free")
                digests = {name: _unpack(path, archive, members[name], folder / name) for name in MAX_BYTES}
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            raise BundleError(f"{path}: expected a bundle, found a file that does not unpack: {error}") from error
        yield _read(path, folder, digests)


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    listed = archive.infolist()
    if sorted(member.filename for member in listed) != sorted(MAX_BYTES):
        found = ", ".join(repr(member.filename[:60]) for member in listed[:8])
        raise BundleError(f"{path}: expected the members {', '.join(MAX_BYTES)}, found {found or 'none'}")
    for member in listed:
        most = min(MAX_BYTES[member.filename], MAX_RATIO * member.compress_size + CHUNK_BYTES)
        if member.file_size > most:
            size = f"{member.file_size:,} bytes from {member.compress_size:,}"
            raise BundleError(f"{path}: {member.filename}: expected at most {most:,} bytes, it says {size}")
        if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"{path}: {member.filename}: expected a stored or deflated member without a password")
    return {member.filename: member for member in listed}


def _unpack(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> str:
    """Write one member; returns its SHA-256."""
    digest, left = sha256(), member.file_size
    with archive.open(member) as packed, target.open("xb") as file:
        while chunk := packed.read(CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise BundleError(f"{path}: {member.filename} is larger than it says")
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _read(path: Path, folder: Path, digests: dict[str, str]) -> Bundle:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        match manifest:
            case {"format": str(found), "writer": str(writer), "log_key": str(key), "sha256": dict(said)}:
                if found != FORMAT:
                    raise BundleError(f"{path}: expected format {FORMAT}, found {found!r}, written by {writer!r}")
                for name in (LEDGER, HEAD):
                    if said.get(name) != digests[name]:
                        raise BundleError(
                            f"{path}: {name}: calculated {digests[name]}, the manifest says {said.get(name)}"
                        )
                note = Note.parse((folder / HEAD).read_bytes())
                return Bundle(folder / LEDGER, note, VerifierKey.parse(key), writer)
    except (ValueError, RecursionError, KeyFault, NoteError) as error:
        raise BundleError(f"{path}: the bundle cannot be read: {error}") from error
    raise BundleError(f"{path}: {MANIFEST}: expected format, writer, log_key and sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
