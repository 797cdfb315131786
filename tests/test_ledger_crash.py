"""kill -9 at random points: every acknowledged event stays, nothing is half-written, a retry by id is a no-op."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.events import Draft
from ledger.log import EventLog
from ledger.merkle import root_of
from tests.test_ledger import check_whole, draft


def batch_of(life: int, turn: int) -> list[Draft]:
    """The drafts that life `life` appends in its turn `turn`; whoever retries can make them again."""
    count = turn % 4 + 1
    return [draft(f"{life}", (b"%d" % turn,), id=f"{life}-{turn}-{number}") for number in range(count)]


def live(path: Path, life: int, say: Callable[[str], object]) -> None:
    """Append batch after batch until killed, telling the parent of each one that was acknowledged."""
    say("start")
    log = EventLog.open(path) if path.exists() else EventLog.create(path)
    log.connection.execute("PRAGMA wal_autocheckpoint = 20")  # so that kills fall into checkpoints too
    say("open")
    turn = 0
    while True:
        log.append(batch_of(life, turn))
        say("acknowledged")
        turn += 1


def run_and_kill(path: Path, life: int, wait_for: str, delay_s: float) -> int:
    """One life of a writer; returns how many batches it acknowledged. A fork: an import would take longer."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            live(path, life, lambda word: os.write(writing, f"{word}\n".encode()))
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "r") as pipe:
        while pipe.readline() != f"{wait_for}\n":
            pass
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the writer ended by itself"
        return pipe.read().count("acknowledged") + (wait_for == "acknowledged")


def check_life(path: Path, life: int, acknowledged: int, start: int) -> tuple[int, bool]:
    """Check what one life left behind; returns the new size, and whether it left an unacknowledged batch."""
    with EventLog.open(path) as log:
        stored = {event.id: event.seq for event in log.events(start)}
        expected = [draft.id for turn in range(acknowledged) for draft in batch_of(life, turn)]
        pending = [draft.id for draft in batch_of(life, acknowledged)]
        committed = len(stored) > len(expected)
        assert list(stored) == expected + (pending if committed else []), "lost, doubled, half-written or out of order"
        assert list(stored.values()) == list(range(start, log.size))
        assert log.head().root == root_of([leaf for _, _, leaf in log.entries()])
        size = log.size
        again = log.append(batch_of(life, acknowledged))
        assert log.size == size + (0 if committed else len(pending)), "a retry by id is a no-op"
        assert [event.seq for event in again] == list(range(log.size - len(pending), log.size))
        return log.size, committed


def kill_loop(path: Path, rounds: int, seed: int) -> None:
    dice = random.Random(seed)
    start, unacknowledged, lives = 0, 0, 0
    for life in range(rounds):
        acknowledged = run_and_kill(
            path, life, dice.choice(["open", "acknowledged", "acknowledged"]), dice.uniform(0.0, 0.05)
        )
        lives += acknowledged > 0
        start, committed = check_life(path, life, acknowledged, start)
        unacknowledged += committed
    with EventLog.read_only(path) as log:
        check_whole(log)
    print(f"{rounds} kills, {lives} of them in mid-append, {unacknowledged} left a committed batch unacknowledged")
    assert lives > rounds // 4, "the kills came too early to test anything"


def test_thirty_kills_lose_nothing(tmp_path: Path) -> None:
    kill_loop(tmp_path / "ledger.db", 30, seed=1)


@pytest.mark.slow
def test_three_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    kill_loop(tmp_path / "ledger.db", int(os.environ.get("LABTRAIL_KILLS", "320")), seed=2)


def test_a_kill_while_the_ledger_is_made_leaves_none_or_a_whole_one(tmp_path: Path) -> None:
    dice = random.Random(3)
    started = time.perf_counter()
    EventLog.create(tmp_path / "measure.db").close()
    duration_s = time.perf_counter() - started
    none = whole = 0
    for number in range(30):
        path = tmp_path / f"{number}.db"
        run_and_kill(path, 0, "start", dice.uniform(0.0, 2 * duration_s))
        if path.exists():
            whole += 1
            with EventLog.open(path) as log:
                check_whole(log)
        else:
            none += 1
            EventLog.create(path).close()
    print(f"{none} kills left no ledger, {whole} left a whole one")


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    run_and_kill(path, 0, "open", 0.02)
    with EventLog.open(path) as log:
        log.append([draft("after")])
