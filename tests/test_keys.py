"""Keys: files that only their owner reads, and verifier keys in exactly one written form."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.keys import KeyFault, SigningKey, VerifierKey, publish

# The key of the checksum database sum.golang.org, as the Go sources publish it.
GO_SUMDB = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


def test_a_published_key_is_read_and_written_the_same() -> None:
    key = VerifierKey.parse(GO_SUMDB)
    assert (key.name, key.hash.hex(), str(key)) == ("sum.golang.org", "033de0ae", GO_SUMDB)


def test_signatures_verify_with_their_own_key_and_message_only(tmp_path: Path) -> None:
    key, other = SigningKey.create(tmp_path / "a", "a"), SigningKey.create(tmp_path / "b", "b")
    signature = key.sign(b"message")
    assert key.verifier.verifies(b"message", signature)
    assert not key.verifier.verifies(b"massage", signature)
    assert not other.verifier.verifies(b"message", signature)
    assert not key.verifier.verifies(b"message", signature[:-1])
    assert not key.verifier.verifies(b"message", b"")


def test_a_key_file_is_private_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.key"
    key = SigningKey.create(path, "example.org/log")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["log.key"]
    assert SigningKey.load(path).verifier == key.verifier


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    key = SigningKey.create(path, "log")
    with pytest.raises(FileExistsError):
        SigningKey.create(path, "log")
    assert SigningKey.load(path).verifier == key.verifier
    assert [file.name for file in tmp_path.iterdir()] == ["log.key"]


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.key"
    SigningKey.create(path, "log")
    path.chmod(0o644)
    with pytest.raises(KeyFault, match="chmod 600"):
        SigningKey.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"name\n", b"name\nAAAA\n", b"name\n!!!!\n", b"\xff\n", b"a b\n" + b"A" * 43 + b"=\n"]
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFault, match=r"key|chmod"):
        SigningKey.load(path)


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="labtrail keygen"):
        SigningKey.load(tmp_path / "none")


def test_threads_that_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    found: list[VerifierKey] = []
    threads = [
        threading.Thread(target=lambda: found.append(SigningKey.load_or_create(tmp_path / "k", "log").verifier))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\x00b", "a\u2003b"])
def test_names_that_a_note_cannot_carry_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFault, match="key name"):
        SigningKey.create(tmp_path / "k", name)
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, len(GO_SUMDB) - 1), st.characters())
def test_no_other_spelling_of_a_key_is_accepted(place: int, character: str) -> None:
    text = GO_SUMDB[:place] + character + GO_SUMDB[place + 1 :]
    if text == GO_SUMDB:
        return
    with pytest.raises(KeyFault):
        VerifierKey.parse(text)


@given(st.text(max_size=100))
def test_arbitrary_text_raises_nothing_but_key_fault(text: str) -> None:
    with pytest.raises(KeyFault):
        VerifierKey.parse(text)


def test_the_public_half_of_another_key_is_not_overwritten(tmp_path: Path) -> None:
    first = publish(SigningKey.create(tmp_path / "lab.key", "lab"), tmp_path / "lab.key")
    with pytest.raises(KeyFault, match="belongs to another key"):
        SigningKey.create(tmp_path / "lab.pem", "lab")
    assert not (tmp_path / "lab.pem").exists()
    assert (tmp_path / "lab.pub").read_text() == f"{first}\n"
