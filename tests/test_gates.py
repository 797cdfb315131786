"""Gates before a run: each refuses what it should, with its label, and lets legal edits pass."""

import pytest

from evaluators import gates
from evaluators.task import Contract, Legality
from ledger.recipes import Recipe
from ledger.vocabulary import FailureLabel
from tests.campaigns import CONTRACT

PARENT = Recipe({"model.py": "WIDTH = 8  # channels\n", "train.py": "LEARNING_RATE = 0.1\nEPOCHS = 3\n"})


def contract(**changes: object) -> Contract:
    return CONTRACT.model_copy(update=changes)


def label(child: Recipe, known: dict[str, int] | None = None, specialist: str = "opt") -> FailureLabel | None:
    legal = contract(legality=Legality(forbidden_imports=("subprocess", "os.fork"), forbidden_calls=("eval",)))
    rejection = gates.check(legal, legal.specialist(specialist), PARENT, child, known or {})
    return rejection.label if rejection else None


def with_train(text: str) -> Recipe:
    return Recipe({**PARENT.files, "train.py": text})


def test_a_legal_edit_passes() -> None:
    assert label(with_train("LEARNING_RATE = 0.2\nEPOCHS = 3\n")) is None


def test_an_unchanged_recipe_is_an_empty_diff() -> None:
    assert label(Recipe(dict(PARENT.files))) is FailureLabel.EMPTY_DIFF


def test_a_comment_is_a_duplicate_of_the_same_program() -> None:
    commented = with_train("LEARNING_RATE = 0.1  # a comment\nEPOCHS = 3\n")
    assert label(commented, {PARENT.program: 0}) is FailureLabel.DUPLICATE_RECIPE


def test_a_file_outside_the_surface_is_a_forbidden_edit() -> None:
    child = Recipe({**PARENT.files, "model.py": "WIDTH = 16\n"})
    assert label(child) is FailureLabel.FORBIDDEN_EDIT
    assert label(child, specialist="arch") is None


def test_a_new_or_missing_file_is_a_forbidden_edit() -> None:
    assert label(Recipe({**PARENT.files, "evil.py": ""})) is FailureLabel.FORBIDDEN_EDIT
    assert label(Recipe({"train.py": PARENT.files["train.py"]})) is FailureLabel.FORBIDDEN_EDIT


def test_a_file_that_does_not_parse_is_a_syntax_error() -> None:
    assert label(with_train("LEARNING_RATE = = 0.1\n")) is FailureLabel.SYNTAX_ERROR


def test_source_over_the_limit_is_refused() -> None:
    assert label(with_train(f"X = '{'x' * CONTRACT.recipe.max_bytes}'\n")) is FailureLabel.SIZE_OVER_LIMIT


@pytest.mark.parametrize("code", ["network.eval()", "import re\nre.compile('x')", "evaluate = 1", "import os"])
def test_what_only_looks_like_a_forbidden_construct_passes(code: str) -> None:
    assert label(with_train(f"{code}\n")) is None


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess",
        "import subprocess as harmless",
        "from subprocess import run",
        "def f():\n    import subprocess",
        "from os import fork",
        "eval('1')",
        "f = eval",
        "import builtins\nbuiltins.eval('1')",
    ],
)
def test_a_forbidden_construct_is_refused_however_it_is_written(code: str) -> None:
    assert label(with_train(f"{code}\n")) is FailureLabel.FORBIDDEN_EDIT
