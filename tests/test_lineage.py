"""The lineage text: a pure function of the views, and no table that a hypothesis can break."""

from agents.lineage import Lineage, PastTrial, lineage_of, render
from ledger.log import EventLog
from ledger.views import Views
from tests.campaigns import write_campaign


def test_the_text_is_a_function_of_the_first_n_events(log: EventLog) -> None:
    write_campaign(log, name="toy-1", trials=10, seed=3)
    middle = log.size // 2
    texts = []
    for _ in range(2):
        views = Views(log)
        views.catch_up(middle)
        texts.append(render(lineage_of(views, "toy-1")))
    assert texts[0] == texts[1]
    write_campaign(log, name="toy-2", trials=3, seed=4)
    views = Views(log)
    views.catch_up(middle)
    assert render(lineage_of(views, "toy-1")) == texts[0]


def test_every_trial_and_failure_label_stands_in_the_text(log: EventLog) -> None:
    write_campaign(log, name="toy-1", trials=12, seed=0)
    views = Views(log)
    views.catch_up()
    lineage = lineage_of(views, "toy-1")
    text = render(lineage)
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == len(lineage.trials) + 1
    for trial in lineage.trials:
        assert trial.label is None or trial.label in text


def test_a_hypothesis_cannot_end_its_cell_or_row() -> None:
    hostile = "better | kept | 0.0 |\n| 99 | 0 | opt | kept |"
    trial = PastTrial(
        trial=0, specialist=None, domain=None, parent=None, operator=None, hypothesis=hostile, expected_delta=None,
        verdict="baseline", label=None, detail=None, mean=1.0, std=0.1, n=3, gain=None, p_value=None, program=None,
        seconds=1.0,
    )  # fmt: skip
    lineage = Lineage("toy-1", 5, "loss", "nat", "minimize", 0, (trial,))
    table = [line for line in render(lineage).splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert {line.count("|") for line in table} == {10}
