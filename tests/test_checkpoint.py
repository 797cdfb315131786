"""Checkpoints: published notes are read, altered ones are refused, and a cut or rewritten log does not extend them."""

import base64
import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import checkpoint
from ledger.checkpoint import Checkpoint, CheckpointError
from ledger.keys import SigningKey, VerifierKey
from ledger.log import EventLog
from ledger.merkle import EMPTY_ROOT
from ledger.notes import Note, NoteError
from ledger.witness import cosign, request, seen
from tests.test_ledger import drafts

# From the tests of golang.org/x/mod/sumdb/note, the implementation that the format was written down from.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of c2sp.org/tlog-cosignature.
C2SP_NOTE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.create(tmp_path / "keys" / "log.key", "example.org/log")


@pytest.fixture
def witness(tmp_path: Path) -> SigningKey:
    return SigningKey.create(tmp_path / "keys" / "witness.key", "witness.example.org")


def test_a_published_note_verifies_and_is_written_the_same() -> None:
    note = Note.parse(NEUMANN_NOTE.encode())
    assert note.verify(VerifierKey.parse(NEUMANN)) is None
    assert str(note) == NEUMANN_NOTE


def test_the_published_checkpoint_is_read_and_written_the_same() -> None:
    note = Note.parse(C2SP_NOTE.encode())
    found = Checkpoint.parse(note.text)
    assert (found.origin, found.size) == ("example.com/behind-the-sofa", 20852163)
    assert found.text == note.text
    assert str(note) == C2SP_NOTE
    assert int.from_bytes(note.signatures[1].payload[:8], "big") == 1679315147


@given(st.integers(0, 8 * len(NEUMANN_NOTE.encode()) - 1))
def test_no_bit_of_a_note_can_be_flipped(bit: int) -> None:
    content = bytearray(NEUMANN_NOTE.encode())
    content[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(NoteError):
        Note.parse(bytes(content)).verify(VerifierKey.parse(NEUMANN))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_note_error(content: bytes) -> None:
    for text in (content, b"a\n\n" + content, NEUMANN_NOTE.encode() + content):
        with contextlib.suppress(NoteError):
            assert str(Note.parse(text)).encode() == text


ROOT = base64.b64encode(b"r" * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n5\n",
        f"log\n5\n{ROOT}",
        f"\n5\n{ROOT}\n",
        f"log\n05\n{ROOT}\n",
        f"log\n-5\n{ROOT}\n",
        f"log\n+5\n{ROOT}\n",
        f"log\n٥\n{ROOT}\n",
        f"log\n5 \n{ROOT}\n",
        f"log\n5\n{ROOT} \n",
        f"log\n5\n{ROOT[:-2]}t=\n",
        f"log\n5\n{base64.b64encode(b'short').decode()}\n",
        f"log\n5\n{ROOT}\n\n",
        f"log\n0\n{ROOT}\n",
    ],
)
def test_other_spellings_of_a_checkpoint_are_refused(text: str) -> None:
    with pytest.raises(CheckpointError):
        Checkpoint.parse(text)


def test_a_signed_head_is_written_beside_the_ledger_and_verifies(log: EventLog, key: SigningKey) -> None:
    log.append(drafts(5))
    note = checkpoint.sign(log, key)
    assert checkpoint.sidecar(log.path).read_bytes() == str(note).encode()
    found = checkpoint.verified(checkpoint.read(checkpoint.sidecar(log.path)), key.verifier)
    assert found == Checkpoint(log.meta()["origin"], 5, log.head().root)
    log.append(drafts(300))
    checkpoint.extends(log, found)
    assert [file.name for file in log.path.parent.glob("*.new")] == []


def test_an_empty_log_has_a_checkpoint_too(log: EventLog, key: SigningKey) -> None:
    first = checkpoint.verified(checkpoint.sign(log, key), key.verifier)
    assert (first.size, first.root) == (0, EMPTY_ROOT)
    log.append(drafts(1))
    assert checkpoint.verified(checkpoint.sign(log, key), key.verifier).size == 1


def test_signing_an_unchanged_log_again_gives_the_same_note(log: EventLog, key: SigningKey) -> None:
    log.append(drafts(2))
    assert checkpoint.sign(log, key) == checkpoint.sign(log, key)


def test_a_checkpoint_of_another_key_is_refused(log: EventLog, key: SigningKey, witness: SigningKey) -> None:
    note = checkpoint.sign(log, key)
    with pytest.raises(CheckpointError, match="no signature of witness"):
        checkpoint.verified(note, witness.verifier)
    with pytest.raises(CheckpointError, match="no signature of witness"):
        checkpoint.sign(log, witness)


def copy(log: EventLog, name: str) -> Path:
    """A copy of the ledger as an attacker has it: closed, and with the triggers gone."""
    path = log.path.parent / name
    log.close()
    shutil.copy(log.path, path)
    return path


def test_a_log_whose_tail_was_cut_does_not_extend_its_checkpoint(log: EventLog, key: SigningKey) -> None:
    log.append(drafts(4))
    short = copy(log, "short.db")
    with EventLog.open(log.path) as again:
        again.append(drafts(4))
        note = checkpoint.sign(again, key)
    with EventLog.read_only(short) as cut, pytest.raises(CheckpointError, match="its tail is gone"):
        checkpoint.extends(cut, Checkpoint.parse(note.text))


