"""The ledger beside eventsourcing and bare sqlite3: same machine, same run, same durability, same size of events."""

import sqlite3
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import click

from benchmarks import writers
from benchmarks.peer import TEXT, drafts, peer, peer_rate, peer_read_rate
from benchmarks.rows import Row, rate, seconds, show
from ledger.log import EventLog
from ledger.merkle import TILE_WIDTH, Frontier, check_consistency, check_inclusion, leaf_hash, root_of

ROUNDS = 5


@click.command()
@click.option("--quick", is_flag=True, help="50,000 events where the full run takes 1,000,000.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(quick: bool, as_json: bool) -> None:
    """Measure append, verification, opening and proofs, and print ratios with their goals.

    Example: python -m benchmarks.ledger --quick
    """
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        rows = [
            *appending(Path(folder)),
            *together(Path(folder)),
            *reading(Path(folder), 50_000 if quick else 1_000_000),
        ]
    show(rows, as_json)


def appending(folder: Path) -> Iterator[Row]:
    """Durable appends, in rounds that alternate between us and the peers: the machine's mood hits all alike."""
    log = EventLog.create(folder / "ours.db")
    application, notebook = peer(folder / "peer.db")
    bare = bare_sqlite(folder / "bare.db")
    rates: dict[str, list[float]] = {name: [] for name in ("one", "thousand", "peer one", "peer hundred", "bare one")}
    for _ in range(ROUNDS):
        rates["one"].append(append_rate(log, batches=300, events=1))
        rates["thousand"].append(append_rate(log, batches=5, events=1000))
        rates["peer one"].append(peer_rate(application, notebook, saves=300, events=1))
        rates["peer hundred"].append(peer_rate(application, notebook, saves=10, events=100))
        rates["bare one"].append(rate(300, lambda: insert(bare, transactions=300)))
    log.close()
    middle = {name: statistics.median(values) for name, values in rates.items()}
    yield Row("single durable append", middle["one"], "eventsourcing save of 1", middle["peer one"], 2)
    yield Row("single durable append", middle["one"], "bare sqlite3 insert + commit", middle["bare one"], 0.8)
    yield Row("batch of 1,000", middle["thousand"], "eventsourcing save of 100", middle["peer hundred"], 2)


def together(folder: Path) -> Iterator[Row]:
    """Sixteen processes that append at once."""
    rates: list[float] = []
    p99s_ms: list[float] = []
    peer_rates: list[float] = []
    for number in range(3):
        events_s, p99_ms = writers.ours(folder / f"owned-{number}.db", 1000)
        rates.append(events_s)
        p99s_ms.append(p99_ms)
        peer_rates.append(writers.theirs(folder / f"peer-writers-{number}.db", 60)[0])
    ours, theirs, p99_ms = (statistics.median(values) for values in (rates, peer_rates, p99s_ms))
    yield Row("16 processes, single durable appends", ours, "16 processes of eventsourcing", theirs, 8)
    yield Row("  99th percentile of one append", p99_ms, "goal", 10, 1, "ms", less_is_better=True)


def reading(folder: Path, size: int) -> Iterator[Row]:
    """Verification, opening and proofs on a ledger of `size` events."""
    path = folder / "large.db"
    with EventLog.create(path) as log:
        for _ in range(0, size, 10_000):
            log.append(drafts(10_000))
    application, notebook = peer(folder / "peer-read.db")
    peer_rate(application, notebook, saves=100, events=100)
    read = statistics.median(peer_read_rate(application) for _ in range(3))
    with EventLog.read_only(path) as log:
        limit = min(size, 200_000)
        hashed = statistics.median(rate(limit, lambda: recompute(log, limit)) for _ in range(3))
        decoded = statistics.median(rate(limit, lambda: recompute(log, limit, decode=True)) for _ in range(3))
        yield Row("verify: read, leaf hashes, root; one core", hashed, "eventsourcing read and decode", read, 7)
        yield Row("verify with schema validation; one core", decoded, "eventsourcing read and decode", read, 2.5)
        yield from proofs(log, size)
    opened_ms = statistics.median(1e3 * seconds(lambda: EventLog.open(path).close()) for _ in range(5))
    yield Row(f"open {size:,} events to write", opened_ms, "goal", 50, 1, "ms", less_is_better=True)


def proofs(log: EventLog, size: int) -> Iterator[Row]:
    """An inclusion and a consistency proof, made and checked."""
    root, old = log.head().root, size // 3
    old_root = log.tree(old).root()
    [(_, _, leaf)] = log.entries(old, old + 1)
    inclusion, consistency = log.tree().inclusion_proof(old), log.tree().consistency_proof(old)
    for what, limit, unit, scale, action in (
        ("make an inclusion proof", 2, "ms", 1e3, lambda: log.tree().inclusion_proof(old)),
        ("make a consistency proof", 2, "ms", 1e3, lambda: log.tree().consistency_proof(old)),
        ("check an inclusion proof", 50, "us", 1e6, lambda: check_inclusion(leaf, old, size, inclusion, root)),
        ("check a consistency proof", 50, "us", 1e6, lambda: check_consistency(old, old_root, size, root, consistency)),
    ):
        taken = statistics.median(scale * seconds(action) for _ in range(50))
        yield Row(what, taken, "goal", limit, 1, unit, less_is_better=True)


def recompute(log: EventLog, size: int, decode: bool = False) -> None:
    """What an auditor does: hash every entry, compare the leaf, build the root, and perhaps check every field."""
    frontier = Frontier()
    rows = log.entries(0, size)
    while tile := list(islice(rows, TILE_WIDTH)):
        leaves = [leaf_hash(entry) for _, entry, _ in tile]
        if leaves != [leaf for _, _, leaf in tile]:
            raise AssertionError("a leaf does not fit its entry")
        if len(leaves) == TILE_WIDTH:
            frontier.push(root_of(leaves), TILE_WIDTH)
        else:
            deque(map(frontier.push, leaves), maxlen=0)
    if frontier.root() != log.tree(size).root():
        raise AssertionError("the root does not fit the leaves")
    if decode:
        deque(log.events(0, size), maxlen=0)


def append_rate(log: EventLog, batches: int, events: int) -> float:
    """Events a second over `batches` appends; making the drafts is not timed."""
    made = [drafts(events) for _ in range(batches)]
    started = time.perf_counter()
    for batch in made:
        log.append(batch)
    return batches * events / (time.perf_counter() - started)


def bare_sqlite(path: Path) -> sqlite3.Connection:
    """A table of texts at the same durability."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, entry TEXT NOT NULL)")
    return connection


def insert(connection: sqlite3.Connection, transactions: int) -> None:
    """Transactions of one row as long as our entries."""
    for _ in range(transactions):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO entries (entry) VALUES (?)", (TEXT + "y" * 370,))
        connection.execute("COMMIT")


if __name__ == "__main__":
    main()
