"""Signed tree heads: what shows, from outside the file, that a log was cut or rewritten."""

import base64
import re
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ledger.keys import SigningKey, VerifierKey
from ledger.log import EventLog
from ledger.merkle import EMPTY_ROOT
from ledger.notes import Note, NoteError
from ledger.store import write_whole


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or the log does not extend it; the message says calculated and claimed."""


@dataclass(frozen=True)
class Checkpoint:
    """A tree head with the name of its log (c2sp.org/tlog-checkpoint)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The lines that are signed."""
        return "".join(
            f"{line}\n" for line in (self.origin, self.size, base64.b64encode(self.root).decode(), *self.extensions)
        )

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Raises CheckpointError unless `text` is byte for byte what `text` of a checkpoint is."""
        lines = text.removesuffix("\n").split("\n")
        if len(lines) < 3 or not all(lines):
            raise CheckpointError("expected a checkpoint of origin, size and root, found fewer lines or empty ones")
        origin, size, root, *extensions = lines
        if not re.fullmatch(r"0|[1-9][0-9]{0,18}", size):
            raise CheckpointError(f"expected the size of a tree, found {size!r}")
        try:
            checkpoint = cls(origin, int(size), base64.b64decode(root, validate=True), tuple(extensions))
        except ValueError as error:
            raise CheckpointError(f"expected the root in base64, found {root!r}") from error
        if checkpoint.text != text or len(checkpoint.root) != 32:
            raise CheckpointError(f"expected the canonical base64 of 32 bytes, found {root!r}")
        if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
            raise CheckpointError("a tree of size 0 has the root of the empty tree")
        return checkpoint


def sidecar(ledger: Path) -> Path:
    """Where the checkpoint of a ledger stands unless told otherwise: `<ledger>.checkpoint`."""
    return ledger.with_name(f"{ledger.name}.checkpoint")


def read(path: Path) -> Note:
    """The note at `path`, its signatures unchecked. Raises CheckpointError where it is no checkpoint."""
    try:
        note = Note.parse(path.read_bytes())
        Checkpoint.parse(note.text)
    except OSError as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return note


def verified(note: Note, key: VerifierKey) -> Checkpoint:
    """The checkpoint of a note that `key` signed. Raises CheckpointError where it did not."""
    try:
        note.verify(key)
    except NoteError as error:
        raise CheckpointError(str(error)) from error
    return Checkpoint.parse(note.text)


def current(log: EventLog) -> Checkpoint:
    """The head of the log as its tree gives it now."""
    size = log.refresh()
    return Checkpoint(log.meta()["origin"], size, log.tree(size).root())


def extends(log: EventLog, checkpoint: Checkpoint) -> None:
    """Raises CheckpointError unless the log begins with the events that the checkpoint was signed over.

    It compares hashes as stored; that they are those of the entries is what `audit verify` recomputes.
    """
    origin = log.meta()["origin"]
    if checkpoint.origin != origin:
        raise CheckpointError(f"the checkpoint is of log {checkpoint.origin}, {log.path} is {origin}")
    if checkpoint.size > log.refresh():
        raise CheckpointError(
            f"the checkpoint was signed over {checkpoint.size} events, {log.path} has {log.size}: its tail is gone"
        )
    if (root := log.tree(checkpoint.size).root()) != checkpoint.root:
        raise CheckpointError(
            f"{log.path} was rewritten: calculated root {root.hex()} over the first {checkpoint.size} events, "
            f"but the checkpoint claims {checkpoint.root.hex()}"
        )


def sign(log: EventLog, key: SigningKey, path: Path | None = None) -> Note:
    """Sign the head of the log, write the note to `path` (the sidecar by default), and return it.

    The signer is the first witness: where a checkpoint stands at `path`, it must be this key's, and the log must
    extend it. Raises CheckpointError and writes nothing where it does not.
    """
    path = path or sidecar(log.path)
    checkpoint = current(log)
    if path.exists():
        last = verified(read(path), key.verifier)
        extends(log, last)
        if last == checkpoint:
            return read(path)
    note = Note(checkpoint.text).signed(key)
    write_whole(path, str(note).encode())
    return note


def keep_in_git(note: Note, folder: Path) -> str:
    """Attach the note to HEAD of the git repository that `folder` stands in; returns the notes' ref.

    A push of that ref carries the head to wherever the repository goes. Raises CheckpointError where there is no
    repository, no commit, or git refuses.
    """
    origin = Checkpoint.parse(note.text).origin
    ref = f"refs/notes/labtrail/{sha256(origin.encode()).hexdigest()[:12]}"
    command = ["git", "-C", str(folder), "notes", "--ref", ref, "add", "--force", "--file", "-", "HEAD"]
    try:
        done = subprocess.run(command, input=str(note), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CheckpointError("git is not installed; the checkpoint is signed, and in no git note") from error
    if done.returncode:
        said = next(iter(done.stderr.strip().splitlines()), f"exit code {done.returncode}")
        raise CheckpointError(f"{folder}: the checkpoint is signed, and git did not keep it: {said}")
    return ref
