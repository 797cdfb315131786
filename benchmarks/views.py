"""The lineage views on large ledgers: rebuilding, catching up and asking, beside the peer and the wanted times."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import click

from benchmarks.peer import drafts, peer, peer_rate, peer_read_rate
from benchmarks.rows import Row, show
from benchmarks.synthetic import ledger_of
from ledger.log import EventLog
from ledger.named import library
from ledger.views import Views

CATCH_UPS = 50
NEW_EVENTS = 10
TIMES = 5


@click.command()
@click.option("--quick", is_flag=True, help="4,000 trials where the full run takes 100,000 (1.1 million events).")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def main(quick: bool, as_json: bool) -> None:
    """Measure the views on a made-up ledger and print ratios with their goals.

    Example: python -m benchmarks.views --quick
    """
    trials = 4_000 if quick else 100_000
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = ledger_of(trials, Path(folder))
        rows = [*rebuilding(path, Path(folder)), memory(path), *asking(path)]
    show(rows, as_json)


def rebuilding(path: Path, folder: Path) -> Iterator[Row]:
    """Events a second from nothing, beside the peer that only reads and decodes its own."""
    application, notebook = peer(folder / "peer.db")
    peer_rate(application, notebook, saves=100, events=100)
    read = statistics.median(peer_read_rate(application) for _ in range(3))
    with EventLog.read_only(path) as log:
        began = time.perf_counter()
        views = Views.of(log)
        rebuilt = log.size / (time.perf_counter() - began)
        views.close()
        yield Row(f"rebuild {log.size:,} events", rebuilt, "eventsourcing read and decode", read, 1.3)
    yield Row("rebuild", rebuilt, "goal", 120_000, 1)


def memory(path: Path) -> Row:
    """Peak of a process of its own that rebuilds the views."""
    code = "import sys; from benchmarks.views import peak_mb; print(peak_mb(sys.argv[1]))"
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return Row("peak memory of a rebuild", float(told.stdout), "goal", 1_500, 1, "MB", less_is_better=True)


def peak_mb(path: str) -> float:
    """Megabytes that this process has held at most, after a rebuild."""
    with EventLog.read_only(Path(path)) as log:
        Views.of(log).close()
    return getrusage(RUSAGE_SELF).ru_maxrss / 1e3


def asking(path: Path) -> Iterator[Row]:
    """Catching up with a few events, one trial's lineage, and every named query."""
    times = partial(Row, unit="ms", less_is_better=True)
    with EventLog.open(path) as log:
        views = Views(log, threads=1)
        views.catch_up()
        caught = [_catch_up(log, views) for _ in range(CATCH_UPS)]
        yield times(f"catch-up of {NEW_EVENTS} events, p50", statistics.median(caught), "goal", 10, 1)
        yield times(f"catch-up of {NEW_EVENTS} events, p95", statistics.quantiles(caught, n=20)[-1], "goal", 25, 1)
        views.close()
        views = Views.of(log)
        query = "FROM lineage WHERE campaign = 'synthetic-task-1' AND trial = 700"
        yield times("lineage of one trial, p50", _asked(views, query), "goal", 15, 1)
        for name, named in library().items():
            yield times(f"query {name}", _asked(views, named.sql), "goal", 250, 1)
        views.close()


def _catch_up(log: EventLog, views: Views) -> float:
    log.append(drafts(NEW_EVENTS))
    began = time.perf_counter()
    views.catch_up()
    return 1e3 * (time.perf_counter() - began)


def _asked(views: Views, query: str) -> float:
    spent = []
    for _ in range(TIMES):
        began = time.perf_counter()
        views.query(query)
        spent.append(1e3 * (time.perf_counter() - began))
    return statistics.median(spent)


if __name__ == "__main__":
    main()
