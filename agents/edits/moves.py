"""How far a number of a role is moved: a few steps each way, from gentle to bold."""

import math
import re
from collections.abc import Sequence

from agents.edits.roles import Number, Role
from ledger.vocabulary import Domain

_FACTORS = (0.5, 0.7, 0.85, 1.2, 1.4, 2.0)
_FINE_FACTORS = (0.85, 0.93, 0.97, 1.03, 1.07, 1.2)
_WIDTH_FACTORS = (0.5, 0.75, 0.875, 1.125, 1.25, 1.5, 2.0)
_LENGTH_FACTORS = (0.6, 0.75, 0.85, 0.93, 1.1, 1.25, 1.5)
_BATCH_FACTORS = (0.5, 0.75, 1.25, 1.5, 2.0)


def steps(
    name: str, value: Number, role: Role, domains: Sequence[Domain], multiple: int = 1
) -> Sequence[tuple[str, Number]]:
    """(move, new value) pairs for a number of a role; some may repeat or leave the number as it is.

    A width that is a multiple of `multiple` stays one. Probabilities stay below 1, counts and widths above 0.
    """
    if "bits" in name.lower() and isinstance(value, int):
        # Beyond a byte the recipe would have to store another type.
        return [(f"{delta:+d}", value + delta) for delta in (-2, -1, 1) if 2 <= value + delta <= max(8, value)]
    if re.search(r"(^|_)eps(ilon)?$", name.lower()) and value > 0:
        return [(f"x{factor:g}", value * factor) for factor in (0.01, 0.1, 10.0, 100.0)]
    match role:
        case Role.OFF:
            return [(f"x{typical:g}", typical) for typical in _typical(name)]
        case Role.COMPLEMENT:
            return [
                (_gap_move(factor), 1 - (1 - value) * factor)
                for factor in (0.3, 0.5, 0.7, 1.4, 2.0, 3.0)
                if 0 < 1 - (1 - value) * factor < 1
            ]
        case Role.PROBABILITY:
            return [(f"x{factor:g}", value * factor) for factor in _FACTORS if value * factor < 1]
        case Role.KERNEL:
            return [(f"{delta:+d}", int(value) + delta) for delta in (-2, 2) if value + delta >= 1]
        case Role.HEADS:
            return (
                [("x0.5", int(value) // 2), ("x2", int(value) * 2)] if int(value) % 2 == 0 else [("x2", int(value) * 2)]
            )
        case Role.WIDTH:
            unit = math.lcm(grain(int(value)), multiple if int(value) % multiple == 0 else 1)
            return [_named(value, rounded(value * factor, unit)) for factor in _WIDTH_FACTORS]
        case Role.COUNT:
            lowest = 0 if Domain.DATA in domains else 1
            return [(f"{delta:+d}", int(value) + delta) for delta in (-2, -1, 1, 2) if int(value) + delta >= lowest]
        case Role.LENGTH:
            return [_named(value, _like(value, value * factor)) for factor in _LENGTH_FACTORS]
        case Role.BATCH if Domain.EVAL in domains:
            # Decides how much memory a prediction takes, and not what is predicted.
            return []
        case Role.BATCH:
            return [_named(value, _like(value, value * factor)) for factor in _BATCH_FACTORS]
    factors = _FINE_FACTORS if Domain.EVAL in domains else _FACTORS
    return [(f"x{factor:g}", _like(value, value * factor)) for factor in factors]


def _gap_move(factor: float) -> str:
    """Name of the move that multiplies the distance to one: the number itself rises as that shrinks."""
    return f"+{1 / factor - 1:.2g}" if factor < 1 else f"-{factor - 1:.2g}"


def _named(old: Number, new: Number) -> tuple[str, Number]:
    """The move by the factor that rounding has left of the one asked for."""
    return f"x{new / old:.3g}", new


def grain(width: int) -> int:
    """Widths keep what fast kernels like: a multiple of 8, of 4 where they are small."""
    unit = 8 if width > 32 else 4
    return unit if width % unit == 0 else 1


def rounded(value: float, unit: int) -> int:
    """Nearest positive multiple of `unit`."""
    return max(unit, round(value / unit) * unit)


def _like(old: Number, new: float) -> Number:
    return max(1, round(new)) if isinstance(old, int) else new


def _typical(name: str) -> tuple[float, ...]:
    """Values to switch a zero on with; nothing for a zero whose name does not tell its scale."""
    words = name.lower()
    table = (
        (r"weight_decay|^wd$", (1e-4, 1e-3, 1e-2)),
        (r"drop", (0.05, 0.1, 0.2)),
        (r"smooth", (0.05, 0.1, 0.2)),
        (r"clip|max_grad", (0.5, 1.0)),
        (r"momentum", (0.8, 0.9)),
        (r"z_loss", (1e-4, 1e-3)),
        (r"(final|end|min)_(factor|ratio|share)", (0.02, 0.1)),
        (r"noise|jitter", (0.02, 0.05)),
    )
    return next((values for pattern, values in table if re.search(pattern, words)), ())
