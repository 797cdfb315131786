"""Backups and the event catalogue: whole copies of a running ledger, and documentation that misses nothing."""

import threading
from pathlib import Path

import pytest

from ledger.backup import backup
from ledger.bodies import BODIES
from ledger.catalogue import catalogue
from ledger.locks import LedgerError
from ledger.log import EventLog
from tests.test_ledger import check_whole, draft, drafts


def test_a_backup_is_a_whole_ledger_that_can_be_written(log: EventLog, tmp_path: Path) -> None:
    log.append([draft("one", (b"blob",)), *drafts(300)])
    assert backup(log.path, tmp_path / "copy.db") == log.head()
    assert not list(tmp_path.glob("*.new*"))
    with EventLog.open(tmp_path / "copy.db") as copy:
        assert list(copy.entries()) == list(log.entries())
        copy.append(drafts(1))
        check_whole(copy)


def test_a_backup_while_the_writer_goes_on_is_one_state(log: EventLog, tmp_path: Path) -> None:
    log.append(drafts(500))
    heads = []
    copier = threading.Thread(
        target=lambda: heads.extend(backup(log.path, tmp_path / f"copy{number}.db") for number in range(5))
    )
    copier.start()
    while copier.is_alive():
        log.append(drafts(7))
    copier.join()
    assert len(heads) == 5
    for number, head in enumerate(heads):
        with EventLog.read_only(tmp_path / f"copy{number}.db") as copy:
            assert copy.head() == head
            assert (head.size - 500) % 7 == 0
            check_whole(copy)


def test_a_backup_overwrites_nothing(log: EventLog, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(LedgerError, match="expected no file"):
        backup(log.path, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "mine"


def test_a_backup_into_no_folder_is_a_clear_error(log: EventLog, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="the backup failed"):
        backup(log.path, tmp_path / "none" / "copy.db")


def test_the_catalogue_names_every_type_and_field() -> None:
    text = catalogue()
    for body in BODIES:
        section = text.partition(f"## {body.TYPE}\n")[2].partition("\n## ")[0]
        assert f"Version {body.VERSION}. " in section
        assert all(f"| `{name}` |" in section for name in body.model_fields), body.TYPE
    assert "Annotated" not in text
    assert "typing." not in text
