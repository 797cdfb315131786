"""The witness on its own machine, checkpoints in git notes: real processes, real git."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import checkpoint
from ledger.checkpoint import CheckpointError
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.notes import Note
from ledger.witness import Request, cosign, request
from tests.campaigns import write_campaign
from tests.test_ledger import drafts


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.create(tmp_path / "keys" / "log.key", "example.org/log")


@pytest.fixture
def second(tmp_path: Path) -> SigningKey:
    return SigningKey.create(tmp_path / "keys" / "witness.key", "witness.example.org")


def test_a_request_is_written_and_read_the_same(log: EventLog, key: SigningKey) -> None:
    log.append(drafts(300))
    note = checkpoint.sign(log, key)
    for old in (0, 1, 255, 256, 299, 300):
        asked = request(log, note, old)
        assert Request.parse(str(asked).encode()) == asked


def test_a_witness_needs_the_proof_file_alone(
    log: EventLog, key: SigningKey, second: SigningKey, tmp_path: Path
) -> None:
    memory = tmp_path / "seen"
    log.append(drafts(5))
    cosign(request(log, checkpoint.sign(log, key), 0), key.verifier, second, memory)
    log.append(drafts(300))
    content = str(request(log, checkpoint.sign(log, key), 5)).encode()
    answer = cosign(Request.parse(content), key.verifier, second, memory)
    answer.verify(second.witness)
    answer.verify(key.verifier)


def test_a_proof_from_another_size_is_refused_with_the_right_one(
    log: EventLog, key: SigningKey, second: SigningKey, tmp_path: Path
) -> None:
    memory = tmp_path / "seen"
    log.append(drafts(5))
    cosign(request(log, checkpoint.sign(log, key), 0), key.verifier, second, memory)
    before = memory.read_bytes()
    log.append(drafts(5))
    with pytest.raises(CheckpointError, match=r"labtrail checkpoint --since 5"):
        cosign(request(log, checkpoint.sign(log, key), 0), key.verifier, second, memory)
    assert memory.read_bytes() == before


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_no_bit_of_a_request_can_be_flipped(
    log: EventLog, key: SigningKey, second: SigningKey, tmp_path: Path, place: int, bit: int
) -> None:
    memory = tmp_path / "seen"
    if not memory.exists():
        log.append(drafts(7))
        cosign(request(log, checkpoint.sign(log, key), 0), key.verifier, second, memory)
        log.append(drafts(6))
    content = bytearray(str(request(log, checkpoint.sign(log, key), 7)).encode())
    before = memory.read_bytes()
    content[place % len(content)] ^= 1 << bit
    with pytest.raises(CheckpointError):
        cosign(Request.parse(bytes(content)), key.verifier, second, memory)
    assert memory.read_bytes() == before


def run(folder: Path, home: str, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LABTRAIL_HOME": str(folder / home)}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_fork_gets_no_cosignature_and_the_audit_demands_one(tmp_path: Path) -> None:
    with EventLog.create(tmp_path / "a.db", origin="example.org/log") as log:
        write_campaign(log, name="toy-1", trials=2, seed=0)
    first = run(tmp_path, "lab", "labtrail", "checkpoint", "--ledger", "a.db", "--since", "0")
    assert first.returncode == 0, first.stderr
    (tmp_path / "first.request").write_text(first.stdout)
    ask = ("--log-key", "lab/log.pub")
    done = run(tmp_path, "w", "labtrail", "witness", "first.request", *ask, "--out", "a.db.checkpoint")
    assert done.returncode == 0, done.stderr
    held = ("--checkpoint", "a.db.checkpoint", "--key", "lab/log.pub")
    assert run(tmp_path, "lab", "audit.cli", "verify", "a.db", *held, "--witness-key", "w/witness.pub").returncode == 0
    with EventLog.open(tmp_path / "a.db") as log:
        write_campaign(log, name="toy-2", trials=2, seed=1)
    assert run(tmp_path, "lab", "labtrail", "checkpoint", "--ledger", "a.db").returncode == 0
    lacking = run(tmp_path, "lab", "audit.cli", "verify", "a.db", *held, "--witness-key", "w/witness.pub")
    assert lacking.returncode == 2
    assert "carries no signature of labtrail-witness" in lacking.stderr
    grown = run(tmp_path, "w", "labtrail", "witness", "a.db", *ask)
    assert grown.returncode == 0, grown.stderr
    Note.parse(grown.stdout.encode())
    with EventLog.create(tmp_path / "b.db", origin="example.org/log") as log:
        write_campaign(log, name="toy-1", trials=6, seed=7)
    assert run(tmp_path, "lab", "labtrail", "checkpoint", "--ledger", "b.db").returncode == 0
    older = run(tmp_path, "w", "labtrail", "witness", "first.request", *ask)
    refusals = ((run(tmp_path, "w", "labtrail", "witness", "b.db", *ask), "rewritten"), (older, "go back"))
    for refused, why in refusals:
        assert refused.returncode == 2
        assert why in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert not refused.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkpoint_is_kept_in_a_git_note(log: EventLog, key: SigningKey) -> None:
    log.append(drafts(4))
    note = checkpoint.sign(log, key)
    folder = log.path.parent
    with pytest.raises(CheckpointError, match="git did not keep it"):
        checkpoint.keep_in_git(note, folder)

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        done = subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True)
        return done.stdout

    git("init", "-q")
    git("config", "user.name", "t")
    git("config", "user.email", "t@example.org")
    git("commit", "-q", "--allow-empty", "-m", "one")
    ref = checkpoint.keep_in_git(note, folder)
    assert Note.parse(git("notes", "--ref", ref, "show", "HEAD").encode()) == note
    log.append(drafts(4))
    later = checkpoint.sign(log, key)
    checkpoint.keep_in_git(later, folder)
    assert Note.parse(git("notes", "--ref", ref, "show", "HEAD").encode()) == later
