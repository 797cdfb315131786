"""What an owner and its clients say to each other over the socket: frames, requests, answers; no I/O."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from ledger.events import CATALOGUE, Draft, Event, EventError
from ledger.locks import LedgerError
from ledger.writer import MAX_BLOB_BYTES, ConflictError, Request

PREFIX = struct.Struct(">4sII")
"""Magic, bytes of JSON, bytes of blobs: the blobs follow the JSON end to end."""
MAGIC = b"LTO1"
MAX_JSON_BYTES = 64 * 2**20
_ERRORS = {"conflict": ConflictError, "event": EventError, "ledger": LedgerError}


class FrameError(ValueError):
    """Bytes on the socket that are no frame of this protocol; the message says what was expected and found."""


@dataclass(frozen=True)
class Frame:
    """One message in either direction."""

    text: bytes
    blobs: bytes = b""

    def __bytes__(self) -> bytes:
        return PREFIX.pack(MAGIC, len(self.text), len(self.blobs)) + self.text + self.blobs


def expected_bytes(received: bytes | bytearray) -> int:
    """Length of the frame that `received` begins with, of the prefix where it is not whole. Raises FrameError."""
    if received[: len(MAGIC)] != MAGIC[: len(received)]:
        raise FrameError(f"expected a frame that begins with {MAGIC!r}, found {bytes(received[: len(MAGIC)])!r}")
    if len(received) < PREFIX.size:
        return PREFIX.size
    _, text, blobs = PREFIX.unpack_from(received)
    if text == 0:
        raise FrameError("expected a frame with JSON, found an empty one")
    if text > MAX_JSON_BYTES or blobs > MAX_BLOB_BYTES:
        raise FrameError(
            f"expected at most {MAX_JSON_BYTES:,} bytes of JSON and {MAX_BLOB_BYTES:,} of blobs in one append, "
            f"found {text:,} and {blobs:,}; append in smaller batches"
        )
    return PREFIX.size + int(text) + int(blobs)


def take(received: bytearray) -> Frame | None:
    """Cut the first whole frame off `received`; None where it has not arrived. Raises FrameError."""
    size = expected_bytes(received)
    if size == PREFIX.size or len(received) < size:
        return None
    _, text, _ = PREFIX.unpack_from(received)
    frame = Frame(bytes(received[PREFIX.size : PREFIX.size + text]), bytes(received[PREFIX.size + text : size]))
    del received[:size]
    return frame


def ask(drafts: Sequence[Draft], expect: int | None) -> Frame:
    """A request as a frame. Raises EventError for a body that cannot be written, LedgerError where it is too large."""
    rows = []
    for draft in drafts:
        try:
            body = draft.body.__pydantic_serializer__.to_json(draft.body).decode()
        except PydanticSerializationError as error:
            raise EventError(f"{draft.body.TYPE}: the body cannot be written as JSON: {error}") from error
        sizes = [len(blob) for blob in draft.blobs]
        rows.append((draft.id, draft.body.TYPE, draft.campaign, draft.trial, draft.actor, body, sizes))
    frame = Frame(to_json((expect, rows)), b"".join(blob for draft in drafts for blob in draft.blobs))
    try:
        expected_bytes(PREFIX.pack(MAGIC, min(len(frame.text), 2**32 - 1), min(len(frame.blobs), 2**32 - 1)))
    except FrameError as error:
        raise LedgerError(str(error)) from error
    return frame


def asked(frame: Frame) -> Request:
    """The request in a frame. Raises FrameError for what no client writes, EventError for a draft at fault."""
    try:
        expect, rows = from_json(frame.text)
        if expect is not None and type(expect) is not int:
            raise FrameError(f"expected a size or null, found {expect!r}")
        drafts, start = [], 0
        for id_, kind, campaign, trial, actor, body, sizes in rows:
            blobs = []
            for size in sizes:
                if type(size) is not int or not 0 <= size <= len(frame.blobs) - start:
                    raise FrameError(f"expected the sizes of {len(frame.blobs):,} bytes of blobs, found {sizes!r}")
                blobs.append(frame.blobs[start : start + size])
                start += size
            drafts.append(_draft(id_, kind, campaign, trial, actor, body, tuple(blobs)))
    except (FrameError, EventError):
        raise
    except (ValueError, TypeError) as error:
        raise FrameError(f"expected a request to append, found another message: {error}") from error
    return Request(drafts, expect)


def _draft(id_: Any, kind: Any, campaign: Any, trial: Any, actor: Any, body: Any, blobs: tuple[bytes, ...]) -> Draft:
    model = CATALOGUE.get(kind) if isinstance(kind, str) else None
    if model is None or not isinstance(body, str):
        raise EventError(f"unknown event type {kind!r}; client and owner must be of the same version of labtrail")
    try:
        return Draft(model.__pydantic_validator__.validate_json(body), actor, campaign, trial, blobs, id_)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise EventError(f"{kind}, field {place}: {first['msg']}") from error
    except ValueError as error:
        raise EventError(f"{kind}: {error}") from error


def answer(outcome: Sequence[Event] | Exception) -> Frame:
    """What became of a request."""
    if isinstance(outcome, Exception):
        kind = next((name for name, error in _ERRORS.items() if isinstance(outcome, error)), "ledger")
        return Frame(to_json((kind, str(outcome))))
    places = [(event.seq, event.version, event.recorded_at, event.prev, dict(event.blobs)) for event in outcome]
    return Frame(to_json(("events", places)))


def answered(frame: Frame, drafts: Sequence[Draft]) -> list[Event]:
    """The events that the drafts became. Raises the error that the owner sent."""
    kind, said = json.loads(frame.text)
    if kind in _ERRORS:
        raise _ERRORS[kind](said)
    events = []
    for draft, (seq, version, recorded_at, prev, blobs) in zip(drafts, said, strict=True):
        event = Event.at(draft, seq, recorded_at, prev, blobs)
        events.append(event if version == event.version else replace(event, version=version))
    return events


def socket_path(path: Path) -> Path:
    """Where the owner of the ledger at `path` listens."""
    return path.with_name(path.name + ".socket")
