"""Claims calculated again, and checks that find what was planted and are quiet where nothing was."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from audit.claims import Account, accounts_of, examined, headline_of
from audit.claims.account import Told
from audit.claims.checks import CHECKS
from audit.claims.finding import Finding
from audit.cli import cli
from docs.case_study import case_study
from ledger.imported import Limit
from ledger.importers import discover, read, take
from ledger.log import EventLog
from ledger.vocabulary import Evidence, FailureLabel, Verdict
from tests.campaigns import write_campaign
from tests.published import RUNS, published_runs

ROOT = Path(__file__).parent.parent
START = datetime(2026, 1, 1, tzinfo=UTC)


def told(number: int, **changes: object) -> Told:
    """A trial that no check has anything to say about."""
    trial = Told(
        number=number,
        key=f"{number:03d}",
        line=number + 2,
        parent=None if number == 0 else 0,
        parent_written="" if number == 0 else "000",
        specialist="opt",
        domain="opt",
        hypothesis=f"Move the learning rate to {number} parts in a thousand and keep all else",
        notes="",
        expected_delta=None,
        verdict=Verdict.BASELINE if number == 0 else Verdict.DISCARDED,
        label=None,
        score=1.0 + 0.01 * number,
        std=0.0001,
        n=5,
        delta_written=None,
        metrics={"size": 100.0 + number, "train_s": 60.251 + 0.001 * (number % 7)},
        at=START + timedelta(minutes=10 * number),
        evidence=frozenset(Evidence),
    )
    return replace(trial, **changes)  # type: ignore[arg-type]


def account(*changed: Told, trials: int = 50, **fields: object) -> Account:
    by_number = {trial.number: trial for trial in changed}
    told_of = [by_number.get(number, told(number)) for number in range(trials)]
    kept = replace(told_of[1], verdict=Verdict.KEPT, score=0.9) if 1 not in by_number else told_of[1]
    told_of[1] = kept
    limits = {"size": Limit(at_least=None, at_most="1000.0")}
    made = Account("c", "arr", "task", "loss", "nats", "minimize", limits, told_of)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def found(account: Account, check: str) -> list[Finding]:
    return [finding for finding in examined(account) if finding.check == check]


def test_a_clean_record_gives_no_finding() -> None:
    assert examined(account()) == []


PLANTED: dict[str, Account] = {
    "baseline": account(told(0, metrics={}, std=None)),
    "champion": account(told(5, score=0.5)),
    "kept gains": account(told(1, verdict=Verdict.KEPT, score=0.99999)),
    "deltas": account(told(5, delta_written=0.5)),
    "bounds": account(told(1, verdict=Verdict.KEPT, score=0.9, metrics={"size": 1200.0})),
    "gates": account(
        told(1, verdict=Verdict.KEPT, score=0.9, metrics={"accuracy": 0.9601, "acc_std": 0.002, "size": 1.5}),
        limits={"accuracy": Limit(at_least="0.96", at_most=None)},
    ),
    "twins": account(told(5, score=2.5, metrics={"size": 7.0}), told(9, score=2.5, metrics={"size": 7.0})),
    "resolution": account(*(told(n, metrics={"size": 100.0 + n, "train_s": 60.0 + n % 7}) for n in range(2, 25))),
    "level": account(*(told(n, metrics={"size": 100.0 + n, "train_s": 90.25}) for n in range(2, 25))),
    "order": account(told(5, at=START)),
    "pauses": account(*(told(n, at=START + timedelta(hours=10, minutes=10 * n)) for n in range(30, 50))),
    "calibration": account(*(told(n, expected_delta=-0.1) for n in range(2, 10))),
    "edits": account(told(5, notes="[quarantined 2026-02-01T00:00:00Z]")),
    "parents": account(told(5, parent=77, parent_written="077")),
    "machine": account(
        told(5, verdict=Verdict.FAILED, label=FailureLabel.CRASH, score=None, notes="ssh: connection reset")
    ),
    "leaks": account(told(5, hypothesis='Lower it</hypothesis> <parameter name="notes">so')),
    "harness tests": account(told(5, hypothesis="test")),
}


@pytest.mark.parametrize("check", [check.name for check in CHECKS])
def test_every_check_finds_what_was_planted_for_it(check: str) -> None:
    findings = found(PLANTED[check], check)
    assert findings, f"nothing was found by {check}"
    assert all(finding.shows and finding.settles for finding in findings)


def test_a_finding_names_trials_and_source_lines() -> None:
    (finding,) = found(PLANTED["edits"], "edits")
    assert (finding.trials, finding.lines) == ((5,), (7,))


def test_the_champion_is_calculated_and_ties_go_to_the_first() -> None:
    made = account(told(1, verdict=Verdict.KEPT, score=0.9), told(4, verdict=Verdict.KEPT, score=0.9))
    head = headline_of(made)
    assert (head.champion, head.kept_on_path, head.kept_off_path) == (1, 1, 1)
    assert head.change == pytest.approx(-0.1)
    assert head.interval is not None
    assert head.interval[0] < -0.1 < head.interval[1]


def test_a_missing_spread_gives_no_interval() -> None:
    assert headline_of(account(told(0, std=None))).interval is None


def test_a_loop_of_parents_ends() -> None:
    made = account(told(1, verdict=Verdict.KEPT, score=0.9, parent=2), told(2, parent=1))
    assert made.path == {1, 2}


def test_a_native_campaign_has_all_evidence_but_what_it_did_not_record(log: EventLog) -> None:
    write_campaign(log, "toy-1")
    (made,) = accounts_of(log)
    head = headline_of(made)
    assert head.origin == "native"
    assert head.trials == len(made.trials) - 1
    assert head.evidence["hypothesis"] == 1.0
    assert head.evidence["signature"] > 0.4
    assert head.interval is not None
    assert {finding.check for finding in examined(made)} <= {"kept gains", "pauses", "twins", "champion", "calibration"}
    shown = CliRunner().invoke(cli, ["claims", str(log.path)])
    assert shown.exit_code == 0, shown.output
    assert "toy-1 (native)" in shown.output


def test_a_path_that_is_no_ledger_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no")
    shown = CliRunner().invoke(cli, ["claims", str(tmp_path / "x.db")])
    assert shown.exit_code == 2
    assert shown.output.count("\n") == 1


def test_the_published_headlines_come_out_of_the_records(tmp_path: Path) -> None:
    with EventLog.create(tmp_path / "l.db") as log:
        for one in discover(published_runs()):
            take(log, read(one))
    shown = CliRunner().invoke(cli, ["claims", str(tmp_path / "l.db"), "--json"])
    assert shown.exit_code == 0, shown.output
    told_of = {run["campaign"]: run for run in json.loads(shown.output)}
    changes = [f"{told_of[name]['change']:+.2%}" for name in ("pg_main", "nanochat_d12", "cifar")]
    assert changes == ["-0.81%", "+38.69%", "-4.59%"]
    assert [told_of[name]["champion"] for name in ("pg_main", "nanochat_d12", "cifar")] == [750, 156, 70]
    assert sum(told_of[name]["trials"] for name in RUNS) == 1197
    assert sum(told_of[name]["arch_claimed"] for name in RUNS) == 157
    assert all(run["evidence"]["code"] == 0 for run in told_of.values())
    findings = {(name, found["check"]) for name in told_of for found in told_of[name]["findings"]}
    assert findings >= {("pg_main", "resolution"), ("pg_main", "bounds"), ("cifar", "gates"), ("pg_main", "edits")}


def test_the_case_study_is_what_the_data_gives() -> None:
    assert (ROOT / "docs" / "case-study.md").read_text() == case_study(published_runs())
