"""The edits we labelled ourselves: what `classify` and `undeclared` get right, held to thresholds."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from audit.domains import EditReport, classify, same_program, undeclared
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


REPORTS: dict[str, EditReport] = {}


@pytest.fixture(scope="module")
def reports() -> dict[str, EditReport]:
    """Every edit of the corpus classified, once."""
    return REPORTS or {edit.id: REPORTS.setdefault(edit.id, classify(edit.old, edit.new)) for edit in EDITS}


def share(hits: list[bool]) -> float:
    return sum(hits) / len(hits)


def test_the_corpus_is_large_enough() -> None:
    assert len(EDITS) >= 80
    assert len(BASES) >= 4
    assert len((CORPUS / "gpt" / "train_gpt.py").read_text().splitlines()) >= 1000


def test_the_primary_domain_is_found(reports: dict[str, EditReport]) -> None:
    wrong = [edit.id for edit in EDITS if reports[edit.id].domain != edit.domain]
    assert share([edit.id not in wrong for edit in EDITS]) >= 0.95, wrong


def test_strict_architecture_is_found(reports: dict[str, EditReport]) -> None:
    wrong = [edit.id for edit in EDITS if reports[edit.id].strict_arch is not edit.strict]
    assert share([edit.id not in wrong for edit in EDITS]) >= 0.97, wrong


def test_the_kind_is_found(reports: dict[str, EditReport]) -> None:
    wrong = [edit.id for edit in EDITS if (reports[edit.id].kind or "none") != edit.kind]
    assert share([edit.id not in wrong for edit in EDITS]) >= 0.9, wrong


def test_undeclared_edits_are_found_and_nothing_else_is_called_undeclared(reports: dict[str, EditReport]) -> None:
    found = missed = wrong = 0
    for edit in MEANT:
        quiet = undeclared(reports[edit.id], edit.says, edit.claims).undeclared
        texts = [f"{change.symbol} {change.evidence}".replace("-", "_") for change in quiet]
        names = [name.replace("-", "_") for name in edit.hidden]
        found += sum(any(name in text for text in texts) for name in names)
        missed += sum(not any(name in text for text in texts) for name in names)
        wrong += sum(not any(name in text for name in names) for text in texts)
    assert found / (found + missed) >= 0.9
    assert found / (found + wrong) >= 0.9


def test_edits_to_measuring_code_are_found(reports: dict[str, EditReport]) -> None:
    for edit in MEANT:
        assert bool(undeclared(reports[edit.id], edit.says, edit.claims).measuring) is edit.measuring, edit.id


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.id)
def test_same_program_agrees_with_the_labels(edit: Labelled) -> None:
    assert same_program(edit.old, edit.new) is (edit.kind == "none")
