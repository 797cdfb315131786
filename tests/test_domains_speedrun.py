"""Edits to a recipe of the speed-run kind: one script, a model, two optimisers, evaluation inside the training loop."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from audit.domains import classify
from ledger.recipes import Recipe

FOLDER = Path(__file__).parent / "edit_corpus" / "speedrun"
RECIPE = (FOLDER / "train.py").read_text()
EDITS = tomllib.loads((FOLDER / "edits.toml").read_text())["edit"]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit["name"])
def test_an_edit_gets_its_surface_and_kind(edit: dict[str, Any]) -> None:
    assert edit["old"] in RECIPE
    report = classify(Recipe({"train.py": RECIPE}), Recipe({"train.py": RECIPE.replace(edit["old"], edit["new"])}))
    assert report.domain in edit["domains"], report.changes
    assert report.kind in edit["kinds"], report.changes
    assert report.strict_arch == edit.get("strict", report.strict_arch)
