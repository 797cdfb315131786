"""A proof for one trial: its events, their paths to a signed tree head, and nothing else of the ledger."""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ledger.checkpoint import Checkpoint, CheckpointError, extends, verified
from ledger.events import Event, EventError, decode
from ledger.keys import VerifierKey
from ledger.log import EventLog
from ledger.merkle import ProofError, check_inclusion, leaf_hash
from ledger.notes import Note

FORMAT = "labtrail-proof/2"
MAX_PROOF_BYTES = 64 * 2**20
HASHES_MOST = 64  # the height of any tree that can exist


@dataclass(frozen=True)
class Proved:
    """What a proof shows: these events stand in the log whose head was signed."""

    checkpoint: Checkpoint
    events: tuple[Event, ...]


def prove(log: EventLog, note: Note, campaign: str, trial: int) -> bytes:
    """The proof for one trial against a signed checkpoint of this log, as JSON.

    The checkpoint must be one that the log extends; events after it are left out. It shows that the events stand in the
    log, not that they are all events of the trial: an omission is seen only with the ledger. Raises CheckpointError
    where the log does not extend it, and ValueError where it holds no event of the trial.
    """
    checkpoint = Checkpoint.parse(note.text)
    extends(log, checkpoint)
    places = [event.seq for event in log.events(0, checkpoint.size, campaign) if event.trial == trial]
    if not places:
        raise ValueError(f"{log.path}: no event of trial {trial} of campaign {campaign!r} below {checkpoint.size}")
    return _written(str(note), _steps(log, checkpoint, places))


def _steps(log: EventLog, checkpoint: Checkpoint, places: Iterable[int]) -> list[dict[str, Any]]:
    tree = log.tree(checkpoint.size)
    steps = []
    for place in places:
        for entry, texts, salts in log.written(place, place + 1):
            path = [base64.b64encode(value).decode() for value in tree.inclusion_proof(place)]
            step: dict[str, Any] = {"seq": place, "entry": entry.decode(), "path": path}
            if texts is not None and salts is not None:
                step |= {"texts": texts.decode(), "salts": base64.b64encode(salts).decode()}
            steps.append(step)
    return steps


def _written(note: str, steps: list[dict[str, Any]]) -> bytes:
    return json.dumps({"format": FORMAT, "checkpoint": note, "events": steps}, ensure_ascii=False, indent=1).encode()


def check_proof(content: bytes, key: VerifierKey) -> Proved:
    """What `content` proves, given the log's public key and nothing else.

    Raises ProofError where the signature does not hold, an event is not in the tree or not at its place, an entry is
    not a known event, or the file is not a proof.
    """
    if len(content) > MAX_PROOF_BYTES:
        raise ProofError(f"expected a proof of at most {MAX_PROOF_BYTES:,} bytes, found {len(content):,}")
    note, steps = _read(content)
    try:
        checkpoint = verified(Note.parse(note.encode()), key)
        events = tuple(_checked(step, checkpoint) for step in steps)
    except ProofError:
        raise
    except (CheckpointError, EventError, ValueError) as error:
        raise ProofError(str(error)) from error
    if [event.seq for event in events] != sorted({event.seq for event in events}):
        raise ProofError("expected each event once, in the order of the log")
    return Proved(checkpoint, events)


def _read(content: bytes) -> tuple[str, list[Any]]:
    try:
        document = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ProofError(f"expected a proof in JSON: {error}") from error
    match document:
        case {"format": str(found), "checkpoint": str(note), "events": [_, *_] as steps, **rest} if not rest:
            if found != FORMAT:
                raise ProofError(f"expected format {FORMAT}, found {found!r}")
            return note, steps
    raise ProofError("expected an object with format, checkpoint and at least one of events")


def _checked(step: Any, checkpoint: Checkpoint) -> Event:
    match step:
        case {"seq": int(seq), "entry": str(entry), "path": list(path), **rest}:
            texts, salts = _texts(rest)
            if len(path) > HASHES_MOST:
                raise ProofError(f"event {seq}: expected at most {HASHES_MOST} hashes, found {len(path)}")
            hashes = [base64.b64decode(value, validate=True) for value in path]
            check_inclusion(leaf_hash(entry.encode()), seq, checkpoint.size, hashes, checkpoint.root)
            event = decode(entry.encode(), texts, salts)
            if event.seq != seq:
                raise ProofError(f"the entry of event {event.seq} is presented as event {seq}")
            return event
    raise ProofError("expected events with seq, entry and path")


def _texts(rest: Any) -> tuple[bytes | None, bytes | None]:
    """What the entry commits to, where its type has redactable texts."""
    match rest:
        case {"texts": str(texts), "salts": str(salts), **more} if not more:
            return texts.encode(), base64.b64decode(salts, validate=True)
        case {**more} if not more:
            return None, None
    raise ProofError("expected texts and salts beside an entry, or neither")
