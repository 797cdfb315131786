"""The edits we labelled ourselves: what `classify` and `undeclared` get right, held to thresholds."""

import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from audit.domains import EditReport, classify, same_program
from ledger.recipes import Recipe

CORPUS = Path(__file__).parent / "edit_corpus"
BASES = ("gpt", "conv", "quant", "ttt", "nano")


@dataclass(frozen=True)
class Labelled:
    """One edit of the corpus with its labels."""

    id: str
    old: Recipe
    new: Recipe
    domain: str | None
    kind: str
    strict: bool
    says: str
    claims: str | None
    hidden: tuple[str, ...]
    measuring: bool


def base(name: str) -> dict[str, str]:
    """The files of one base recipe."""
    return {f"{name}/{path.name}": path.read_text() for path in sorted((CORPUS / name).glob("*.py"))}


def corpus() -> list[Labelled]:
    """Every labelled edit; raises where a text to be replaced does not stand in its file exactly once."""
    recipes = {name: base(name) for name in BASES}
    found = []
    for entry in tomllib.loads((CORPUS / "edits.toml").read_text())["edit"]:
        files = dict(recipes[entry["swap"][0][0].partition("/")[0]])
        old = Recipe(dict(files))
        for file, before, after in entry["swap"]:
            assert files[file].count(before) == 1, f"{entry['id']}: {before!r} stands {files[file].count(before)} times"
            files[file] = files[file].replace(before, after)
        found.append(_labelled(entry, old, Recipe(files)))
    return found


def _labelled(entry: Mapping[str, object], old: Recipe, new: Recipe) -> Labelled:
    domain = entry.get("domain")
    return Labelled(
        id=str(entry["id"]),
        old=old,
        new=new,
        domain=str(domain) if domain else None,
        kind=str(entry["kind"]),
        strict=bool(entry["strict"]),
        says=str(entry["says"]),
        claims=str(entry.get("claims", domain)) if domain or "claims" in entry else None,
        hidden=tuple(entry.get("hidden", ())),  # type: ignore[arg-type]
        measuring=bool(entry.get("measuring", False)),
    )


EDITS = corpus()
MEANT = [edit for edit in EDITS if edit.domain is not None]
IDLE = [edit for edit in EDITS if edit.domain is None]
