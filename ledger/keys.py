"""Ed25519 keys as files, and verifier keys in the C2SP signed-note form `name+hash+base64`."""

import base64
import contextlib
import os
import secrets
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = b"\x01"
"""Signature type of C2SP signed-note."""
COSIGNATURE = b"\x04"
"""Signature type of C2SP tlog-cosignature, version 1: Ed25519 with a time."""


class KeyFault(ValueError):
    """A key file or key string cannot be used; the message says what to do."""


@dataclass(frozen=True)
class VerifierKey:
    """The public half: enough to check, not to sign."""

    name: str
    public: bytes
    """32 bytes, RFC 8032."""
    kind: bytes = ED25519
    """What its signatures mean: the log's own, or a witness's."""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public) != 32:
            raise KeyFault(f"expected a public key of 32 bytes, found {len(self.public)}")

    @property
    def hash(self) -> bytes:
        """First four bytes of SHA-256(name || 0x0A || kind || public key)."""
        return sha256(self.name.encode() + b"\n" + self.kind + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(self.kind + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """Raises KeyFault unless `text` is exactly what `str` writes for a key."""
        name, _, rest = text.partition("+")
        hash_, _, encoded = rest.partition("+")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise KeyFault(f"expected a key `name+hash+base64`, found {text!r}") from error
        if raw[:1] not in (ED25519, COSIGNATURE):
            raise KeyFault(f"expected an Ed25519 key, found {text!r}")
        key = cls(name, raw[1:], raw[:1])
        if str(key) != text:
            raise KeyFault(f"the key's hash {hash_} does not fit its name and bytes; copy the whole line again")
        return key

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """The private half; lives in a file with mode 0600 outside the ledger."""

    name: str
    private: Ed25519PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self.private.public_key().public_bytes_raw())

    @property
    def witness(self) -> VerifierKey:
        """The public half for cosignatures of this key."""
        return replace(self.verifier, kind=COSIGNATURE)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes."""
        return self.private.sign(message)

    @classmethod
    def create(cls, path: Path, name: str) -> "SigningKey":
        """Write a new key with mode 0600, whole or not at all.

        Raises FileExistsError: a key is never overwritten. Raises KeyFault where another key's public half is there.
        """
        if path.with_suffix(".pub").exists() and not path.exists():
            raise KeyFault(_foreign(path))
        key = cls(name, Ed25519PrivateKey.generate())
        encoded = base64.b64encode(key.private.private_bytes_raw()).decode()
        content = f"{key.verifier.name}\n{encoded}\n".encode()  # a bad name fails before anything is written
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return key

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Raises KeyFault where the file is not a key or others may read it."""
        try:
            mode, content = path.stat().st_mode, path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise KeyFault(f"{path}: expected a key file made by `labtrail keygen`: {error}") from error
        if mode & 0o077:
            raise KeyFault(f"{path}: others may read this key; run `chmod 600 {path}`")
        name, _, encoded = content.removesuffix("\n").partition("\n")
        try:
            key = cls(name, Ed25519PrivateKey.from_private_bytes(base64.b64decode(encoded, validate=True)))
        except ValueError as error:
            raise KeyFault(f"{path}: expected a key name and a base64 line of 32 bytes: {error}") from error
        _check_name(name)
        return key

    @classmethod
    def load_or_create(cls, path: Path, name: str) -> "SigningKey":
        """The key at `path`, made on first use. Two processes that start at once get the same one."""
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                return cls.create(path, name)
        return cls.load(path)


def _check_name(name: str) -> None:
    # "+" ends the name in a verifier key, blanks end it in a note; control characters have no place in either.
    if not name or not name.isprintable() or any(c.isspace() or c == "+" for c in name):
        raise KeyFault(f"expected a key name without blanks and plus signs, found {name!r}")


def publish(key: SigningKey, path: Path) -> str:
    """Write the public half of the key at `path` beside it, with the suffix .pub; returns it.

    Raises KeyFault where another key's public half is there: others may rely on it.
    """
    public, target = str(key.verifier), path.with_suffix(".pub")
    if target.exists() and target.read_text().strip() != public:
        raise KeyFault(_foreign(path))
    target.write_text(f"{public}\n")
    return public


def _foreign(path: Path) -> str:
    public = path.with_suffix(".pub")
    return f"{public} belongs to another key than {path}; move it away, or give the key another name"
