"""`labtrail lineage`: the tree as text, DOT and Mermaid, folded where it is large, safe whatever a hypothesis says."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import labtrail
from ledger.family import SHOWN_CHILDREN, Family
from ledger.log import EventLog
from tests.campaigns import write_campaign


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("family") / "toy.db"
    with EventLog.create(path) as log:
        write_campaign(log, name="toy-1", trials=17, seed=0)
    return path


def shown(*arguments: str | Path) -> str:
    done = CliRunner().invoke(labtrail.cli, ["lineage", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def row(trial: int, parent: int | None, **fields: Any) -> dict[str, Any]:
    plain = {"verdict": "discarded", "label": None, "score": 1.0, "score_std": 0.1, "claimed_domain": "opt"}
    return {"trial": trial, "parent": parent, "hypothesis": "h", "on_champion_path": False, **plain, **fields}


def text(family: Family, **options: Any) -> list[str]:
    return [line.plain for line in family.lines(**options)]


def test_the_tree_shows_every_trial_once_and_stars_the_way_to_the_champion(ledger: Path) -> None:
    lines = shown("--ledger", ledger, "--all").splitlines()
    numbers = [int(re.search(r"\d+", line)[0]) for line in lines]  # type: ignore[index]
    assert sorted(numbers) == list(range(18))
    starred = [number for number, line in zip(numbers, lines, strict=True) if "★" in line]
    (last,) = json.loads(shown(str(starred[-1]), "--ledger", ledger, "--json"))
    assert last["path"] == starred
    assert last["verdict"] == "kept"


def test_a_large_subtree_is_counted_by_outcome_and_all_shows_it() -> None:
    rows = [row(0, None, on_champion_path=True, verdict="baseline"), row(1, 0, on_champion_path=True, verdict="kept")]
    rows += [row(number, 0) for number in range(2, 30)] + [row(30, 0, verdict="failed", label="crash", score=None)]
    rows += [row(number, 2) for number in range(31, 40)]
    family = Family(rows)
    folded = text(family)
    assert len(folded) == 2 + SHOWN_CHILDREN + 1
    assert folded[-1].endswith(f"{40 - 2 - SHOWN_CHILDREN} more: {40 - 3 - SHOWN_CHILDREN} discarded, 1 crash")
    assert len(text(family, everything=True)) == 40


def test_one_trial_comes_with_its_ancestors_and_descendants_only() -> None:
    family = Family([row(0, None), row(1, 0), row(2, 0), row(3, 1), row(4, 3), row(5, 2)])
    assert list(family.around(3).rows) == [0, 1, 3, 4]


def test_a_parent_that_is_not_there_or_comes_later_makes_a_root() -> None:
    family = Family([row(1, 7), row(2, 2), row(3, 4), row(4, 3)])
    assert len(text(family)) == 4
    assert family.children[None] == [1, 2, 3]


def test_a_deep_chain_is_drawn_without_recursion_and_within_the_width() -> None:
    family = Family([row(number, number - 1 if number else None) for number in range(5_000)])
    lines = text(family, everything=True, width=80)
    assert len(lines) == 5_000
    assert max(len(line) for line in lines) < 120
    assert "…4999 4999 discarded" in lines[-1]


HOSTILE = '"];\n evil [label="x\\" <b>|{}#quot;`*_ \x1b[2J ★ end'


def test_hostile_text_stays_text_in_every_form() -> None:
    family = Family([row(0, None), row(1, 0, hypothesis=HOSTILE)])
    assert all(char.isprintable() for line in text(family) for char in line)
    dot, mermaid = family.dot().splitlines(), family.mermaid().splitlines()
    assert len(dot) == 6
    label = re.fullmatch(r'  t1 \[label="((?:[^"\\]|\\.)*)", fillcolor="#ffffff"\];', dot[3])
    assert label
    assert "\\\\" in label[1]
    assert len([line for line in mermaid if line.startswith("  t")]) == 3
    quoted = re.fullmatch(r'  t1\["([^"]*)"\]:::discarded', mermaid[2])
    assert quoted
    assert not set(quoted[1].replace("<br/>", "")) & set('<>[]{}|`*\\"')


def test_ascii_terminals_get_ascii() -> None:
    family = Family([row(0, None, on_champion_path=True), *(row(number, 0) for number in range(1, 20))])
    assert all(line.isascii() for line in text(family, ascii_only=True))


def test_graphs_have_every_trial_and_edge(ledger: Path) -> None:
    dot, mermaid = shown("--ledger", ledger, "--dot"), shown("--ledger", ledger, "--mermaid")
    assert dot.count(" -> ") == mermaid.count("-->") + mermaid.count("==>") == 17
    assert dot.count("label=") == mermaid.count(":::") == 18
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg"], input=dot.encode(), check=True, capture_output=True)


def test_wrong_requests_are_one_line(ledger: Path) -> None:
    for arguments in (["99"], ["--dot", "--json"], ["--campaign", "nobody"]):
        done = CliRunner().invoke(labtrail.cli, ["lineage", "--ledger", str(ledger), *arguments])
        assert done.exit_code != 0
        assert done.exception is None or isinstance(done.exception, (*labtrail.EXPECTED, SystemExit))
