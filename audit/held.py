"""A checkpoint that somebody kept outside the file: the one thing that shows a cut tail or a log written anew."""

from typing import ClassVar

from audit.file import LedgerFile
from audit.integrity import Row
from audit.report import Check
from ledger.checkpoint import Checkpoint
from ledger.merkle import EMPTY_ROOT, Frontier


class Held:
    """The ledger begins with the events that a held checkpoint was signed over."""

    name: ClassVar[str] = "checkpoint"
    proves: ClassVar[str] = "the ledger begins with exactly the events that the held checkpoint was signed over"

    def __init__(self, file: LedgerFile, check: Check, checkpoint: Checkpoint) -> None:
        self._file, self._check, self._checkpoint = file, check, checkpoint
        self._frontier = Frontier()

    def see(self, row: Row) -> None:
        """The next event in order of seq."""
        if self._frontier.size < self._checkpoint.size:
            self._frontier.push(row.leaf)

    def end(self) -> None:
        """No event is left."""
        held = self._checkpoint
        self._check.checked = held.size
        row = self._file.connection.execute("SELECT value FROM meta WHERE key = 'origin'").fetchone()
        origin = row[0].decode(errors="replace") if row and isinstance(row[0], bytes) else str(row and row[0])
        self._check.compare("meta", "origin", origin, held.origin, "the checkpoint")
        if self._frontier.size < held.size:
            message = f"the checkpoint was signed over {held.size:,} events, the ledger has {self._frontier.size:,}"
            self._check.fault("the tail", f"{message}: events were cut off")
            return
        root = self._frontier.root() if held.size else EMPTY_ROOT
        self._check.compare(f"the first {held.size:,} events", "root", root.hex(), held.root.hex(), "the checkpoint")
