"""EventLog: all or nothing, once and in order, one writer and many readers, and errors that say what to do."""

import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from ledger import store
from ledger.events import CorrectionRecorded, Draft, EventError, decode, decode_bare
from ledger.log import ConflictError, EventLog, Head, LedgerError, OwnedError, expected_schema, genesis_of
from ledger.merkle import EMPTY_ROOT, check_consistency, check_inclusion, leaf_hash, root_of
from ledger.recipes import digest_of


def body(text: str = "") -> CorrectionRecorded:
    return CorrectionRecorded(target=0, author="a", reason="r", statement=text)


def draft(text: str = "", blobs: tuple[bytes, ...] = (), **fields: str) -> Draft:
    return Draft(body(text), "person:tester", "c1", 1, blobs, **fields)


def drafts(count: int) -> list[Draft]:
    return [draft(str(number)) for number in range(count)]


def check_whole(log: EventLog) -> None:
    """Every leaf, the chain, the head and every stored node follow from the entries."""
    leaves: list[bytes] = []
    prev = log.meta()["genesis"]
    for (seq, entry, leaf), written in zip(log.entries(), log.written(), strict=True):
        event = decode(*written)
        assert (seq, event.seq, leaf, event.prev) == (len(leaves), seq, leaf_hash(entry), prev)
        leaves.append(leaf)
        prev = leaf.hex()
    assert log.head() == Head(len(leaves), root_of(leaves))
    assert log.tree(len(leaves)).root() == root_of(leaves)
    width = [len(leaves) >> (8 * level) for level in range(1, 4)]
    expected = [
        (level + 1, index, root_of(leaves[index << (8 * (level + 1)) : (index + 1) << (8 * (level + 1))]))
        for level, count in enumerate(width)
        for index in range(count)
    ]
    assert list(log.nodes()) == expected


# --- appending ---------------------------------------------------------------------------------------------


def test_a_new_ledger_is_empty_and_valid(log: EventLog) -> None:
    assert (log.size, log.head(), list(log.events())) == (0, Head(0, EMPTY_ROOT), [])
    assert log.meta()["genesis"] == genesis_of(log.meta())
    check_whole(log)


def test_append_returns_what_is_read_back(log: EventLog) -> None:
    written = log.append([draft("one"), draft("two", (b"blob",))])
    assert list(log.events()) == written
    assert [event.seq for event in written] == [0, 1]
    assert list(written[1].blobs) == [digest_of(b"blob")]
    check_whole(log)


def test_append_is_all_or_nothing(log: EventLog) -> None:
    log.append([draft("kept")])
    before = log.head()
    with pytest.raises(EventError, match="store the large field as a blob"):
        log.append([draft("fine", (b"lost",)), draft("x" * 70_000)])
    assert (log.head(), log.size) == (before, 1)
    assert list(log.frames()) == []
    log.append([draft("after")])
    check_whole(log)


def test_appending_nothing_changes_nothing(log: EventLog) -> None:
    assert log.append([]) == []
    assert log.size == 0


def test_append_is_idempotent_by_id(log: EventLog) -> None:
    first, second = draft("one"), draft("two")
    [event] = log.append([first])
    assert log.append([first]) == [event]
    assert [event.seq for event in log.append([second, first])] == [1, 0]
    assert log.size == 2
    check_whole(log)


def test_a_draft_that_stands_twice_in_a_batch_is_stored_once(log: EventLog) -> None:
    twice = draft("one")
    events = log.append([twice, draft("two"), twice])
    assert [event.seq for event in events] == [0, 1, 0]
    check_whole(log)


def test_an_id_never_stands_for_two_events(log: EventLog) -> None:
    log.append([draft("one", id="fixed")])
    with pytest.raises(ConflictError, match="id fixed stands for another event, seq 0"):
        log.append([draft("two", id="fixed")])
    with pytest.raises(ConflictError, match="two different drafts"):
        log.append([draft("one", id="x"), draft("two", id="x")])
    assert log.size == 1
    check_whole(log)


def test_expect_refuses_a_log_that_has_grown(log: EventLog) -> None:
    log.append(drafts(2), expect=0)
    with pytest.raises(ConflictError, match="expected a log of 1 events, found 2"):
        log.append(drafts(1), expect=1)
    log.append(drafts(1), expect=2)
    assert log.size == 3


