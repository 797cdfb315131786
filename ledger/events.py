"""An event, the exact bytes that are hashed for it, and the way back, upcasting old versions; no I/O."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError
from uuid6 import uuid7

from ledger.bodies import (
    BODIES,
    CATALOGUE,
    BaselineMeasured,
    CampaignResumed,
    CampaignStarted,
    CampaignStopped,
    CertificationRecorded,
    CheckpointSigned,
    CorrectionRecorded,
    DiffSubmitted,
    DomainObserved,
    Epoch,
    FailureLabelled,
    HypothesisProposed,
    LineageViewed,
    ModelCalled,
    ProcessFacts,
    ReplicateRequested,
    RunFinished,
    RunStarted,
    ScoreRecorded,
    SessionEnded,
    SessionStarted,
    Summary,
    TrialAbandoned,
    TrialRejected,
    VerdictReached,
)
from ledger.envelope import check_envelope, fault_of_place, is_day, read_json
from ledger.imported import ImportedTask, ImportedTrial, Limit, RecordImported
from ledger.parts import MAX_SAFE_INTEGER, Body, Count, Decimal, Digest, EventError, Part, Seconds, decimal
from ledger.texts import SALT_BYTES, bare, seal, unseal
from ledger.vocabulary import Role

__all__ = [
    "BODIES",
    "CATALOGUE",
    "MAX_ENTRY_BYTES",
    "MAX_SAFE_INTEGER",
    "UPCASTERS",
    "BaselineMeasured",
    "Body",
    "CampaignResumed",
    "CampaignStarted",
    "CampaignStopped",
    "CertificationRecorded",
    "CheckpointSigned",
    "CorrectionRecorded",
    "Count",
    "Decimal",
    "DiffSubmitted",
    "Digest",
    "DomainObserved",
    "Draft",
    "Epoch",
    "Event",
    "EventError",
    "FailureLabelled",
    "HypothesisProposed",
    "ImportedTask",
    "ImportedTrial",
    "Limit",
    "LineageViewed",
    "ModelCalled",
    "Part",
    "ProcessFacts",
    "RecordImported",
    "ReplicateRequested",
    "RunFinished",
    "RunStarted",
    "ScoreRecorded",
    "Seconds",
    "SessionEnded",
    "SessionStarted",
    "Summary",
    "TrialAbandoned",
    "TrialRejected",
    "VerdictReached",
    "Written",
    "decimal",
    "decode",
    "decode_bare",
    "encode",
]

MAX_ENTRY_BYTES = 65_535  # an entry of the C2SP tlog-tiles format has a 16-bit length


def _gained(**gained: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An upcaster for a version that gained fields, and what the absence of each meant before."""

    def upcast(body: dict[str, Any]) -> dict[str, Any]:
        if early := sorted(gained.keys() & body.keys()):
            raise EventError(f"unknown field {early[0]!r}: it came with a later version")
        return {**body, **gained}

    return upcast


UPCASTERS: dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {
    ("run_finished", 1): _gained(accelerator_peak_bytes=None),
    ("run_finished", 2): _gained(host=None, gpus=None, threads=None),
    ("record_imported", 1): _gained(about=None, told=None, attachments={}),
}
"""(type, version) -> the body of the next version. Runs on read; a stored entry is never rewritten."""


@dataclass(frozen=True)
class Draft:
    """An event before the log has given it a place.

    `id` is the idempotency key: appending a draft whose id is in the log is a no-op. `blobs` are the bytes
    that the body names by digest and that are stored with the event. Raises ValueError for a field that could
    not be read back.
    """

    body: Body
    actor: str
    campaign: str | None = None
    trial: int | None = None
    blobs: tuple[bytes, ...] = ()
    id: str = field(default_factory=lambda: str(uuid7()))

    def __post_init__(self) -> None:
        if fault := fault_of_place(self.id, self.campaign, self.trial, self.actor):
            raise ValueError(fault)


