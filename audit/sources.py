"""Imported sources put together again: their records are the file that they were read from, and nothing else."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar

from audit.file import BlobError
from audit.report import Check
from audit.trajectory import Case, Rule, Step
from ledger.events import RecordImported


@dataclass
class _Source:
    """One source as its records come by."""

    place: str
    digest: str
    last: int
    whole: bool
    """It stands in one record; the others are extracts."""
    broken: bool = False
    content: Any = field(default_factory=sha256)


class Sources(Rule):
    """What an importer read, and that it left nothing out."""

    name: ClassVar[str] = "sources"
    proves: ClassVar[str] = "the records of an imported source, put together, are that source: no line is missing"

    def __init__(self, case: Case, check: Check) -> None:
        super().__init__(case, check)
        self._sources: dict[tuple[str | None, str], _Source] = {}

    def see(self, step: Step) -> None:
        body = step.event.body
        if not isinstance(body, RecordImported):
            return
        self._check.checked += 1
        key = (step.event.campaign, body.source)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = _Source(step.place, body.source_digest, 0, body.line == 0)
            if source.whole:
                self._check.compare(step.place, f"{body.source}: digest", body.raw, body.source_digest)
                return
        self._check.compare(step.place, f"{body.source}: source_digest", source.digest, body.source_digest, "the event")
        if source.whole:
            return
        if body.line != source.last + 1:
            self._check.fault(step.place, f"{body.source}: expected line {source.last + 1}, found line {body.line}")
            source.broken = True
        source.last = body.line
        try:
            source.content.update(self._file.blob(body.raw))
        except BlobError as error:
            self._check.fault(step.place, f"{body.source}, line {body.line}: {error}")
            source.broken = True

    def end(self) -> None:
        """What is missing at the end of a source shows when it is put together."""
        for (_, name), source in self._sources.items():
            if not source.whole and not source.broken:
                digest = source.content.hexdigest()
                self._check.compare(source.place, f"{name}: {source.last} lines together", digest, source.digest)
