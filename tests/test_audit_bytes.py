"""No byte of a ledger can change unseen: every position of every row, and a sample of the raw file."""

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from audit.verify import verify
from ledger.events import CheckpointSigned, CorrectionRecorded, Draft, RecordImported
from ledger.log import EventLog, LedgerError
from ledger.merkle import TILE_WIDTH
from ledger.recipes import digest_of
from ledger.store import expected_schema
from tests.campaigns import write_campaign


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def imported(number: int) -> Draft:
    raw = f"line {number} of the other harness".encode()
    body = RecordImported(
        format="jsonl", source=f"{number}.jsonl", source_digest=digest_of(raw), line=0, raw=digest_of(raw)
    )
    return Draft(body, "importer:jsonl", blobs=(raw,))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three events, one blob and two texts."""
    path = tmp_path / "small.db"
    signed = CheckpointSigned(size=1, root=digest_of(b"x"), note="labtrail/x\n1\n")
    noted = CorrectionRecorded(target=0, author="é", reason='"why"', statement="\u2028 line\n")
    with EventLog.create(path) as log:
        log.append([imported(0), Draft(signed, "supervisor:labtrail"), Draft(noted, "person:p")])
    return path


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough events for two nodes of the tree."""
    path = tmp_path_factory.mktemp("tiled") / "tiled.db"
    with EventLog.create(path) as log:
        log.append([imported(number) for number in range(2 * TILE_WIDTH + 3)])
    return path


def triggers(connection: sqlite3.Connection, exist: bool) -> None:
    """Drop all triggers, or create them as they were."""
    for name, sql in expected_schema().items():
        if sql.startswith("CREATE TRIGGER"):
            connection.execute(sql if exist else f"DROP TRIGGER {name}")


def change(path: Path, table: str, column: str, rowid: str, value: object, old: object) -> None:
    """Change one value and leave the schema as it was; behind SQLite's back where SQLite refuses."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("BEGIN")
        triggers(connection, exist=False)
        cast = "CAST(? AS TEXT)" if isinstance(value, bytes) and column in ("entry", "texts", "key", "value") else "?"
        try:
            connection.execute(f"UPDATE {table} SET {column} = {cast} WHERE {rowid}", (value,))
        except sqlite3.DatabaseError:
            connection.execute("ROLLBACK")
        else:
            triggers(connection, exist=True)
            connection.execute("COMMIT")
            return
    content = path.read_bytes()
    assert isinstance(old, bytes)
    assert isinstance(value, bytes)
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, value))


def values(path: Path, query: str) -> Iterator[tuple[str, bytes]]:
    """(WHERE clause, value as bytes) of one column's rows."""
    with closing(sqlite3.connect(path)) as connection:
        yield from connection.execute(query).fetchall()


COLUMNS = [
    ("events", "entry", "SELECT 'seq = ' || seq, CAST(entry AS BLOB) FROM events", "hashes"),
    ("events", "leaf", "SELECT 'seq = ' || seq, leaf FROM events", "hashes"),
    ("events", "texts", "SELECT 'seq = ' || seq, CAST(texts AS BLOB) FROM events WHERE texts IS NOT NULL", "schema"),
    ("events", "salts", "SELECT 'seq = ' || seq, salts FROM events WHERE salts IS NOT NULL", "schema"),
    ("blobs", "digest", "SELECT 'rowid = ' || rowid, digest FROM blobs", "blobs"),
    ("blobs", "frame", "SELECT 'rowid = ' || rowid, frame FROM blobs", "blobs"),
    ("head", "root", "SELECT 'only = 1', root FROM head", "tree"),
    ("meta", "key", "SELECT 'key = ''' || key || '''', CAST(key AS BLOB) FROM meta", "file"),
    ("meta", "value", "SELECT 'key = ''' || key || '''', CAST(value AS BLOB) FROM meta", "file"),
]


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 11])
@pytest.mark.parametrize(("table", "column", "query", "check"), COLUMNS, ids=lambda part: str(part).split(" ")[0])
def test_every_byte_of_every_value_counts(
    small: Path, table: str, column: str, query: str, check: str, stride: int
) -> None:
    assert verify(small).sound
    work = small.with_name("work.db")
    for rowid, value in list(values(small, query)):
        for position in range(0, len(value), stride):
            shutil.copyfile(small, work)
            change(work, table, column, rowid, flip(value, position), value)
            report = verify(work)
            assert check in {finding.check for finding in report.findings}, (rowid, position)
            assert not report.sound


