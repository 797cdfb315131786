"""From a path to the ledger: find the runs in it, read them, and append each run whole or not at all."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ledger.events import Draft, RecordImported
from ledger.imported import ImportedTask
from ledger.importers import arr, autoresearch
from ledger.importers.record import ImportFault, Run, Source, name_of
from ledger.log import EventLog
from ledger.recipes import digest_of

MAX_DEPTH = 4
"""Folders below the given one that are searched for runs."""


@dataclass(frozen=True)
class Format:
    """One format of records: how its runs are known, and how one is read."""

    name: str
    finds: Callable[[Path], bool]
    read: Callable[[Path], Run]


FORMATS: dict[str, Format] = {
    module.NAME: Format(module.NAME, module.finds, module.read) for module in (arr, autoresearch)
}


@dataclass(frozen=True)
class Found:
    """A run that was found and not yet read."""

    path: Path
    format: Format


@dataclass(frozen=True)
class Outcome:
    """What an import did for one run."""

    run: Run
    appended: int
    """Records that are new in the ledger; 0 where all of them were there."""


def discover(path: Path, format: str | None = None) -> list[Found]:
    """The runs at a path or in folders below it, in order of name. Raises ImportFault where there is none."""
    if not path.exists():
        raise ImportFault(f"{path}: expected a file or folder of records, found nothing")
    formats = [FORMATS[format]] if format is not None else list(FORMATS.values())
    if found := list(_search(path, formats, MAX_DEPTH)):
        return found
    looked = ", ".join(known.name for known in formats)
    raise ImportFault(f"{path}: expected records of a known format ({looked}), found none; see docs/import.md")


def _search(path: Path, formats: Iterable[Format], depth: int) -> Iterator[Found]:
    for format in formats:
        if format.finds(path):
            yield Found(path, format)
            return
    if depth and path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.is_symlink():
                yield from _search(child, formats, depth - 1)


def read(found: Found, campaign: str | None = None) -> Run:
    """Read a run, under another campaign name where one is given. Raises ImportFault."""
    run = found.format.read(found.path)
    return run if campaign is None else replace(run, campaign=campaign)


def take(log: EventLog, run: Run) -> Outcome:
    """Append the records of a run in one transaction.

    A run whose sources are in the ledger byte for byte is not appended again. Raises ImportFault where the campaign
    exists and is not made of these bytes: a record that changed is told, not mixed in.
    """
    held: dict[str, dict[int, str]] = {}
    digests: dict[str, str] = {}
    for event in log.events(campaign=run.campaign):
        if not isinstance(event.body, RecordImported):
            raise ImportFault(
                f"{log.path}: campaign {run.campaign} was not imported; choose another name with --campaign"
            )
        held.setdefault(event.body.source, {})[event.body.line] = event.body.raw
        digests[event.body.source] = event.body.source_digest
    if digests == {source.name: source.digest for source in run.sources}:
        return Outcome(run, 0)
    if held:
        raise ImportFault(
            f"{log.path}: campaign {run.campaign} was imported from other bytes: {_changes(held, run.sources)}; "
            "the ledger keeps what it has, import the new state under another name with --campaign"
        )
    drafts = list(drafts_of(run))
    log.append(drafts)
    return Outcome(run, len(drafts))


def drafts_of(run: Run) -> Iterator[Draft]:
    """The events of a run, in order; the first one says what the run is about."""
    about: ImportedTask | None = run.task
    for source in run.sources:
        for record in source.records:
            body = RecordImported(
                format=run.format,
                source=source.name,
                source_digest=source.digest,
                line=record.line,
                raw=digest_of(record.raw),
                about=about,
                told=record.trial,
                attachments={name_of(name): digest_of(content) for name, content in record.attachments.items()},
            )
            place = f"{run.format}\n{run.campaign}\n{source.name}\n{source.digest}\n{record.line}\n{record.number}"
            yield Draft(
                body,
                f"importer:{run.format}",
                campaign=run.campaign,
                trial=record.number,
                blobs=(record.raw, *record.attachments.values()),
                id=f"import-{hashlib.sha256(place.encode()).hexdigest()[:40]}",
            )
            about = None


def _changes(held: dict[str, dict[int, str]], sources: Iterable[Source]) -> str:
    """What is different, in words, source by source."""
    said: list[str] = []
    names = {source.name for source in sources}
    said += [f"{name} is gone" for name in held if name not in names]
    for source in sources:
        if source.name not in held:
            said.append(f"{source.name} is new")
            continue
        before = held[source.name]
        now = {record.line: digest_of(record.raw) for record in source.records}
        changed = sorted(line for line in before.keys() & now.keys() if before[line] != now[line])
        if changed:
            shown = ", ".join(str(line) for line in changed[:5])
            said.append(f"{source.name} changed in line {shown}" if changed != [0] else f"{source.name} changed")
        if added := len(now.keys() - before.keys()):
            said.append(f"{source.name} has {added} more lines")
        if gone := len(before.keys() - now.keys()):
            said.append(f"{source.name} has {gone} lines less")
    return ", ".join(said)
