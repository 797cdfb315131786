"""What a record of another harness says once it is read: the body of `record_imported` and its parts."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from ledger.parts import Body, Count, Decimal, Digest, Part
from ledger.vocabulary import Evidence, FailureLabel, Verdict


class Limit(Part):
    """A bound that the other harness declared for a number; kept trials are held against it."""

    at_least: Decimal | None
    at_most: Decimal | None


class ImportedTask(Part):
    """What a whole imported run was about."""

    name: str
    metric: str
    unit: str
    direction: Literal["minimize", "maximize"]
    limits: Mapping[str, Limit]
    """Name of a number in `metrics` -> the bound declared for it."""


class ImportedTrial(Part):
    """One trial as its record tells it. Nobody measured anything again: every number is self-reported."""

    key: str
    """Its id as written."""
    parent: Count | None
    parent_written: str
    specialist: str | None
    claimed_domain: str | None
    """As written; other harnesses have other domains."""
    hypothesis: str
    notes: str
    expected_delta: Decimal | None
    status: str
    """As written."""
    verdict: Verdict | None
    """None where the status is not known to the importer."""
    label: FailureLabel | None
    score: Decimal | None
    """The metric of the task; none for a failure, whatever number the record has: that stands in `metrics`."""
    score_std: Decimal | None
    score_n: Count | None
    delta_written: Decimal | None
    """The change that the other harness wrote down, against what it held to be the best."""
    metrics: Mapping[str, Decimal]
    """Every other number of the record, under its own name."""
    at: str | None
    """Time of the record as written."""
    seconds: Decimal | None
    usd: Decimal | None
    evidence: tuple[Evidence, ...]
    """What the record and the files beside it hold about this trial."""
    repaired: tuple[str, ...]
    """What could not be read as it stands, and how it was read."""
    unknown: tuple[str, ...]
    """What the record should say and nobody can tell."""
    differs: tuple[str, ...]
    """Where another copy of the same fact says otherwise."""


class RecordImported(Body):
    """One record of another harness, kept byte for byte, and what was read in it.

    The raw bytes of a source's lines, in order, are the source; one that is not made of lines stands whole in line 0,
    and its other records are extracts.
    """

    TYPE: ClassVar[str] = "record_imported"
    VERSION: ClassVar[int] = 2
    format: str
    source: str
    """Path within the imported folder."""
    source_digest: Digest
    line: Count
    """Counted from 1; 0 for the whole source."""
    raw: Digest
    about: ImportedTask | None = None
    """What the run is about, with its first record. Since version 2."""
    told: ImportedTrial | None = None
    """What it tells of its trial. Since version 2."""
    attachments: Mapping[str, Digest] = {}
    """Code, logs and the like that the source holds for this trial, each a blob. Since version 2."""