def test_a_retry_after_a_lost_answer_keeps_its_expectation(log: EventLog) -> None:
    batch = drafts(2)
    written = log.append(batch, expect=0)
    assert log.append(batch, expect=0) == written


def test_blobs_are_stored_once_and_read_back(log: EventLog) -> None:
    content = b"x" * 10_000
    log.append([draft("one", (content, content)), draft("two", (content, b""))])
    assert log.blob(digest_of(content)) == content
    assert log.blob(digest_of(b"")) == b""
    frames = {digest.hex(): digest_of(frame) for digest, _, frame in log.frames()}
    named = {digest: frame for event in log.events() for digest, frame in event.blobs.items()}
    assert frames == named, "the log commits to every stored frame, and to nothing else"
    with pytest.raises(LedgerError, match="is not in the ledger"):
        log.blob("00" * 32)


@pytest.mark.parametrize("count", [1, 255, 256, 257, 511, 512, 1000])
def test_nodes_are_right_around_tile_boundaries(log: EventLog, count: int) -> None:
    log.append(drafts(count - 1))
    log.append(drafts(1))
    check_whole(log)


@pytest.mark.slow
def test_nodes_are_right_across_the_second_level(log: EventLog) -> None:
    log.append(drafts(65_530))
    for _ in range(3):
        log.append(drafts(3))
    check_whole(log)
    leaves = [leaf for _, _, leaf in log.entries()]
    for index in (0, 255, 256, 65_535, 65_536, 65_538):
        check_inclusion(leaves[index], index, log.size, log.tree().inclusion_proof(index), log.head().root)
    for old in (1, 255, 256, 257, 65_535, 65_536, 65_537):
        proof = log.tree().consistency_proof(old)
        check_consistency(old, root_of(leaves[:old]), log.size, log.head().root, proof)
    path = log.path
    log.close()
    started = time.perf_counter()
    with EventLog.open(path) as again:
        assert again.size == len(leaves)
        assert time.perf_counter() - started < 1.0, "opening reads the right edge, not the log"


def test_reading_by_range_and_campaign(log: EventLog) -> None:
    log.append([Draft(body(str(number)), "person:p", f"c{number % 2}") for number in range(10)])
    assert [event.seq for event in log.events(3, 6)] == [3, 4, 5]
    assert [event.seq for event in log.events(campaign="c1")] == [1, 3, 5, 7, 9]
    assert [seq for seq, _, _ in log.entries(8)] == [8, 9]


def test_a_fork_cannot_append(log: EventLog) -> None:
    def child(pipe: "multiprocessing.connection.Connection") -> None:
        try:
            log.append(drafts(1))
        except LedgerError as error:
            pipe.send(str(error))

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    assert "a fork must not append" in ours.recv()
    process.join()
    log.append(drafts(1))


# --- the file ----------------------------------------------------------------------------------------------

