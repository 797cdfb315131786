"""The code of docs/analysis.md runs as it stands there, and draws the figures that the page shows."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ledger.log import EventLog
from tests.campaigns import write_campaign

ROOT = Path(__file__).parent.parent


def test_the_guide_runs_on_a_ledger_and_draws_its_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("pandas")
    analysis = pytest.importorskip("docs.analysis")
    with EventLog.create(tmp_path / "toy.db") as log:
        write_campaign(log, name="toy-1", trials=17, seed=0)
    shown = re.findall(r"\]\(figures/(.*?)\)", (ROOT / "docs" / "analysis.md").read_text())
    drawn = analysis.draw(tmp_path / "toy.db", tmp_path)
    assert sorted(shown) == [figure.name for figure in drawn]
    first = [figure.read_bytes() for figure in drawn]
    assert [figure.read_bytes() for figure in analysis.draw(tmp_path / "toy.db", tmp_path)] == first
    for figure in drawn:
        assert ElementTree.fromstring(figure.read_text()).tag.endswith("svg")


def test_committed_figures_are_small(tmp_path: Path) -> None:
    sizes = [figure.stat().st_size for figure in (ROOT / "docs" / "figures").glob("*.svg")]
    assert len(sizes) == 3
    assert max(sizes) < 150_000
