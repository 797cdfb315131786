"""Signed notes of C2SP: a text and signature lines, parsed strictly and verified with keys that the reader trusts."""

import base64
import re
from dataclasses import dataclass, replace

from ledger.keys import COSIGNATURE, SigningKey, VerifierKey

MAX_NOTE_BYTES = 65_536
ED25519_BYTES = 64
_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")


class NoteError(ValueError):
    """A note is not in the form of c2sp.org/signed-note, or no signature of a trusted key holds."""


@dataclass(frozen=True)
class Signature:
    """One line under a note."""

    name: str
    hash: bytes
    """First four bytes: with the name, which key it claims to be of."""
    payload: bytes

    def __str__(self) -> str:
        return f"— {self.name} {base64.b64encode(self.hash + self.payload).decode()}"


@dataclass(frozen=True)
class Note:
    """A text that ends in a newline, and its signatures."""

    text: str
    signatures: tuple[Signature, ...] = ()

    def __str__(self) -> str:
        return f"{self.text}\n" + "".join(f"{signature}\n" for signature in self.signatures)

    @classmethod
    def parse(cls, content: bytes) -> "Note":
        """Raises NoteError unless `content` is byte for byte what `str` writes for a signed note."""
        if len(content) > MAX_NOTE_BYTES:
            raise NoteError(f"expected a note of at most {MAX_NOTE_BYTES:,} bytes, found {len(content):,}")
        try:
            whole = content.decode()
        except UnicodeDecodeError as error:
            raise NoteError(f"expected a note in UTF-8: {error}") from error
        if any(character < " " and character != "\n" for character in whole):
            raise NoteError("a control character stands in the note")
        text, blank, lines = whole.rpartition("\n\n")
        if not blank or not text or not lines.endswith("\n"):
            raise NoteError("expected a text, an empty line, and signature lines that end in newlines")
        # Split at newlines only: str.splitlines would also split at characters that belong to a name.
        return cls(f"{text}\n", tuple(_signature(line) for line in lines[:-1].split("\n")))

    def signed(self, key: SigningKey) -> "Note":
        """With one more signature, by the log's own key over the text."""
        signature = Signature(key.name, key.verifier.hash, key.sign(self.text.encode()))
        return replace(self, signatures=(*self.signatures, signature))

    def cosigned(self, key: SigningKey, time_s: int) -> "Note":
        """With one more signature, a witness's cosignature/v1 at POSIX time `time_s`."""
        payload = time_s.to_bytes(8, "big") + key.sign(_cosigned_message(self.text, time_s))
        return replace(self, signatures=(*self.signatures, Signature(key.name, key.witness.hash, payload)))

    def verify(self, key: VerifierKey) -> int | None:
        """Raises NoteError unless the note carries a signature of `key` and every one of `key` holds.

        Returns the POSIX time of a cosignature, None for a plain signature.
        """
        found = [item for item in self.signatures if (item.name, item.hash) == (key.name, key.hash)]
        if not found:
            raise NoteError(f"the note carries no signature of {key.name} ({key.hash.hex()})")
        times = [_verified(self.text, signature, key) for signature in found]
        return times[-1]


def _verified(text: str, signature: Signature, key: VerifierKey) -> int | None:
    time_s, message, payload = None, text.encode(), signature.payload
    if key.kind == COSIGNATURE:
        time_s, payload = int.from_bytes(payload[:8], "big"), payload[8:]
        if time_s >= 2**63:
            raise NoteError(f"the cosignature of {key.name} has a time beyond 2^63")
        message = _cosigned_message(text, time_s)
    if len(payload) != ED25519_BYTES or not key.verifies(message, payload):
        raise NoteError(f"the signature of {key.name} does not hold: the note was changed or signed by another key")
    return time_s


def _cosigned_message(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _signature(line: str) -> Signature:
    match = _LINE.fullmatch(line)
    if match is None:
        raise NoteError(f"expected a signature line `— name base64`, found {line!r}")
    try:
        content = base64.b64decode(match[2], validate=True)
    except ValueError as error:
        raise NoteError(f"a signature of {match[1]} is not base64: {error}") from error
    # Base64 has unused bits: only one spelling is accepted.
    if base64.b64encode(content).decode() != match[2] or len(content) <= 4:
        raise NoteError(f"a signature of {match[1]} is not in canonical base64 or too short")
    return Signature(match[1], content[:4], content[4:])
