"""The command line: every command explains itself with an example, and errors are one line."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import labtrail
from audit.cli import cli as audit_cli

COMMANDS = [
    pytest.param(group, name, id=f"{label}-{name}")
    for label, group in (("labtrail", labtrail.cli), ("audit", audit_cli))
    for name in group.commands
]


@pytest.mark.parametrize(("group", "name"), COMMANDS)
def test_every_command_has_help_with_an_example(group: click.Group, name: str) -> None:
    shown = CliRunner().invoke(group, [name, "--help"])
    assert shown.exit_code == 0
    assert "Example: " in shown.output


def test_tasks_lists_the_builtin_tasks() -> None:
    shown = CliRunner().invoke(labtrail.cli, ["tasks"])
    assert "airbench-cpu" in shown.output
    assert "golf-cpu" in shown.output


@pytest.mark.parametrize("name", ["airbench-cpu", "golf-cpu"])
def test_one_task_shows_gates_budgets_noise_rule_and_digest(name: str) -> None:
    shown = CliRunner().invoke(labtrail.cli, ["tasks", name]).output
    contract = labtrail.find_task(name).contract
    assert contract.digest in shown
    assert all(str(gate) in shown for gate in contract.gates)
    assert f"{contract.budgets.train_s:g} s" in shown


def test_a_wrong_task_is_one_line_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["labtrail", "run", "no-such-task", "--ledger", str(tmp_path / "x.db")])
    with pytest.raises(SystemExit) as stop:
        labtrail.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "x.db").exists()


def test_hours_are_a_number(tmp_path: Path) -> None:
    ledger = tmp_path / "x.db"
    shown = CliRunner().invoke(labtrail.cli, ["run", "airbench-cpu", "--hours", "nan", "--ledger", str(ledger)])
    assert shown.exit_code == 2
    assert "expected a number of hours, found nan" in shown.output
    assert not ledger.exists()
