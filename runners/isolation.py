"""The tiers of isolation, strongest first, and which of them this machine offers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tier:
    """One way to hold a recipe, and whether it works here."""

    name: str
    obstacle: str | None
    """Why it is not available and how to get it; none where it is available."""


def tiers() -> tuple[Tier, ...]:
    """Every tier of `runners.sandbox`, strongest first, tried on this machine."""
    return (Tier("process", None),)
