"""A witness: a second key that remembers the last head of each log, and cosigns only what extends it."""

import base64
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from ledger.checkpoint import Checkpoint, CheckpointError, extends, read, verified
from ledger.keys import SigningKey, VerifierKey
from ledger.locks import lock
from ledger.log import EventLog
from ledger.merkle import ProofError, check_consistency
from ledger.notes import Note
from ledger.store import write_whole

HASHES_MOST = 63
MAX_REQUEST_BYTES = 2**17


@dataclass(frozen=True)
class Request:
    """What a log shows a witness: a signed head, and a proof that it extends the head of `old` events.

    Its text is the body of an add-checkpoint request (c2sp.org/tlog-witness).
    """

    old: int
    proof: tuple[bytes, ...]
    note: Note

    def __str__(self) -> str:
        hashes = "".join(f"{base64.b64encode(value).decode()}\n" for value in self.proof)
        return f"old {self.old}\n{hashes}\n{self.note}"

    @classmethod
    def parse(cls, content: bytes) -> "Request":
        """Raises CheckpointError unless `content` is byte for byte what `str` writes for a request."""
        if len(content) > MAX_REQUEST_BYTES:
            raise CheckpointError(f"expected at most {MAX_REQUEST_BYTES:,} bytes, found {len(content):,}")
        try:
            head, blank, note = content.decode().partition("\n\n")
            first, *hashes = head.split("\n")
            if not blank or not re.fullmatch(r"old (0|[1-9][0-9]{0,18})", first) or len(hashes) > HASHES_MOST:
                raise ValueError("expected a line `old SIZE`, hashes, an empty line and a checkpoint")
            proof = tuple(base64.b64decode(value, validate=True) for value in hashes)
            request = cls(int(first[4:]), proof, Note.parse(note.encode()))
            if str(request).encode() != content:
                raise ValueError("expected hashes in canonical base64")
        except ValueError as error:
            raise CheckpointError(f"expected what `labtrail checkpoint --since` writes: {error}") from error
        return request


def request(log: EventLog, note: Note, old: int) -> Request:
    """What shows a witness that saw `old` events of this log the head of `note`.

    Raises CheckpointError where the log does not extend the note, or the note is of fewer events.
    """
    checkpoint = Checkpoint.parse(note.text)
    extends(log, checkpoint)
    if old > checkpoint.size:
        raise CheckpointError(f"the witness has seen {old} events, the checkpoint is of {checkpoint.size}")
    proof = log.tree(checkpoint.size).consistency_proof(old) if old else []
    return Request(old, tuple(proof), note)


def seen(memory: Path, key: SigningKey) -> Checkpoint | None:
    """The head that the witness cosigned last, None before the first. Raises CheckpointError for a damaged memory."""
    return verified(read(memory), key.witness) if memory.exists() else None


def cosign(asked: Request, log_key: VerifierKey, key: SigningKey, memory: Path) -> Note:
    """A witness's answer: the note with its cosignature/v1 added.

    `memory` is the file in which the witness keeps the last note of this log that it cosigned; the first one it sees is
    believed. It cosigns where the log's key signed the note and the proof leads from the last head to this one, and
    remembers the new note before it is handed out. Raises CheckpointError and remembers nothing otherwise.
    """
    checkpoint = verified(asked.note, log_key)
    memory.parent.mkdir(parents=True, exist_ok=True)
    held = lock(memory)  # two answers at once must not both start from the same head
    try:
        last = seen(memory, key)
        if last is not None:
            _check(last, checkpoint, asked)
        cosigned = asked.note.cosigned(key, int(time.time()))
        write_whole(memory, str(cosigned).encode())
    finally:
        os.close(held)
    return cosigned


def _check(last: Checkpoint, checkpoint: Checkpoint, asked: Request) -> None:
    if last.origin != checkpoint.origin or last.size > checkpoint.size:
        raise CheckpointError(
            f"the witness has cosigned {last.size} events of {last.origin}; it cannot go back to "
            f"{checkpoint.size} of {checkpoint.origin}"
        )
    if asked.old != last.size:
        raise CheckpointError(
            f"the witness has cosigned {last.size} events of {last.origin}, the proof starts at {asked.old}; "
            f"make one with `labtrail checkpoint --since {last.size}`"
        )
    if last.size == 0:
        return
    try:
        check_consistency(last.size, last.root, checkpoint.size, checkpoint.root, asked.proof)
    except ProofError as error:
        raise CheckpointError(f"the log was rewritten since the witness saw it: {error}") from error
