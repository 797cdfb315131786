"""The peer, eventsourcing, and events of the same size for it and for us."""

import time
from pathlib import Path
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from benchmarks.rows import seconds
from ledger.events import CorrectionRecorded, Draft

TEXT = "x" * 480
"""Makes an entry and a peer's stored event about 850 bytes, of which the body is about 560."""
PATIENCE_S = "60"
"""How long a writer of the peer waits for SQLite's lock: with its default some of sixteen give up."""


class Notebook(Aggregate):
    """The peer's aggregate: one text an event."""

    @event("Noted")
    def note(self, text: str) -> None:
        """One event."""


def peer(path: Path) -> tuple[Any, Any]:
    """The peer with a file of its own. It sets WAL itself and leaves `synchronous` at SQLite's default, FULL."""
    settings = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
    application: Any = Application(env={**settings, "SQLITE_LOCK_TIMEOUT": PATIENCE_S})
    notebook = Notebook()
    application.save(notebook)
    return application, notebook


def drafts(count: int) -> list[Draft]:
    """Fresh drafts, made before the clock starts, as the peer's events are."""
    body = CorrectionRecorded(target=0, author="benchmark", reason="measure", statement=TEXT)
    return [Draft(body, "person:benchmark", "c1", number % 50) for number in range(count)]


def peer_rate(application: Any, notebook: Any, saves: int, events: int) -> float:
    """Events a second over `saves` saves; making the events is not timed."""
    spent = 0.0
    for _ in range(saves):
        for _ in range(events):
            notebook.note(text=TEXT)
        spent += seconds(lambda: application.save(notebook))
    return saves * events / spent


def peer_read_rate(application: Any) -> float:
    """Events a second at which the peer reads and decodes its notification log; it verifies nothing."""
    started, count, start = time.perf_counter(), 0, 1
    while notifications := application.recorder.select_notifications(start, 1000):
        for notification in notifications:
            application.mapper.to_domain_event(notification)
        count, start = count + len(notifications), notifications[-1].id + 1
    return count / (time.perf_counter() - started)
