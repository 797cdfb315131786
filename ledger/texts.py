"""Redactable texts: an entry holds salted digests, salt and text stand beside it, and can be dropped from a copy."""

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from json.encoder import encode_basestring
from typing import TypeVar

from pydantic_core import from_json

from ledger.bodies import BODIES
from ledger.parts import Body, EventError, Text

SALT_BYTES = 16
"""Without a salt, whoever guesses a withheld text could confirm the guess."""
MARK = "[withheld]"
_NO_SALT = bytes(SALT_BYTES)
_Sealed = TypeVar("_Sealed", bound=Body)
_DIGEST = re.compile(r"[0-9a-f]{64}")

REDACTABLE: dict[type[Body], tuple[str, ...]] = {
    model: names
    for model in BODIES
    if (
        names := tuple(
            name for name, field in model.model_fields.items() if any(isinstance(mark, Text) for mark in field.metadata)
        )
    )
}
"""Body type -> its redactable fields, in order. A field is one where its annotation says `Redactable`."""
_NOT_EMPTY = {
    (model, name)
    for model, names in REDACTABLE.items()
    for name in names
    if any(getattr(mark, "min_length", None) for mark in model.model_fields[name].metadata)
}


class TextError(EventError):
    """The texts beside an entry are not those that its digests were made from; the message names the field."""


class Withheld(str):
    """What stands in a body for a text that this copy of the ledger does not hold."""

    __slots__ = ()


WITHHELD = Withheld(MARK)


def digest(salt: bytes, text: str) -> str:
    """SHA-256(salt || text), hexadecimal: what the entry says instead of the text. Raises ValueError for surrogates."""
    return sha256(salt + text.encode()).hexdigest()


def seal(body: Body, salt: Callable[[], bytes]) -> tuple[Body, str | None, bytes | None]:
    """The body with digests for texts, the texts as a JSON object, and the salts joined in the order of the fields.

    The body itself, None and None where its type has no redactable field.
    """
    names = REDACTABLE.get(type(body))
    if names is None:
        return body, None, None
    fields = body.__dict__
    texts: dict[str, str | None] = {name: fields[name] for name in names}
    salts = [salt() for _ in names]
    digests = {name: digest(own, fields[name]) for name, own in zip(names, salts, strict=True)}
    return _twin(body, {**fields, **digests}), _written(texts), b"".join(salts)


def unseal(body: _Sealed, texts: bytes | None, salts: bytes | None) -> _Sealed:
    """The body that was sealed, with WITHHELD where a text is null.

    Raises TextError where texts and salts do not belong to it.
    """
    names = REDACTABLE.get(type(body))
    if names is None:
        if texts is not None or salts is not None:
            raise TextError(f"expected no texts beside an entry of type {body.TYPE}, found some")
        return body
    if texts is None or salts is None or len(salts) != SALT_BYTES * len(names):
        raise TextError(f"expected texts and salts of {', '.join(names)} beside the entry")
    fields = dict(body.__dict__)
    for at, (name, text) in enumerate(_read(names, texts).items()):
        salt = salts[SALT_BYTES * at : SALT_BYTES * (at + 1)]
        if text is None:
            if salt != _NO_SALT or not _DIGEST.fullmatch(fields[name]):
                raise TextError(f"field {name}: expected a digest and no salt for a text that is withheld")
        elif digest(salt, text) != fields[name]:
            raise TextError(f"field {name}: the text and its salt do not give the digest of the entry")
        elif not text and (type(body), name) in _NOT_EMPTY:
            raise TextError(f"field {name}: expected a text, found an empty one")
        fields[name] = WITHHELD if text is None else text
    return _twin(body, fields)


def _twin(body: _Sealed, fields: dict[str, object]) -> _Sealed:
    # What model_copy does, at a fifth of its cost: sealing stands in the path of every append.
    twin = object.__new__(type(body))
    object.__setattr__(twin, "__dict__", fields)
    object.__setattr__(twin, "__pydantic_fields_set__", set(body.__pydantic_fields_set__))
    object.__setattr__(twin, "__pydantic_extra__", None)
    object.__setattr__(twin, "__pydantic_private__", None)
    return twin


def bare(body: _Sealed) -> _Sealed:
    """The sealed body with every text withheld."""
    return body.model_copy(update=dict.fromkeys(REDACTABLE.get(type(body), ()), WITHHELD))


def withheld(body: Body) -> tuple[str, ...]:
    """Names of the fields whose text this copy of the ledger does not hold."""
    return tuple(name for name in REDACTABLE.get(type(body), ()) if isinstance(getattr(body, name), Withheld))


def withhold(texts: bytes, salts: bytes, chosen: Callable[[str, str], bool]) -> tuple[str, bytes]:
    """Texts and salts without those that `chosen` (field, text) picks. A salt goes with its text."""
    kept: dict[str, str | None] = {}
    left: list[bytes] = []
    for (name, text), salt in zip(json.loads(texts).items(), _cut(salts), strict=True):
        drop = text is None or chosen(name, text)
        kept[name] = None if drop else text
        left.append(_NO_SALT if drop else salt)
    return _written(kept), b"".join(left)


def _read(names: tuple[str, ...], texts: bytes) -> dict[str, str | None]:
    try:
        found = from_json(texts)
        if isinstance(found, dict) and tuple(found) == names and _written(found).encode() == texts:
            return found
    except (ValueError, TypeError, RecursionError) as error:
        raise TextError(f"the texts beside the entry do not parse: {error}") from error
    raise TextError(f"expected a JSON object with the texts {', '.join(names)} beside the entry")


def _written(texts: Mapping[str, str | None]) -> str:
    """One form only, so that not even an escape in it can change unseen. Raises TypeError for what is no text."""
    parts = [f'"{name}":{"null" if text is None else encode_basestring(text)}' for name, text in texts.items()]
    return f"{{{','.join(parts)}}}"


def _cut(salts: bytes) -> list[bytes]:
    return [salts[at : at + SALT_BYTES] for at in range(0, len(salts), SALT_BYTES)]
