"""The fields around a body: their form, what is wrong with them, and JSON read strictly."""

import json
import re
from datetime import date
from functools import lru_cache
from typing import Any

from ledger.parts import MAX_SAFE_INTEGER, EventError
from ledger.vocabulary import Role

# Printable, without quotes and backslashes: an id is the same text in JSON, in SQL and on a terminal.
_ID = re.compile(r"[!#-\[\]-~]{1,200}")
# No control characters, which SQLite's text functions cut at, and no lone surrogates, which are not UTF-8.
_NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}")
_ACTOR = re.compile(rf"(?:{'|'.join(Role)}):[^\s:\x00-\x1f\x7f\ud800-\udfff][^\x00-\x1f\x7f\ud800-\udfff]{{0,99}}")
_RECORDED_AT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{6}Z")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")

ENVELOPE: dict[str, tuple[type, ...]] = {
    "seq": (int,),
    "id": (str,),
    "type": (str,),
    "version": (int,),
    "campaign": (str, type(None)),
    "trial": (int, type(None)),
    "actor": (str,),
    "recorded_at": (str,),
    "prev": (str,),
    "blobs": (dict,),
    "body": (dict,),
}
"""Field -> its types in JSON, in the order of an entry."""


def read_json(entry: bytes) -> Any:
    """Parse what may be an entry. Raises EventError for duplicate keys, NaN, integers beyond 2^53, and for no JSON."""
    try:
        return json.loads(
            entry.decode(), object_pairs_hook=_refuse_duplicates, parse_constant=_refuse_constant, parse_int=_safe_int
        )
    except EventError:
        raise
    except (ValueError, RecursionError) as error:
        raise EventError(f"expected a JSON object in UTF-8, found bytes that do not parse: {error}") from error


def check_envelope(envelope: dict[str, Any]) -> None:
    """Raises EventError naming the field that is missing, unknown or out of range."""
    if unknown := sorted(envelope.keys() - ENVELOPE.keys()):
        raise EventError(f"unknown field {unknown[0]!r} in the envelope")
    for name, kinds in ENVELOPE.items():
        if name not in envelope:
            raise EventError(f"field {name!r} is missing in the envelope")
        if type(envelope[name]) not in kinds:
            raise EventError(f"field {name!r} of the envelope: expected {kinds[0].__name__}, found {envelope[name]!r}")
    place = (envelope["id"], envelope["campaign"], envelope["trial"], envelope["actor"])
    if fault := fault_of_place(*place):
        raise EventError(f"field of the envelope: {fault}")
    if envelope["seq"] < 0:
        raise EventError(f"field 'seq' of the envelope: expected 0 or more, found {envelope['seq']}")
    if not _RECORDED_AT.fullmatch(envelope["recorded_at"]) or not is_day(envelope["recorded_at"][:10]):
        raise EventError(f"field 'recorded_at' of the envelope: expected UTC, found {envelope['recorded_at']!r}")
    for digest in (envelope["prev"], *envelope["blobs"].keys(), *envelope["blobs"].values()):
        if not isinstance(digest, str) or not _HEX_DIGEST.fullmatch(digest):
            raise EventError(f"expected a SHA-256 digest in the envelope, found {digest!r}")


def fault_of_place(id_: object, campaign: object, trial: object, actor: object) -> str | None:
    """What is wrong with the fields that a caller chooses; None where nothing is."""
    if not isinstance(actor, str) or not _ACTOR.fullmatch(actor):
        return f"expected an actor `role:name` with a role of {', '.join(Role)}; found {actor!r}"
    if campaign is not None and not (isinstance(campaign, str) and _NAME.fullmatch(campaign)):
        return f"expected a campaign of 1 to 200 characters without control characters; found {campaign!r}"
    if trial is not None and not (type(trial) is int and 0 <= trial <= MAX_SAFE_INTEGER):
        return f"expected a trial number; found {trial!r}"
    if not isinstance(id_, str) or not _ID.fullmatch(id_):
        return f"expected an id of 1 to 200 printable ASCII characters without quotes; found {id_!r}"
    return None


@lru_cache(maxsize=1024)
def is_day(text: str) -> bool:
    """Whether `YYYY-MM-DD` is a day of the calendar."""
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise EventError(f"duplicate key {twice!r}")
    return found


def _refuse_constant(name: str) -> None:
    raise EventError(f"{name} is not JSON")


def _safe_int(text: str) -> int:
    value = int(text)
    if abs(value) > MAX_SAFE_INTEGER:
        raise EventError(f"integer {text} is beyond 2^53, where JSON readers disagree")
    return value