@dataclass(frozen=True)
class Event:
    """An event with its place in the log."""

    seq: int
    id: str
    type: str
    version: int
    """As stored; `body` is of the type's latest version."""
    campaign: str | None
    trial: int | None
    actor: str
    recorded_at: str
    """UTC, ISO 8601 with microseconds and `Z`."""
    prev: str
    """Leaf hash of the event before, hexadecimal; the ledger's genesis value for seq 0."""
    blobs: Mapping[str, str]
    """Content digest -> SHA-256 of the stored frame, for blobs first stored with this event."""
    body: Body

    @classmethod
    def at(cls, draft: Draft, seq: int, recorded_at: str, prev: str, blobs: Mapping[str, str]) -> "Event":
        """The event that `draft` becomes at this place."""
        return _event(
            seq=seq,
            id=draft.id,
            type=draft.body.TYPE,
            version=draft.body.VERSION,
            campaign=draft.campaign,
            trial=draft.trial,
            actor=draft.actor,
            recorded_at=recorded_at,
            prev=prev,
            blobs=blobs,
            body=draft.body,
        )


def _event(**fields: Any) -> Event:
    # A frozen dataclass sets its fields one by one, which costs as much as hashing the entry.
    event = object.__new__(Event)
    object.__setattr__(event, "__dict__", fields)
    return event


class Written(NamedTuple):
    """An event as it is stored: the bytes that are hashed, and the texts that they commit to."""

    entry: bytes
    texts: bytes | None = None
    """JSON object {field: text, or null where it is withheld}; None where the type has no redactable field."""
    salts: bytes | None = None
    """One of SALT_BYTES for each text, in the order of the fields; zeros where it is withheld."""


_HEADS = {model: f'"type":"{model.TYPE}","version":{model.VERSION},"campaign":' for model in BODIES}


def random_salt() -> bytes:
    """A fresh salt for one text."""
    return os.urandom(SALT_BYTES)


def encode(
    draft: Draft,
    seq: int,
    recorded_at: str,
    prev: str,
    blobs: Mapping[str, str],
    salt: Callable[[], bytes] = random_salt,
) -> Written:
    """The entry: UTF-8 JSON without insignificant whitespace, in the order of `Event`'s fields; and its texts.

    Raises EventError where both together would be larger than MAX_ENTRY_BYTES (large content belongs in a blob),
    or where a text of the body is not Unicode.
    """
    campaign = "null" if draft.campaign is None else encode_basestring(draft.campaign)
    trial = "null" if draft.trial is None else draft.trial
    stored = ",".join([f'"{digest}":"{frame}"' for digest, frame in blobs.items()])
    head = (
        f'{{"seq":{seq},"id":"{draft.id}",{_HEADS[type(draft.body)]}{campaign},"trial":{trial},'
        f'"actor":{encode_basestring(draft.actor)},"recorded_at":"{recorded_at}","prev":"{prev}",'
        f'"blobs":{{{stored}}},"body":'
    )
    try:
        body, joined, salts = seal(draft.body, salt)
        texts = None if joined is None else joined.encode()
        entry = b"%b%b}" % (head.encode(), body.__pydantic_serializer__.to_json(body))
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        raise EventError(f"{draft.body.TYPE}: the body cannot be written as JSON: {error}") from error
    if (size := len(entry) + len(texts or b"")) > MAX_ENTRY_BYTES:
        raise EventError(
            f"expected an entry of at most {MAX_ENTRY_BYTES:,} bytes, found {size:,} in a "
            f"{draft.body.TYPE}; store the large field as a blob"
        )
    return Written(entry, texts, salts)


def decode(entry: bytes, texts: bytes | None = None, salts: bytes | None = None) -> Event:
    """Parse one entry strictly, upcasting old versions, and put the texts beside it in their places.

    Raises EventError naming what is wrong: not JSON, duplicate or unknown keys, an unknown type or version,
    a body field that is missing, unknown or out of range. Raises TextError where texts do not fit their digests.
    """
    event = _decode_canonical(entry) or _decode_any(entry)
    event.__dict__["body"] = unseal(event.body, texts, salts)
    return event


