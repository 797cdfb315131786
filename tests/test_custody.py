"""Custody of a ledger from the command line: keys, checkpoints, backups and proofs, and what they catch."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from shutil import copyfile

import pytest

from ledger.log import EventLog
from tests.campaigns import write_campaign


class Desk:
    """A folder with a ledger and a home, and the two programs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ledger, self.home = folder, folder / "toy.db", folder / "home"
        with EventLog.create(self.ledger) as log:
            write_campaign(log, name="toy-1", trials=6, seed=0)

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LABTRAIL_HOME": str(self.home)}
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def verify(self) -> subprocess.CompletedProcess[str]:
        held = ("--checkpoint", str(self.folder / "kept.checkpoint"), "--key", str(self.home / "log.pub"))
        return self.run("audit.cli", "verify", str(self.ledger), *held)

    def sql(self, script: str) -> None:
        connection = sqlite3.connect(self.ledger)
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.executescript(script)
        connection.close()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    signed = desk.run("labtrail", "checkpoint", "--ledger", "toy.db")
    assert signed.returncode == 0, signed.stderr
    (tmp_path / "kept.checkpoint").write_text(signed.stdout)
    return desk


def test_a_ledger_extends_its_checkpoint_also_after_more_events(desk: Desk) -> None:
    assert desk.verify().returncode == 0
    with EventLog.open(desk.ledger) as log:
        write_campaign(log, name="toy-2", trials=2, seed=1)
    grown = desk.verify()
    assert grown.returncode == 0, grown.stdout
    assert "extends the checkpoint" in grown.stdout


def test_a_log_that_was_rewritten_as_a_whole_is_found_by_the_checkpoint_alone(desk: Desk) -> None:
    with EventLog.read_only(desk.ledger) as log:
        origin = log.meta()["origin"]
    desk.ledger.unlink()
    for beside in desk.folder.glob("toy.db-*"):
        beside.unlink()
    with EventLog.create(desk.ledger, origin=origin) as log:
        write_campaign(log, name="toy-1", trials=6, seed=7)
    assert desk.run("audit.cli", "verify", "toy.db").returncode == 0
    found = desk.verify()
    assert found.returncode == 1
    assert "the first" in found.stdout
    assert "by the checks checkpoint" in found.stdout


def test_an_older_copy_put_back_is_found_and_not_continued(desk: Desk) -> None:
    older = desk.folder / "older.db"
    assert desk.run("labtrail", "backup", str(older), "--ledger", "toy.db").returncode == 0
    with EventLog.open(desk.ledger) as log:
        write_campaign(log, name="toy-2", trials=2, seed=1)
    signed = desk.run("labtrail", "checkpoint", "--ledger", "toy.db")
    (desk.folder / "kept.checkpoint").write_text(signed.stdout)
    for beside in desk.folder.glob("toy.db-*"):
        beside.unlink()
    copyfile(older, desk.ledger)
    assert desk.run("audit.cli", "verify", "toy.db").returncode == 0
    found = desk.verify()
    assert found.returncode == 1
    assert "events were cut off" in found.stdout
    toy = Path(__file__).parent / "toy_task"
    refused = desk.run("labtrail", "run", str(toy), "--trials", "1", "--ledger", "toy.db")
    assert refused.returncode == 2
    assert "its tail is gone" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_checkpoint_of_another_key_is_not_believed(desk: Desk) -> None:
    assert desk.run("labtrail", "keygen", "other.key", "--name", "other").returncode == 0
    held = ("--checkpoint", "kept.checkpoint", "--key", "other.pub")
    refused = desk.run("audit.cli", "verify", "toy.db", *held)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1


def test_a_key_is_never_overwritten(desk: Desk) -> None:
    assert desk.run("labtrail", "keygen", "my.key", "--name", "me").returncode == 0
    before = (desk.folder / "my.key").read_bytes()
    refused = desk.run("labtrail", "keygen", "my.key", "--name", "me")
    assert refused.returncode == 2
    assert (desk.folder / "my.key").read_bytes() == before
    assert (desk.folder / "my.key").stat().st_mode & 0o077 == 0


def test_a_proof_of_one_trial_holds_without_the_ledger_and_breaks_when_edited(desk: Desk) -> None:
    made = desk.run("labtrail", "prove", "1", "--ledger", "toy.db")
    assert made.returncode == 0, made.stderr
    for path in desk.folder.glob("toy.db*"):
        path.unlink()
    check = ("check-proof", "trial-1.proof", "--key", str(desk.home / "log.pub"))
    held = desk.run("audit.cli", *check)
    assert held.returncode == 0, held.stdout + held.stderr
    assert "hypothesis_proposed" in held.stdout
    proof = desk.folder / "trial-1.proof"
    proof.write_text(proof.read_text().replace("hypothesis_proposed", "hypothesis_proposeD", 1))
    broken = desk.run("audit.cli", *check)
    assert broken.returncode == 1
    assert "NOT PROVED" in broken.stdout


def test_proving_a_trial_that_is_not_there_is_one_line(desk: Desk) -> None:
    refused = desk.run("labtrail", "prove", "99", "--ledger", "toy.db")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
