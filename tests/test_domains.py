"""Files that are no Python, surfaces, parents, and the audit of a ledger."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from audit.domains import classify, command, domains_of, nearest_parent, same_program, undeclared
from audit.domains.annotate import annotated
from ledger.log import EventLog
from ledger.recipes import Recipe
from tests.campaigns import write_campaign
from tests.test_domains_corpus import EDITS


def edit(old: str, new: str, path: str = "train.py") -> tuple[Recipe, Recipe]:
    return Recipe({path: old}), Recipe({path: new})


def test_a_syntax_error_gets_a_plain_answer() -> None:
    report = classify(*edit("x = 1\n", "x = (\n"))
    assert report.changes == ()
    assert report.problems[0].startswith("train.py: not Python: ")


def test_nothing_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    classify(*edit("pass\n", f"open({str(mark)!r}, 'w')\n"))
    assert not mark.exists()


def test_a_setting_in_json_is_attributed_by_what_reads_it() -> None:
    reading = "import json, torch\ncfg = json.load(open('c.json'))\n"
    code = reading + "opt = torch.optim.AdamW(p, weight_decay=cfg['pull'])\n"
    old, new = (Recipe({"train.py": code, "c.json": f'{{"pull": {value}}}'}) for value in (0.1, 0.2))
    report = classify(old, new)
    assert (report.domain, report.kind) == ("reg", "scalar")
    assert not same_program(old, new)


def test_a_name_does_not_decide_where_the_flow_shows_another_surface() -> None:
    model = ["class M(nn.Module):", "    def forward(self, x):", "        return x * LR_SCALE", ""]
    code = "\n".join(["import torch.nn as nn", "LR_SCALE = {}", *model])
    report = classify(*edit(code.format("0.5"), code.format("0.7")))
    assert (report.domain, report.kind, report.strict_arch) == ("arch", "scalar", False)


def test_an_edit_outside_the_surface_is_found() -> None:
    report = classify(*edit("lr = 1\nprint(lr)\n", "lr = 2\nprint(lr)\n"))
    assert undeclared(report, "lr 1 -> 2", "opt", ["model.py"]).outside
    assert not undeclared(report, "lr 1 -> 2", "opt", ["train.py"]).outside


def test_what_is_announced_and_not_done_is_found() -> None:
    report = classify(*edit("weight_decay = 1.5\nprint(weight_decay)\n", "weight_decay = 2.5\nprint(weight_decay)\n"))
    truth = undeclared(report, "weight_decay 1.5 -> 2.5 and warmup_iters 10 -> 50", "reg")
    assert truth.absent == ("warmup_iters is said to become 50",)


def test_a_nearer_ancestor_is_found() -> None:
    far = Recipe({"a.py": "".join(f"x{i} = {i}\n" for i in range(10))})
    near = Recipe({"a.py": "".join(f"y{i} = {i}\n" for i in range(10))})
    child = Recipe({"a.py": near.files["a.py"] + "z = 1\n"})
    found = nearest_parent(child, 0, {0: far, 1: near})
    assert found is not None
    assert (found.declared, found.nearest, found.distance_nearest) == (0, 1, 1)
    assert nearest_parent(child, 1, {0: far, 1: near}) is None


def test_the_audit_covers_every_submitted_edit(log: EventLog) -> None:
    write_campaign(log)
    audit = domains_of(log)
    assert audit.trials
    assert sum(audit.table.values()) == len(audit.trials)
    assert all(trial.report.changes or trial.report.problems or trial.report.domain is None for trial in audit.trials)


def test_the_command_prints_the_table_and_explains_a_trial(log: EventLog) -> None:
    write_campaign(log)
    run = CliRunner().invoke(command, [str(log.path)])
    assert run.exit_code in (0, 1), run.output
    assert "claimed   observed  edits" in run.output
    number = domains_of(log).trials[0].trial
    one = CliRunner().invoke(command, [str(log.path), "--trial", str(number)])
    assert f"trial {number}: claimed" in one.output
    head = one.output.index("@@ -")
    note, removed, added = (
        one.output.index(text, head) for text in ("# opt, ", "\n-LEARNING_RATE", "\n+LEARNING_RATE")
    )
    assert head < note < removed < added, "the note stands between the head of its hunk and the lines"
    assert CliRunner().invoke(command, [str(log.path), "--json"]).output.startswith("{")


@pytest.mark.slow
def test_every_change_stands_in_the_annotated_diff() -> None:
    for edit in EDITS[::8]:
        report = classify(edit.old, edit.new)
        text = list(annotated(edit.old, edit.new, report))
        assert all(any(f"{change.symbol}: {change.evidence}" in line for line in text) for change in report.changes)
        tail = next((i for i, line in enumerate(reversed(text)) if not line.startswith("# ")), 0)
        assert tail == 0, (edit.id, text[-tail:])


def test_a_missing_ledger_ends_in_one_line() -> None:
    run = CliRunner().invoke(command, ["nowhere.db"])
    assert run.exit_code == 2
    assert "nowhere.db" in run.output