def decode_bare(entry: bytes) -> Event:
    """The event with every redactable text withheld. Raises EventError as `decode` does."""
    event = _decode_canonical(entry) or _decode_any(entry)
    event.__dict__["body"] = bare(event.body)
    return event


_PAIR = r'"[0-9a-f]{64}":"[0-9a-f]{64}"'
_WORD = r"[!#-Z^-~\[\] ]"  # ASCII that stands for itself in JSON; names with other characters take the slow path
_CANONICAL = re.compile(
    r'\{"seq":(0|[1-9][0-9]{0,14}),"id":"([!#-\[\]-~]{1,200})","type":"([a-z_]+)","version":([1-9][0-9]{0,3}),'
    rf'"campaign":(?:null|"({_WORD}{{1,200}})"),"trial":(?:null|(0|[1-9][0-9]{{0,14}})),'
    rf'"actor":"((?:{"|".join(Role)}):(?![: ]){_WORD}{{1,100}})",'
    r'"recorded_at":"(([0-9]{4}-[0-9]{2}-[0-9]{2})T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z)",'
    rf'"prev":"([0-9a-f]{{64}})","blobs":\{{((?:{_PAIR}(?:,{_PAIR})*)?)\}},"body":'
)


def _decode_canonical(entry: bytes) -> Event | None:
    """The event, where the entry is byte for byte what `encode` writes for it today; None for all else.

    That a body serialises to the bytes it came from proves what a parser does not tell: no key stands there
    twice, no number was rounded, no field has been left to its default.
    """
    try:
        match = _CANONICAL.match(entry.decode())
        if match is None:
            return None
        seq, id_, kind, version, campaign, trial, actor, recorded_at, day, prev, pairs = match.groups()
        model = CATALOGUE.get(kind)
        if model is None or int(version) != model.VERSION or not is_day(day) or entry[-1:] != b"}":
            return None
        written = entry[match.end() : -1]  # what comes before is ASCII: characters are bytes
        body = model.__pydantic_validator__.validate_json(written)
    except ValueError:
        return None
    blobs = _pairs(pairs) if pairs else {}
    if blobs is None or model.__pydantic_serializer__.to_json(body) != written:
        return None
    return _event(
        seq=int(seq),
        id=id_,
        type=kind,
        version=model.VERSION,
        campaign=campaign,
        trial=None if trial is None else int(trial),
        actor=actor,
        recorded_at=recorded_at,
        prev=prev,
        blobs=blobs,
        body=body,
    )


def _pairs(text: str) -> dict[str, str] | None:
    """{digest: frame digest} from canonical pairs; None where a digest stands there twice."""
    pairs = [(pair[1:65], pair[68:132]) for pair in text.split(",")]
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


def _decode_any(entry: bytes) -> Event:
    envelope = read_json(entry)
    if not isinstance(envelope, dict):
        raise EventError(f"expected a JSON object, found {type(envelope).__name__}")
    check_envelope(envelope)
    return _event(**{**envelope, "body": _parse_body(envelope["type"], envelope["version"], envelope["body"])})


def _parse_body(kind: str, version: int, body: dict[str, Any]) -> Body:
    model = CATALOGUE.get(kind)
    if model is None:
        raise EventError(f"unknown event type {kind!r}; a newer version of labtrail may have written it")
    if not 1 <= version <= model.VERSION:
        raise EventError(f"unknown version {version} of {kind}; this program knows 1 to {model.VERSION}")
    try:
        for old in range(version, model.VERSION):
            body = UPCASTERS[kind, old](body)
        # Python mode would refuse a list where a tuple stands; JSON mode is strict about everything else.
        parsed = model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise EventError(f"{kind} version {version}, field {place}: {first['msg']}") from error
    except EventError as error:
        raise EventError(f"{kind} version {version}, {error}") from error
    if missing := [name for name in model.model_fields if name not in parsed.model_fields_set]:
        raise EventError(f"{kind} version {version}, field {missing[0]}: Field required")
    return parsed
