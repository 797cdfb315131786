"""The pieces that bodies of events are made of: digests, exact decimals, counts, and the strict base of them all."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_SAFE_INTEGER = 2**53 - 1  # beyond it JSON readers that use doubles disagree (RFC 8259, section 6)

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in lower-case hexadecimal."""
Decimal = Annotated[str, StringConstraints(pattern=r"^-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?$")]
"""A finite number as `repr(float)` writes it: JSON serialisers disagree on floats, nobody on strings."""
Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Seconds = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class Text:
    """Marks a field that `ledger.texts` keeps beside the entry."""


Redactable = Annotated[str, Text()]
"""Free text: the entry commits to it by a salted digest, so that a copy may leave it out and still verify."""


class EventError(ValueError):
    """An entry is not a known event; the message names the type, version or field at fault."""


class Part(BaseModel):
    """A frozen, strict piece of an event: no unknown fields, no coercion, no NaN."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Body(Part):
    """What one type of event says. The type is a literal string; renaming the class changes nothing."""

    TYPE: ClassVar[str]
    VERSION: ClassVar[int] = 1


def decimal(value: float) -> str:
    """A finite float as the shortest string that reads back equal. Raises ValueError for NaN and infinity."""
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {value}; divergence is a failure label, not a score")
    return repr(float(value))
