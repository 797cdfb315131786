"""Proofs for one trial: checked with a public key alone, and no altered proof shows anything."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import checkpoint
from ledger.checkpoint import CheckpointError
from ledger.events import Draft
from ledger.keys import SigningKey
from ledger.log import EventLog
from ledger.merkle import ProofError
from ledger.proof import check_proof, prove
from tests.test_ledger import body


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.create(tmp_path / "log.key", "example.org/log")


@pytest.fixture
def proof(log: EventLog, key: SigningKey) -> bytes:
    log.append([Draft(body(f"é {number}"), "person:p", "c1", number % 7) for number in range(600)])
    note = checkpoint.sign(log, key)
    log.append([Draft(body("later"), "person:p", "c1", 3)])
    return prove(log, note, "c1", 3)


def test_a_proof_is_checked_without_the_ledger(log: EventLog, key: SigningKey, proof: bytes) -> None:
    proved = check_proof(proof, key.verifier)
    assert proved.checkpoint.size == 600
    assert list(proved.events) == [event for event in log.events(0, 600) if event.trial == 3]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 10**9), byte=st.integers(0, 255))
def test_no_byte_of_what_is_proved_can_be_changed(
    log: EventLog, key: SigningKey, proof: bytes, place: int, byte: int
) -> None:
    at = place % len(proof)
    damaged = proof[:at] + bytes([byte]) + proof[at + 1 :]
    try:
        found = check_proof(damaged, key.verifier)
    except ProofError:
        return
    # Whitespace between the parts of the file is nobody's statement.
    assert found == check_proof(proof, key.verifier)


def test_events_cannot_be_moved_doubled_or_reordered(key: SigningKey, proof: bytes) -> None:
    document = json.loads(proof)
    first, second, *rest = document["events"]
    for events in ([second, first, *rest], [first, first], [{**first, "seq": second["seq"]}], []):
        with pytest.raises(ProofError):
            check_proof(json.dumps({**document, "events": events}).encode(), key.verifier)


def test_a_proof_against_another_key_is_refused(tmp_path: Path, proof: bytes) -> None:
    other = SigningKey.create(tmp_path / "other.key", "example.org/log")
    with pytest.raises(ProofError, match="no signature of"):
        check_proof(proof, other.verifier)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format":1}'])
def test_what_is_no_proof_is_refused(key: SigningKey, content: bytes) -> None:
    with pytest.raises(ProofError):
        check_proof(content, key.verifier)


def test_a_trial_that_is_not_there_is_an_error(log: EventLog, key: SigningKey) -> None:
    with pytest.raises(ValueError, match="no event of trial 1"):
        prove(log, checkpoint.sign(log, key), "c1", 1)


def test_a_checkpoint_of_another_log_proves_nothing(log: EventLog, key: SigningKey, tmp_path: Path) -> None:
    with EventLog.create(tmp_path / "other.db") as other:
        note = checkpoint.sign(other, key)
    with pytest.raises(CheckpointError, match="is of log"):
        prove(log, note, "c1", 0)