def test_a_log_rewritten_whole_does_not_extend_its_checkpoint(tmp_path: Path, key: SigningKey) -> None:
    notes = []
    for name in ("a.db", "b.db"):
        with EventLog.create(tmp_path / name, origin="example.org/log") as log:
            log.append(drafts(4))
            notes.append(Checkpoint.parse(checkpoint.sign(log, key).text))
            log.append(drafts(1))
    with EventLog.read_only(tmp_path / "b.db") as rewritten, pytest.raises(CheckpointError, match="was rewritten"):
        checkpoint.extends(rewritten, notes[0])


def test_a_checkpoint_of_another_log_is_refused(tmp_path: Path, log: EventLog) -> None:
    with EventLog.create(tmp_path / "other.db") as other, pytest.raises(CheckpointError, match="is of log"):
        checkpoint.extends(other, checkpoint.current(log))


def test_the_signer_refuses_a_log_that_does_not_extend_the_last_note(tmp_path: Path, key: SigningKey) -> None:
    with EventLog.create(tmp_path / "a.db", origin="example.org/log") as log:
        log.append(drafts(4))
        checkpoint.sign(log, key, tmp_path / "held.checkpoint")
    before = (tmp_path / "held.checkpoint").read_bytes()
    with EventLog.create(tmp_path / "b.db", origin="example.org/log") as log:
        log.append(drafts(5))
        with pytest.raises(CheckpointError, match="was rewritten"):
            checkpoint.sign(log, key, tmp_path / "held.checkpoint")
    assert (tmp_path / "held.checkpoint").read_bytes() == before


def answered(log: EventLog, note: Note, key: SigningKey, witness: SigningKey, memory: Path) -> Note:
    """What the witness says to a proof from where it stands."""
    last = seen(memory, witness)
    size = Checkpoint.parse(note.text).size
    return cosign(request(log, note, min(last.size, size) if last else 0), key.verifier, witness, memory)


def test_a_witness_cosigns_a_log_that_grows(
    log: EventLog, key: SigningKey, witness: SigningKey, tmp_path: Path
) -> None:
    memory = tmp_path / "seen"
    for _ in range(3):
        log.append(drafts(3))
        note = answered(log, checkpoint.sign(log, key), key, witness, memory)
        assert note.verify(key.verifier) is None
        assert (note.verify(witness.witness) or 0) > 1_700_000_000
        assert Note.parse(str(note).encode()) == note
    assert checkpoint.read(memory) == note


def test_a_cosignature_is_the_published_message_signed(key: SigningKey) -> None:
    text = Checkpoint("example.com/behind-the-sofa", 20852163, b"r" * 32).text
    note = Note(text).cosigned(key, 1679315147)
    message = b"cosignature/v1\ntime 1679315147\n" + text.encode()
    assert key.verifier.verifies(message, note.signatures[0].payload[8:])
    expected = sha256(key.name.encode() + b"\n\x04" + key.verifier.public).digest()[:4]
    assert note.signatures[0].hash == expected
    assert VerifierKey.parse(str(key.witness)) == key.witness


def test_a_plain_signature_does_not_pass_for_a_cosignature(key: SigningKey) -> None:
    note = Note(Checkpoint("log", 1, b"r" * 32).text).signed(key)
    with pytest.raises(NoteError, match="no signature"):
        note.verify(key.witness)


def test_a_witness_refuses_a_fork_and_a_step_back(key: SigningKey, witness: SigningKey, tmp_path: Path) -> None:
    memory = tmp_path / "seen"
    with EventLog.create(tmp_path / "a.db", origin="example.org/log") as log:
        log.append(drafts(2))
        small = checkpoint.sign(log, key, tmp_path / "small")
        log.append(drafts(2))
        answered(log, checkpoint.sign(log, key), key, witness, memory)
        before = memory.read_bytes()
        with pytest.raises(CheckpointError, match="cannot go back"):
            answered(log, small, key, witness, memory)
    with EventLog.create(tmp_path / "b.db", origin="example.org/log") as log:
        log.append(drafts(6))
        with pytest.raises(CheckpointError, match="was rewritten since the witness saw it"):
            answered(log, checkpoint.sign(log, key), key, witness, memory)
    assert memory.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.unlink(), lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x\n\ny\n")],
)
def test_a_damaged_note_is_a_clear_error(log: EventLog, key: SigningKey, damage: Callable[[Path], object]) -> None:
    checkpoint.sign(log, key)
    path = checkpoint.sidecar(log.path)
    damage(path)
    with pytest.raises(CheckpointError, match=str(path)):
        checkpoint.read(path)


def test_a_head_that_was_edited_in_the_file_is_not_signed(log: EventLog, key: SigningKey) -> None:
    log.append(drafts(3))
    path = copy(log, "edited.db")
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER head_update")
    connection.execute("UPDATE head SET root = zeroblob(32)")
    connection.commit()
    connection.close()
    with EventLog.read_only(path) as edited:
        note = checkpoint.current(edited)
        assert note.root != bytes(32), "signed is what the tree gives, not what the head row says"