def test_every_number_counts(small: Path) -> None:
    work = small.with_name("work.db")
    for table, column, rowid, check in (("blobs", "size", "1", "blobs"), ("head", "size", "1", "tree")):
        for value in (0, 1, 2**40):
            shutil.copyfile(small, work)
            with closing(sqlite3.connect(work)) as connection:
                triggers(connection, exist=False)
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE {rowid}", (value,))
                triggers(connection, exist=True)
                connection.commit()
            assert check in {finding.check for finding in verify(work).findings}, (table, value)


@pytest.mark.parametrize("seq", range(3))
def test_a_deleted_event_is_named(small: Path, seq: int) -> None:
    with closing(sqlite3.connect(small)) as connection:
        triggers(connection, exist=False)
        connection.execute("DELETE FROM events WHERE seq = ?", (seq,))
        triggers(connection, exist=True)
        connection.commit()
    found = [(finding.check, finding.place) for finding in verify(small).findings]
    assert (("hashes", "event 0") if seq == 0 else ("tree", "head")) in found


def test_every_byte_of_a_tree_node_counts(tiled: Path, tmp_path: Path) -> None:
    assert verify(tiled).sound
    work = tmp_path / "work.db"
    for rowid, value in list(values(tiled, "SELECT 'idx = ' || idx, hash FROM nodes")):
        for position in (0, 7, 15, 31):
            shutil.copyfile(tiled, work)
            change(work, "nodes", "hash", rowid, flip(value, position), value)
            places = [finding.place for finding in verify(work).findings]
            assert places == [f"tree node {rowid.removeprefix('idx = ')} of level 1"]


@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("DELETE FROM nodes WHERE idx = 1", "tree node 1 of level 1"),
        ("INSERT INTO nodes VALUES (1, 2, randomblob(32))", "tree node 2 of level 1"),
        ("INSERT INTO nodes VALUES (2, 0, randomblob(32))", "tree node 0 of level 2"),
        ("UPDATE nodes SET idx = 9 WHERE idx = 1", "tree node 9 of level 1"),
    ],
)
def test_the_nodes_are_those_of_the_tree_and_no_others(tiled: Path, tmp_path: Path, statement: str, place: str) -> None:
    work = tmp_path / "work.db"
    shutil.copyfile(tiled, work)
    with closing(sqlite3.connect(work)) as connection:
        triggers(connection, exist=False)
        connection.execute(statement)
        triggers(connection, exist=True)
        connection.commit()
    assert ("tree", place) in [(finding.check, finding.place) for finding in verify(work).findings]


def content(path: Path) -> list[object]:
    """Everything that a reader of the ledger can get to see."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        connection.text_factory = bytes
        found: list[object] = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
        for table in ("meta", "events", "blobs", "nodes", "head"):
            found += connection.execute(f"SELECT * FROM {table}").fetchall()
        return found


@pytest.mark.parametrize("flips", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_flip_in_the_raw_file_is_found_or_changes_nothing_that_can_be_read(tmp_path: Path, flips: int) -> None:
    path, work = tmp_path / "toy.db", tmp_path / "work.db"
    with EventLog.create(path) as log:
        write_campaign(log, trials=2)
    original, raw = content(path), path.read_bytes()
    draw = random.Random(1)
    unseen: list[int] = []
    for position in draw.sample(range(len(raw)), flips):
        changed = bytearray(raw)
        changed[position] ^= 1 << draw.randrange(8)
        work.write_bytes(changed)
        try:
            sound = verify(work).sound
        except LedgerError:
            continue
        if sound:
            unseen.append(position)
            assert content(work) == original, position
    # What goes unseen lies in space that no row uses, which SQLite leaves zero.
    assert sum(raw[position] != 0 for position in unseen) <= flips // 50


def test_garbage_in_the_middle_gives_findings_and_no_traceback(tmp_path: Path) -> None:
    path, work = tmp_path / "toy.db", tmp_path / "work.db"
    with EventLog.create(path) as log:
        write_campaign(log, trials=6)
    raw = path.read_bytes()
    pages = len(raw) // 8192
    for page in range(1, pages):
        changed = bytearray(raw)
        changed[page * 8192 : (page + 1) * 8192] = random.Random(page).randbytes(8192)
        work.write_bytes(changed)
        assert not verify(work).sound, page


def test_a_frame_that_claims_terabytes_is_a_finding(small: Path) -> None:
    frame = bytes.fromhex("28b52ffde0" + "ffffffffffff0000" + "0000010000")
    with closing(sqlite3.connect(small)) as connection:
        triggers(connection, exist=False)
        connection.execute("UPDATE blobs SET frame = ?, size = 281474976710655", (frame,))
        triggers(connection, exist=True)
        connection.commit()
    assert "blobs" in {finding.check for finding in verify(small).findings}