STATEMENTS = {
    "update an event": "UPDATE events SET entry = entry WHERE seq = 0",
    "update or replace": "UPDATE OR REPLACE events SET seq = 1 WHERE seq = 0",
    "renumber": "UPDATE events SET seq = seq + 1",
    "delete an event": "DELETE FROM events WHERE seq = 1",
    "replace an event": """INSERT OR REPLACE INTO events (seq, entry, leaf)
        SELECT seq, entry, leaf FROM events WHERE seq = 0""",
    "replace by id": """INSERT OR REPLACE INTO events (seq, entry, leaf)
        SELECT 2, json_set(entry, '$.seq', 2, '$.prev', (SELECT lower(hex(leaf)) FROM events WHERE seq = 1)), leaf
        FROM events WHERE seq = 0""",
    "upsert": """INSERT INTO events (seq, entry, leaf) SELECT seq, entry, leaf FROM events WHERE seq = 0
        ON CONFLICT (seq) DO UPDATE SET entry = '{}'""",
    "skip a number": """INSERT INTO events (seq, entry, leaf)
        SELECT 5, json_set(entry, '$.seq', 5), leaf FROM events WHERE seq = 1""",
    "wrong previous leaf": """INSERT INTO events (seq, entry, leaf)
        SELECT 2, json_set(entry, '$.seq', 2, '$.id', 'n'), leaf FROM events WHERE seq = 1""",
    "number differs from the entry": """INSERT INTO events (seq, entry, leaf)
        SELECT 2, json_set(entry, '$.id', 'n', '$.prev', (SELECT lower(hex(leaf)) FROM events WHERE seq = 1)), leaf
        FROM events WHERE seq = 1""",
    "no JSON": "INSERT INTO events (seq, entry, leaf) VALUES (2, 'x', zeroblob(32))",
    "short leaf": "UPDATE events SET leaf = x'00' WHERE seq = 1",
    "update a blob": "UPDATE blobs SET frame = x'00'",
    "delete a blob": "DELETE FROM blobs",
    "replace a blob": "INSERT OR REPLACE INTO blobs SELECT digest, size, x'00' FROM blobs",
    "update a node": "UPDATE nodes SET hash = zeroblob(32)",
    "delete a node": "DELETE FROM nodes",
    "replace a node": "INSERT OR REPLACE INTO nodes SELECT level, idx, zeroblob(32) FROM nodes",
    "shrink the head": "UPDATE head SET size = size - 1",
    "another root": "UPDATE head SET root = zeroblob(32)",
    "delete the head": "DELETE FROM head",
    "replace the head": "INSERT OR REPLACE INTO head VALUES (1, 99, zeroblob(32))",
    "update meta": "UPDATE meta SET value = 'x'",
    "delete meta": "DELETE FROM meta",
    "add meta": "INSERT INTO meta VALUES ('x', 'y')",
    "replace meta": "INSERT OR REPLACE INTO meta VALUES ('genesis', 'y')",
}


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed ledger of 257 events and a blob, with no process on it."""
    path = tmp_path_factory.mktemp("sealed") / "ledger.db"
    with EventLog.create(path) as log:
        log.append([draft("zero", (b"blob",)), draft("one")])
    return path


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_triggers_refuse_every_change(sealed: Path, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "ledger.db"
    shutil.copy(sealed, path)
    connection = sqlite3.connect(path)
    if "node" in statement:
        connection.execute("INSERT INTO nodes VALUES (1, 0, zeroblob(32))")
        connection.commit()
    before = list(connection.iterdump())
    with pytest.raises(sqlite3.DatabaseError):
        connection.execute(statement)
    connection.rollback()
    assert list(connection.iterdump()) == before


def test_the_schema_in_the_file_is_the_schema_in_the_source(log: EventLog) -> None:
    rows = log.connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    assert {name.decode(): sql.decode() for name, sql in rows} == expected_schema()


def test_every_commit_is_forced_to_disk(log: EventLog) -> None:
    assert log.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert log.connection.execute("PRAGMA journal_mode").fetchone() == (b"wal",)


def test_create_refuses_a_file_that_is_there(tmp_path: Path, sealed: Path) -> None:
    with pytest.raises(LedgerError, match="expected no file"):
        EventLog.create(sealed)
    (tmp_path / "old.db-wal").write_bytes(b"left over")
    with pytest.raises(LedgerError, match=r"expected no file old\.db-wal"):
        EventLog.create(tmp_path / "old.db")


def test_a_half_made_ledger_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "a.db.new").write_bytes(b"half")
    with EventLog.create(tmp_path / "a.db") as log:
        log.append(drafts(1))
    assert not (tmp_path / "a.db.new").exists()


@pytest.mark.parametrize("opening", [EventLog.open, EventLog.read_only])
def test_what_is_no_ledger_is_refused_with_a_reason(tmp_path: Path, opening: Callable[[Path], EventLog]) -> None:
    with pytest.raises(LedgerError, match="no such ledger"):
        opening(tmp_path / "none.db")
    with pytest.raises(LedgerError, match="found a folder"):
        opening(tmp_path)
    (tmp_path / "empty.db").touch()
    with pytest.raises(LedgerError, match="empty file"):
        opening(tmp_path / "empty.db")
    (tmp_path / "text.db").write_text("hello " * 1000)
    with pytest.raises(LedgerError, match="SQLite cannot read"):
        opening(tmp_path / "text.db")
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(LedgerError, match="another SQLite database"):
        opening(tmp_path / "other.db")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    EventLog.create(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(LedgerError, match="format 3, this program reads format 2"):
        EventLog.open(path)


def test_names_with_marks_of_uris_are_files(tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20 d.db"
    with EventLog.create(path) as log:
        log.append(drafts(1))
    with EventLog.read_only(path) as log:
        assert log.size == 1


def test_nothing_is_appended_to_a_log_whose_head_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with EventLog.create(path) as log:
        log.append(drafts(3))
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER events_delete")
    connection.execute("DELETE FROM events WHERE seq = 2")
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="nothing is appended to a damaged log"):
        EventLog.open(path)
    with EventLog.read_only(path) as log:
        assert (log.size, log.head().size) == (2, 3), "a reader can still look at the damage"


def test_a_blob_that_claims_to_be_huge_is_refused(log: EventLog) -> None:
    import zstandard

    frame = bytearray(zstandard.ZstdCompressor().compress(b"x" * 70_000))
    frame[5:9] = b"\xff\xff\xff\xff"
    with pytest.raises(LedgerError, match="the most is"):
        log.content(bytes(frame))
    with pytest.raises(LedgerError, match="does not decompress"):
        log.content(b"no frame")


# --- one writer, many readers ------------------------------------------------------------------------------


def test_a_second_writer_is_refused_with_the_pid_of_the_first(log: EventLog) -> None:
    with pytest.raises(OwnedError, match=rf"process {os.getpid()} is writing"):
        EventLog.open(log.path)
    code = (
        "import sys; from pathlib import Path; from ledger.log import EventLog, OwnedError\n"
        "try: EventLog.open(Path(sys.argv[1]))\nexcept OwnedError as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", code, log.path], capture_output=True, text=True, check=True).stdout
    assert f"process {os.getpid()} is writing" in answer


def test_a_reader_that_asks_never_makes_a_writer_fail(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    EventLog.create(path).close()
    code = (
        "import sys; from pathlib import Path; from ledger.locks import is_locked\n"
        "print('ready', flush=True)\nwhile True: is_locked(Path(sys.argv[1]))"
    )
    asker = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    try:
        assert asker.stdout is not None
        asker.stdout.readline()
        for _ in range(50):
            EventLog.open(path).close()
    finally:
        asker.kill()
        asker.wait()


def test_a_reader_beside_the_writer_sees_whole_batches(log: EventLog) -> None:
    log.append(drafts(3))
    with EventLog.read_only(log.path) as reader:
        log.append(drafts(300))
        assert reader.size == 3, "what a reader knows does not move by itself"
        assert reader.refresh() == 303
        check_whole(reader)
        with pytest.raises(LedgerError, match="not open for writing"):
            reader.append(drafts(1))


def test_a_snapshot_stays_while_the_writer_goes_on(log: EventLog) -> None:
    log.append(drafts(3))
    with EventLog.read_only(log.path) as reader:
        with reader.snapshot() as size:
            log.append(drafts(3))
            assert (size, reader.head().size, len(list(reader.events()))) == (3, 3, 3)
            check_whole(reader)
        assert reader.refresh() == 6


def test_a_reader_that_was_there_first_sees_a_later_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    EventLog.create(path).close()
    with EventLog.read_only(path) as reader:
        with EventLog.open(path) as log:
            log.append(drafts(2000))
            log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            log.append(drafts(1))
        assert reader.refresh() == 2001
        check_whole(reader)


def test_readers_do_not_block_the_writer(log: EventLog) -> None:
    log.append(drafts(10))
    with EventLog.read_only(log.path) as reader, reader.snapshot():
        started = time.perf_counter()
        log.append(drafts(10))
        assert time.perf_counter() - started < 2.0


def test_a_stranger_that_writes_between_two_appends_is_noticed(log: EventLog) -> None:
    log.append(drafts(1))
    [(entry, leaf)] = [(entry, leaf) for _, entry, leaf in log.entries()]
    stranger = sqlite3.connect(log.path, isolation_level=None)
    forged = entry.replace(b'"seq":0', b'"seq":1').replace(log.meta()["genesis"].encode(), leaf.hex().encode())
    forged = forged.replace(decode_bare(entry).id.encode(), b"stranger")
    stranger.execute(
        "INSERT INTO events SELECT 1, ?, ?, texts, salts FROM events", (forged.decode(), leaf_hash(forged))
    )
    stranger.close()
    with pytest.raises(LedgerError, match="the head says 1 events"):
        log.append(drafts(1))


def test_a_locked_database_is_a_clear_error(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.connection.execute("PRAGMA busy_timeout = 50")
    stranger = sqlite3.connect(log.path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="nothing was acknowledged; append the same ids again: database is locked"):
        log.append(drafts(1))
    stranger.execute("ROLLBACK")
    log.append(drafts(1))
    check_whole(log)


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A folder that another user can reach, which those of tmp_path are not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        Path(folder).chmod(0o755)


def test_a_read_only_folder_is_enough_to_read(shelf: Path) -> None:
    folder = shelf
    with EventLog.create(folder / "a.db") as log:
        log.append(drafts(3))
    (folder / "a.db.lock").unlink()
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    code = (
        "import os, sys; from pathlib import Path\n"
        "from ledger.log import EventLog, LedgerError\n"
        "path = Path(sys.argv[1])\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "with EventLog.read_only(path) as log: print(log.size, log.head().size)\n"
        "try: EventLog.open(path)\nexcept LedgerError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, folder / "a.db"], capture_output=True, text=True)
    if "Permission denied" in result.stderr and "import" in result.stderr:
        pytest.skip("the virtual environment cannot be read by another user")
    assert result.stdout.startswith("3 3\n"), result.stderr
    assert "the folder cannot be written (Permission denied)" in result.stdout
    assert sorted(file.name for file in folder.iterdir()) == ["a.db"]


def test_a_wal_without_its_shm_is_read_in_a_writable_folder(tmp_path: Path, log: EventLog) -> None:
    log.append(drafts(5))
    copy = tmp_path / "copy"
    copy.mkdir()
    # Copied by another process, as a backup tool would; opening the file here would cancel the writer's locks.
    subprocess.run(["cp", log.path, f"{log.path}-wal", copy], check=True)
    with EventLog.read_only(copy / "ledger.db") as reader:
        assert reader.size == 5
        check_whole(reader)
    (copy / "ledger.db-wal").unlink()
    with EventLog.read_only(copy / "ledger.db") as reader:
        assert reader.size == 0, "without its write-ahead log a copy is an older, valid log; a checkpoint shows it"
        check_whole(reader)


def test_the_ledger_is_reproducible_from_its_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.writer._now", lambda: "2026-01-02T03:04:05.000006Z")
    monkeypatch.setattr("ledger.writer.random_salt", lambda: bytes(range(16)))
    heads = []
    for name in ("a.db", "b.db"):
        with EventLog.create(tmp_path / name, origin="example.org/log") as log:
            log.append([draft(str(number), id=f"id-{number}") for number in range(300)])
            heads.append((log.head(), sha256(b"".join(entry for _, entry, _ in log.entries())).hexdigest()))
    assert heads[0] == heads[1]


# Without blobs, whose frames depend on the version of zstd: the form of an entry, the chain and the tree are held fast.
GOLDEN_ENTRIES = "4454d582e1b91d05796908d2bb7de7d842534c990360415f4d6c2ad1d2e29966"
GOLDEN_ROOT = "23cb64a84141e9e4847b921f11570bfa52cbe500fb48b8d1cfefc84fe519a982"


def test_the_golden_ledger_is_rebuilt_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.writer._now", lambda: "2026-01-02T03:04:05.000006Z")
    monkeypatch.setattr("ledger.writer.random_salt", lambda: bytes(range(16)))
    with EventLog.create(tmp_path / "golden.db", origin="example.org/golden") as log:
        log.append([draft(f"é {number}", id=f"golden-{number}") for number in range(300)])
        rows = [b"".join(part or b"-" for part in written) for written in log.written()]
        entries = sha256(b"\n".join(rows)).hexdigest()
        assert (entries, log.head().root.hex()) == (GOLDEN_ENTRIES, GOLDEN_ROOT)


def test_the_meta_rows_are_covered_by_the_first_event(log: EventLog) -> None:
    [event] = log.append(drafts(1))
    assert event.prev == genesis_of(log.meta())
    assert log.meta()["format"] == str(store.FORMAT)
