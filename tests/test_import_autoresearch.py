"""Import of an autoresearch folder: results.tsv beside a real repository with kept and lost commits."""

import subprocess
from pathlib import Path

import pytest

from audit.claims import accounts_of, headline_of
from audit.verify import verify
from ledger.importers import ImportFault, discover, read, take
from ledger.importers.record import Run
from ledger.log import EventLog
from ledger.vocabulary import Evidence, FailureLabel, Verdict

HEADER = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=agent", "-c", "user.email=agent@example.org")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, code: str) -> str:
    (folder / "train.py").write_text(code)
    git(folder, "add", "train.py")
    git(folder, "commit", "-qm", code)
    return git(folder, "rev-parse", "--short=7", "HEAD")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Baseline, a kept change, a discarded one that git has forgotten, and a crash."""
    folder = tmp_path / "mar5"
    folder.mkdir()
    git(folder, "init", "-q")
    first, second = commit(folder, "lr = 1\n"), commit(folder, "lr = 2\n")
    rows = [
        f"{first}\t0.997900\t44.0\tkeep\tbaseline\n",
        f"{second}\t0.993200\t44.2\tkeep\tincrease LR to 0.04\n",
        "fffffff\t1.005000\t44.0\tdiscard\tswitch to GeLU\tactivation\n",
        "eeeeeee\t0.000000\t0.0\tcrash\tdouble model width (OOM)\n",
    ]
    (folder / "results.tsv").write_text(HEADER + "".join(rows))
    return folder


def read_one(folder: Path) -> Run:
    (found,) = discover(folder)
    assert found.format.name == "autoresearch"
    return read(found)


def test_rows_become_trials_and_git_gives_parent_and_code(folder: Path) -> None:
    first, second, third, fourth = read_one(folder).trials
    assert [trial.verdict for trial in (first, second, third)] == [Verdict.BASELINE, Verdict.KEPT, Verdict.DISCARDED]
    assert (second.parent, second.score, second.metrics) == (0, "0.9932", {"memory_gb": "44.2"})
    assert Evidence.CODE in second.evidence
    assert second.at is not None
    assert third.repaired == ("tabs in the description read as spaces",)
    assert third.unknown == ("the commit is not in the repository: its code and parent are lost",)
    assert (fourth.label, fourth.score) == (FailureLabel.CRASH, None), "a crash logged as 0 is not the best score"


def test_the_ledger_is_sound_and_the_headline_is_calculated(folder: Path, tmp_path: Path) -> None:
    with EventLog.create(tmp_path / "l.db") as log:
        assert take(log, read_one(folder)).appended == 5
        head = headline_of(accounts_of(log)[0])
    assert verify(tmp_path / "l.db").sound
    assert (head.champion, head.trials) == (1, 3)
    assert head.change == pytest.approx(-0.00471, abs=1e-5)
    assert head.evidence["code"] == 0.5


def test_a_folder_without_a_repository_loses_code_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "results.tsv").write_text(HEADER + "a1b2c3d\t0.99\t44.0\tkeep\tbaseline\n")
    (trial,) = read_one(tmp_path).trials
    assert trial.unknown
    assert Evidence.CODE not in trial.evidence


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.tsv").write_text(HEADER + "a1b2c3d\t0.99\t44")
    with pytest.raises(ImportFault, match="line 2: expected 5 columns, found the file cut"):
        read_one(tmp_path)


def test_a_commit_that_is_an_option_of_git_is_not_passed_to_it(tmp_path: Path) -> None:
    (tmp_path / "results.tsv").write_text(HEADER + "--output=x\t0.99\t44.0\tkeep\tbaseline\n")
    assert next(iter(read_one(tmp_path).trials)).unknown
    assert not (tmp_path / "x").exists()
