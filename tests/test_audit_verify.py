"""`audit verify`: accepts what is legal, says what it cannot show, and ends with the right exit code."""

import json
import sqlite3
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import cli
from audit.references import BLOBS, NOT_STORED, RECIPES
from audit.verify import verify
from ledger.campaign import Campaign
from ledger.events import BODIES, CampaignResumed, CorrectionRecorded, Digest, Draft, VerdictReached
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.vocabulary import FailureLabel, Verdict
from tests.campaigns import ENVIRONMENT, EPOCH, KEY, write_campaign


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "toy.db"
    with EventLog.create(path) as log:
        write_campaign(log, "toy-1", trials=12, seed=0)
        write_campaign(log, "toy-2", trials=9, seed=1)
    return path


def audit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the console script."""
    monkeypatch.setattr("sys.argv", ["audit", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    shown = capsys.readouterr()
    return int(str(stop.value.code or 0)), shown.out, shown.err


def test_the_builder_writes_every_kind_of_trial(log: EventLog) -> None:
    write_campaign(log, trials=12)
    campaign = Campaign.replay("toy-1", log.events(campaign="toy-1"))
    verdicts = [trial.verdict for trial in campaign.trials.values()]
    assert {*verdicts} == {*Verdict, None}
    judged = [trial.outcome for trial in campaign.trials.values()]
    labels = {outcome.label for outcome in judged if isinstance(outcome, VerdictReached)}
    assert labels > {
        FailureLabel.DUPLICATE_RECIPE,
        FailureLabel.SYNTAX_ERROR,
        FailureLabel.CRASH,
        FailureLabel.BELOW_GATE,
    }
    assert any(run.failure and run.score is None for trial in campaign.trials.values() for run in trial.runs)


def test_a_legal_ledger_has_no_findings(ledger: Path) -> None:
    report = verify(ledger)
    assert report.findings == ()
    assert report.sound
    assert (report.campaigns, report.rebuilt) == (2, 13 + 10)
    assert report.recomputed == 13 - 1 + 10 - 1
    assert {check.name for check in report.checks if not check.checked} == {"sources", "observations"}, (
        "nothing was imported or observed"
    )


def test_an_empty_ledger_and_one_that_is_being_written_are_sound(log: EventLog) -> None:
    assert verify(log.path).findings == ()
    write_campaign(log, trials=2)
    assert verify(log.path).findings == ()
    assert log.append([]) == []


@pytest.mark.parametrize("trials", [0, 1, 30])
def test_any_length_of_log_is_sound(log: EventLog, trials: int) -> None:
    write_campaign(log, trials=trials)
    assert verify(log.path).findings == ()


def test_an_audit_changes_no_byte_of_the_ledger(ledger: Path) -> None:
    before = ledger.read_bytes()
    verify(ledger)
    assert ledger.read_bytes() == before


def test_the_last_line_can_be_quoted(
    ledger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown, err = audit(monkeypatch, capsys, "verify", str(ledger))
    with EventLog.read_only(ledger) as log:
        head = log.head()
    assert (code, err) == (0, "")
    last = shown.splitlines()[-1]
    assert last.startswith(f"SOUND: {head.size} events of 2 campaigns, head {head.size} {head.root.hex()}; 23 recipes ")
    assert "no tail was cut" in last
    assert "not recorded: scores: metric values" in shown


def test_json_says_the_same(ledger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, shown, _ = audit(monkeypatch, capsys, "verify", "--json", str(ledger))
    report = json.loads(shown)
    assert code == 0
    assert report["sound"] is True
    assert {check["name"] for check in report["checks"]} >= {"hashes", "tree", "blobs", "schema", "order", "verdicts"}


def test_findings_end_in_exit_code_1_and_one_line_each(
    ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(ledger.read_bytes())
    with sqlite3.connect(broken) as connection:
        connection.execute("CREATE VIEW scores AS SELECT 'forged \x1b[2J' AS score")
    connection.close()
    code, shown, _ = audit(monkeypatch, capsys, "verify", str(broken))
    assert code == 1
    (line,) = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: file: view scores: expected no such object")
    assert "\x1b" not in shown
    assert shown.splitlines()[-1].startswith("NOT SOUND: 1 finding ")


def _nothing(path: Path, ledger: Path) -> None:
    pass


def _folder(path: Path, ledger: Path) -> None:
    path.mkdir()


def _empty(path: Path, ledger: Path) -> None:
    path.touch()


def _text(path: Path, ledger: Path) -> None:
    path.write_text("SELECT 1;\n" * 400)


def _other_database(path: Path, ledger: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (seq INTEGER PRIMARY KEY)")
    connection.close()


def _stub(path: Path, ledger: Path) -> None:
    path.write_bytes(ledger.read_bytes()[:60])


def _newer(path: Path, ledger: Path) -> None:
    path.write_bytes(ledger.read_bytes())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


@pytest.mark.parametrize("make", [_nothing, _folder, _empty, _text, _other_database, _stub, _newer])
def test_what_is_no_ledger_gives_one_line_and_exit_code_2(
    make: Callable[[Path, Path], None],
    ledger: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "x.db"
    make(path, ledger)
    code, shown, err = audit(monkeypatch, capsys, "verify", str(path))
    assert (code, shown) == (2, "")
    assert err.startswith(f"audit: {path}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.15])
def test_a_truncated_ledger_is_found(ledger: Path, tmp_path: Path, kept: float) -> None:
    path = tmp_path / "cut.db"
    content = ledger.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert not verify(path).sound


def test_a_pinned_key_decides(ledger: Path) -> None:
    assert verify(ledger, KEY.verifier).sound
    other = SigningKey("other", Ed25519PrivateKey.generate()).verifier
    report = verify(ledger, other)
    assert {finding.check for finding in report.findings if finding.is_fault} == {"contracts", "scores"}


def test_a_pinned_key_that_is_none_is_a_usage_error(ledger: Path) -> None:
    shown = CliRunner().invoke(cli.cli, ["verify", str(ledger), "--evaluator-key", "toy+00+AA"])
    assert shown.exit_code == 2
    assert "key" in shown.output


def test_what_people_do_is_noted_and_allowed(log: EventLog) -> None:
    write_campaign(log, trials=1)
    correction = CorrectionRecorded(target=3, author="ada", reason="typo", statement="the unit is nat")
    resumed = CampaignResumed(
        epoch=EPOCH.model_copy(update={"data": "0" * 64}), isolation="none", environment=ENVIRONMENT, program="x"
    )
    log.append([Draft(correction, "person:ada", "toy-1"), Draft(resumed, "person:ada", "toy-1")])
    report = verify(log.path)
    assert report.sound
    assert [finding.check for finding in report.findings] == ["epochs", "autonomy", "autonomy"]


def test_every_digest_in_an_event_is_a_blob_or_known_not_to_be_one() -> None:
    for body in BODIES:
        digests = {
            name for name, hint in typing.get_type_hints(body, include_extras=True).items() if _names_digest(hint)
        }
        known = {*BLOBS.get(body.TYPE, ()), *RECIPES.get(body.TYPE, ()), *NOT_STORED.get(body.TYPE, ())}
        assert digests == known, body.TYPE


def _names_digest(hint: object) -> bool:
    return hint == Digest or any(_names_digest(part) for part in typing.get_args(hint) if hint != Digest)


def test_help_has_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["audit"])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr()
    assert "Example: audit verify" in shown.out + shown.err


def test_progress_counts_events(ledger: Path) -> None:
    told: list[tuple[int, int | None]] = []
    size = verify(ledger, progress=lambda done, total: told.append((done, total))).size
    assert told == [(256, size)]
