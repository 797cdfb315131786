"""Where an export lands: a new file or folder that appears whole or not at all, and never over what is not ours."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger.log import LedgerError
from ledger.store import sync_folder

CARD = "labtrail-export.json"
"""In a folder of tables: which ledger it shows, as of which head, and the files that belong to the export."""


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill that gets its name when the block ends well.

    Raises LedgerError where something stands at `target`, except for an empty folder.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise LedgerError(f"{target}: expected no such file or an empty folder, found something; choose another name")
    with _draft(target) as draft:
        yield draft
        draft.rename(target)
        sync_folder(target)


@contextmanager
def own_folder(target: Path, origin: str) -> Iterator[Path]:
    """As `new_folder`, and a former export of the same ledger is replaced where nothing else stands in it."""
    if not (target / CARD).is_file():
        with new_folder(target) as draft:
            yield draft
        return
    try:
        card = json.loads((target / CARD).read_text())
        of_this, known = card["ledger"] == origin, {CARD, *card["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{target / CARD}: expected the card of an export, found something else") from error
    foreign = sorted({path.name for path in target.iterdir()} - known)
    if not of_this or foreign:
        found = f"{foreign[0]!r}" if foreign else "the export of another ledger"
        raise LedgerError(
            f"{target}: expected a former export of this ledger alone, found {found}; choose another name"
        )
    with _draft(target) as draft:
        yield draft
        old = _sibling(target, "old")
        target.rename(old)
        draft.rename(target)
        sync_folder(target)
        shutil.rmtree(old)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    draft = _sibling(target.absolute(), "new")
    try:
        draft.mkdir()
    except OSError as error:
        raise LedgerError(f"{target}: the folder cannot be made: {error.strerror}") from error
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sibling(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.{suffix}")
