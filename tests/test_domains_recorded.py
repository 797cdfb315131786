"""Observations as events: recorded once, in the live loop too, seen in views, made again by the audit."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from audit.domains import classify, command, domains_of
from audit.domains.observation import CLASSIFIER, actor_of
from audit.verify import verify
from ledger.campaign import Campaign, GrammarError
from ledger.events import DomainObserved, Draft
from ledger.log import EventLog
from ledger.recipes import Recipe
from ledger.views import Views
from ledger.vocabulary import Domain
from tests.campaigns import write_campaign
from tests.test_campaign_loop import campaign, run_toy


@pytest.fixture
def ledger(log: EventLog) -> Path:
    write_campaign(log)
    log.close()
    return log.path


def recorded(ledger: Path) -> list[DomainObserved]:
    with EventLog.read_only(ledger) as log:
        return [event.body for event in log.events() if isinstance(event.body, DomainObserved)]


def run(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(command, [str(arg) for arg in args])
    return done.exit_code, done.output


def test_recording_is_done_once_and_holds_in_the_audit(ledger: Path) -> None:
    before = EventLog.read_only(ledger).size
    run(ledger)
    assert EventLog.read_only(ledger).size == before, "without --record nothing is written"
    _, said = run(ledger, "--record")
    bodies = recorded(ledger)
    assert f"{len(bodies)} of {len(bodies)} edits recorded" in said
    assert {body.observed_domain for body in bodies} >= {"opt", "arch", None}
    _, said = run(ledger, "--record")
    assert f"0 of {len(bodies)} edits recorded" in said
    assert recorded(ledger) == bodies
    report = verify(ledger)
    assert report.findings == ()
    check = next(check for check in report.checks if check.name == "observations")
    assert check.checked == check.confirmed == len(bodies)


def test_views_show_the_newest_observation(ledger: Path) -> None:
    with EventLog.open(ledger) as log:
        found = domains_of(log).trials[0]
        where = "SELECT observed_domain, kind, strict_arch, undeclared FROM trials WHERE campaign = ? AND trial = ?"
        assert Views.of(log).query(where, [found.campaign, found.trial]).rows == [(None, None, None, None)]
    run(ledger, "--record")
    with EventLog.open(ledger) as log:
        row = (found.report.domain, found.report.kind, found.report.strict_arch)
        (shown,) = Views.of(log).query(where, [found.campaign, found.trial]).rows
        assert shown[:3] == row
        assert len(shown[3]) == len(found.truth.undeclared)
        body = next(e.body for e in log.events() if isinstance(e.body, DomainObserved) and e.trial == found.trial)
        other = body.model_copy(
            update={"classifier": "other-7", "observed_domain": Domain.SYS, "undeclared": ("sys a b",)}
        )
        log.append([Draft(other, actor_of(other), found.campaign, found.trial)])
        (newest,) = Views.of(log).query(where, [found.campaign, found.trial]).rows
        assert newest == ("sys", *row[1:], ["sys a b"])


Forge = Callable[[DomainObserved], DomainObserved]


def forged(**fields: object) -> Forge:
    return lambda body: body.model_copy(update=fields)


@pytest.mark.parametrize(
    ("forge", "severity"),
    [
        (forged(observed_domain=Domain.ARCH, strict_arch=True), "error"),
        (forged(undeclared=("sys train.py secret",)), "error"),
        (forged(evidence="nothing to see"), "error"),
        (forged(classifier="domains-0/py3.9", observed_domain=Domain.ARCH), "note"),
    ],
)
def test_an_observation_that_the_code_does_not_show_is_found(ledger: Path, forge: Forge, severity: str) -> None:
    run(ledger, "--record")
    with EventLog.open(ledger) as log:
        event = next(e for e in log.events() if isinstance(e.body, DomainObserved) and e.body.observed_domain == "opt")
        assert isinstance(event.body, DomainObserved)
        false = forge(event.body)
        log.append([Draft(false, actor_of(false), event.campaign, event.trial)])
    findings = verify(ledger).findings
    assert {(finding.check, str(finding.severity)) for finding in findings} == {("observations", severity)}


def test_an_observation_of_another_recipe_breaks_the_order(ledger: Path) -> None:
    run(ledger, "--record")
    with EventLog.open(ledger) as log:
        event = next(e for e in log.events() if isinstance(e.body, DomainObserved))
        assert isinstance(event.body, DomainObserved)
        other = event.body.model_copy(update={"recipe": event.body.parent_recipe})
        log.append([Draft(other, event.actor, event.campaign, event.trial)])
        with pytest.raises(GrammarError, match="compares other recipes"):
            Campaign.replay("toy-1", log.events(campaign="toy-1"))


def test_recording_refuses_a_ledger_that_a_campaign_owns(ledger: Path) -> None:
    holder = "import sys; from pathlib import Path; from ledger.log import EventLog\n"
    holder += "log = EventLog.open(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(ledger)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        code, said = run(ledger, "--record")
        process.kill()
    assert code == 2
    assert f"process {process.pid} is writing to this ledger" in said
    assert len(said.strip().splitlines()) == 1


def test_an_edit_that_is_nested_too_deeply_gets_a_plain_answer() -> None:
    deep = Recipe({"a.py": "x = " + "-" * 900 + "y\n"})
    report = classify(Recipe({"a.py": "x = 1\n"}), deep)
    assert report.changes == ()
    assert len(report.problems) == 1


@pytest.mark.slow
def test_the_live_loop_records_every_submitted_edit(tmp_path: Path) -> None:
    done = run_toy(tmp_path, 2)
    assert done.returncode == 0, done.stderr
    bodies = recorded(tmp_path / "toy.db")
    assert len(bodies) == len(campaign(tmp_path).trials) - 1
    assert {body.classifier for body in bodies} == {CLASSIFIER}
    check = next(check for check in verify(tmp_path / "toy.db").checks if check.name == "observations")
    assert (check.confirmed, check.errors) == (len(bodies), 0)
    _, said = run(tmp_path / "toy.db", "--record")
    assert said.startswith("0 of ")
