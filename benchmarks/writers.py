"""Sixteen processes that append single events at once: ours through the owner, the peer's each on its own."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

from benchmarks.peer import TEXT, drafts, peer
from ledger.log import EventLog
from ledger.owner import Owner

WRITERS = 16
Call = Callable[[], object]


def ours(path: Path, appends: int) -> tuple[float, float]:
    """Events a second of all writers together, and the 99th percentile of one append in milliseconds."""
    EventLog.create(path).close()
    ready = multiprocessing.Event()
    owner = multiprocessing.Process(target=_own, args=(path, ready), daemon=True)
    owner.start()
    ready.wait()
    try:
        return _together(path, _writer, appends)
    finally:
        owner.terminate()
        owner.join()


def theirs(path: Path, saves: int) -> tuple[float, float]:
    """The same for the peer: SQLite lets one of its writers in after the other."""
    peer(path)
    return _together(path, _peer_writer, saves)


def _own(path: Path, ready: Event) -> None:
    with EventLog.own(path) as log:
        owner = Owner(log)
        ready.set()
        owner.serve()


def _writer(path: Path, calls: int) -> Call:
    log = EventLog.open(path)
    made = iter(drafts(calls))
    return lambda: log.append([next(made)])


def _peer_writer(path: Path, calls: int) -> Call:
    application, notebook = peer(path)

    def save() -> None:
        notebook.note(text=TEXT)
        application.save(notebook)

    return save


def _together(path: Path, prepare: Callable[[Path, int], Call], calls: int) -> tuple[float, float]:
    """Fork the writers, start them at one moment, and take the time until the last one is done."""
    start, results = multiprocessing.Barrier(WRITERS + 1), multiprocessing.Queue()  # type: ignore[var-annotated]
    forked = [
        multiprocessing.Process(target=_take_turns, args=(path, prepare, calls, start, results), daemon=True)
        for _ in range(WRITERS)
    ]
    for writer in forked:
        writer.start()
    start.wait()
    started = time.perf_counter()
    latencies_s = [latency for _ in forked for latency in results.get()]
    spent = time.perf_counter() - started
    for writer in forked:
        writer.join()
    return len(latencies_s) / spent, 1e3 * statistics.quantiles(latencies_s, n=100)[98]


def _take_turns(
    path: Path, prepare: Callable[[Path, int], Call], calls: int, start: Barrier, results: "Queue[list[float]]"
) -> None:
    call = prepare(path, calls)
    latencies_s: list[float] = []
    start.wait()
    for _ in range(calls):
        began = time.perf_counter()
        call()
        latencies_s.append(time.perf_counter() - began)
    results.put(latencies_s)
