"""Bundles: one file that verifies elsewhere, without what was left out of it; hostile ones are refused in one line."""

import json
import os
import shutil
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from audit.verify import verify
from ledger.bundle import HEAD, LEDGER, MANIFEST, BundleError, export, is_bundle, unpacked
from ledger.events import DiffSubmitted, HypothesisProposed, RunFinished
from ledger.keys import SigningKey
from ledger.locks import LedgerError
from ledger.log import EventLog, WithheldBlob
from ledger.redaction import Redaction, RedactionError
from ledger.texts import Withheld, withheld
from ledger.views import Views
from tests.campaigns import write_campaign


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "toy.db"
    with EventLog.create(path) as log:
        write_campaign(log, trials=8)
    SigningKey.create(path.with_name("log.key"), "example.org/log")
    return path


@pytest.fixture
def ledger(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(original, tmp_path / "toy.db"))


@pytest.fixture
def key(original: Path) -> SigningKey:
    return SigningKey.load(original.with_name("log.key"))


def made(ledger: Path, key: SigningKey, *wishes: str, name: str = "toy.bundle") -> Path:
    target = ledger.with_name(name)
    with EventLog.read_only(ledger) as log:
        export(log, target, key, Redaction.parse(wishes))
    return target


def test_a_bundle_holds_the_whole_ledger(ledger: Path, key: SigningKey) -> None:
    target = made(ledger, key)
    assert is_bundle(target)
    assert not is_bundle(ledger)
    with unpacked(target) as bundle, EventLog.read_only(bundle.ledger) as copy, EventLog.read_only(ledger) as log:
        assert list(copy.entries()) == list(log.entries())
        assert list(copy.written()) == list(log.written())
        assert sorted(copy.frames()) == sorted(log.frames())
        assert (copy.head(), copy.meta()) == (log.head(), log.meta())
        assert str(bundle.log_key) == str(key.verifier)
        bundle.note.verify(key.verifier)
        assert verify(bundle.ledger).sound


def test_the_same_ledger_gives_the_same_bytes(ledger: Path, key: SigningKey) -> None:
    assert made(ledger, key).read_bytes() == made(ledger, key, name="again").read_bytes()


WISHES = ["trial:1", "trial:3", "trial:toy-1/5", "field:hypothesis", "field:detail", "texts", "logs", "views", "diffs"]


@pytest.mark.parametrize("wish", WISHES)
def test_every_leaf_verifies_without_what_was_left_out(ledger: Path, key: SigningKey, wish: str) -> None:
    with unpacked(made(ledger, key, wish)) as bundle, EventLog.read_only(ledger) as log:
        report = verify(bundle.ledger)
        assert report.sound, report.findings
        assert report.root == log.head().root.hex()
        assert "Withheld from this copy" in report.conclusion
        with EventLog.read_only(bundle.ledger) as copy:
            views = Views.of(copy)
            for view in ("trials", "lineage", "champions", "failures", "specialists", "campaigns", "runs"):
                views.query(f"FROM {view}")


def test_a_trial_that_is_left_out_leaves_no_trace_of_its_texts_and_files(ledger: Path, key: SigningKey) -> None:
    with EventLog.read_only(ledger) as log:
        events = [event for event in log.events() if event.trial == 2]
        proposed = next(event.body for event in events if isinstance(event.body, HypothesisProposed))
        submitted = next(event.body for event in events if isinstance(event.body, DiffSubmitted))
        assert log.blob(submitted.diff)
    with unpacked(made(ledger, key, "trial:2")) as bundle:
        raw = bundle.ledger.read_bytes()
        assert proposed.hypothesis.encode() not in raw
        assert proposed.hypothesis.encode() in ledger.read_bytes()
        with EventLog.read_only(bundle.ledger) as copy:
            for event in copy.events():
                assert event.trial != 2 or len(withheld(event.body)) == len(
                    [name for name in type(event.body).model_fields if isinstance(getattr(event.body, name), Withheld)]
                )
                if event.trial == 2 and isinstance(event.body, HypothesisProposed):
                    assert withheld(event.body) == ("hypothesis", "rationale")
                if event.trial == 2 and isinstance(event.body, RunFinished):
                    with pytest.raises(WithheldBlob):
                        copy.blob(event.body.log)
            with pytest.raises(WithheldBlob):
                copy.blob(submitted.diff)


def test_a_text_goes_wherever_it_stands(ledger: Path, key: SigningKey) -> None:
    """A verdict repeats the detail of its failure, and a lineage view repeats hypotheses."""
    with EventLog.read_only(ledger) as log:
        details = {getattr(event.body, "detail") for event in log.events() if event.type == "failure_labelled"}  # noqa: B009
    with unpacked(made(ledger, key, "field:detail")) as bundle, EventLog.read_only(bundle.ledger) as copy:
        said = {getattr(event.body, "reason", None) for event in copy.events()}
        assert details
        assert details.isdisjoint(said)
        for event in copy.events():
            if event.type == "lineage_viewed":
                with pytest.raises(WithheldBlob):
                    copy.blob(getattr(event.body, "view"))  # noqa: B009


def test_one_blob_is_left_out_by_its_digest(ledger: Path, key: SigningKey) -> None:
    with EventLog.read_only(ledger) as log:
        digest = next(event.body.log for event in log.events() if isinstance(event.body, RunFinished))
    with unpacked(made(ledger, key, f"blob:{digest}")) as bundle:
        report = verify(bundle.ledger)
        assert report.sound
        assert report.conclusion.endswith("Withheld from this copy: 1 texts or blobs")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("trial:99", "no trial 99"),
        ("trial:other/1", "no trial 1 of campaign 'other'"),
        ("trial:x", "expected one of trial:N"),
        ("trial:/1", "expected one of trial:N"),
        ("field:actor", "expected a redactable field"),
        ("blob:" + "0" * 64, "no blob"),
        ("blob:x", "expected one of trial:N"),
        ("everything", "expected one of trial:N"),
        ("", "expected one of trial:N"),
    ],
)
def test_a_wish_that_means_nothing_is_refused(ledger: Path, key: SigningKey, wish: str, message: str) -> None:
    with pytest.raises(RedactionError, match=message):
        made(ledger, key, wish)
    assert not [path.name for path in ledger.parent.iterdir() if "bundle" in path.name]


def test_nothing_is_overwritten_and_nothing_left_behind(ledger: Path, key: SigningKey) -> None:
    target = ledger.with_name("toy.bundle")
    target.write_text("mine")
    with pytest.raises(LedgerError, match="expected no file"):
        made(ledger, key)
    assert target.read_text() == "mine"
    target.unlink()
    made(ledger, key)
    assert not [path.name for path in ledger.parent.iterdir() if path.name.endswith(".new")]


def rewritten(bundle: Path, change: Callable[[dict[str, bytes]], None], honest_sums: bool = True) -> Path:
    """The bundle with its members changed, and checksums to match."""
    with zipfile.ZipFile(bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    if honest_sums and MANIFEST in members:
        said = json.loads(members[MANIFEST])
        sums = {name: sha256(members.get(name, b"")).hexdigest() for name in (LEDGER, HEAD)}
        members[MANIFEST] = json.dumps({**said, "sha256": sums}).encode()
    target = bundle.with_name("hostile.bundle")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target


def test_a_ledger_exchanged_inside_is_found_by_the_audit(ledger: Path, key: SigningKey) -> None:
    def change(members: dict[str, bytes]) -> None:
        members[LEDGER] = members[LEDGER].replace(b"toy-1", b"toy-9")

    with unpacked(rewritten(made(ledger, key), change)) as bundle:
        assert not verify(bundle.ledger).sound
    with (
        pytest.raises(BundleError, match="calculated"),
        unpacked(rewritten(made(ledger, key, name="b"), change, False)),
    ):
        pass


HOSTILE: dict[str, Callable[[dict[str, bytes]], None]] = {
    "a path upwards": lambda members: members.update({"../evil": b"x"}),
    "an absolute path": lambda members: members.update({"/tmp/evil": b"x"}),
    "a member too many": lambda members: members.update({"more": b"x"}),
    "no ledger": lambda members: members.__delitem__(LEDGER),
    "no manifest": lambda members: members.__delitem__(MANIFEST),
    "a bomb": lambda members: members.update({LEDGER: bytes(300 * 2**20)}),
    "a huge manifest": lambda members: members.update({HEAD: os.urandom(2**17)}),
    "a note that is none": lambda members: members.update({HEAD: b"hello\n"}),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_members_are_refused(ledger: Path, key: SigningKey, change: Callable[[dict[str, bytes]], None]) -> None:
    target = rewritten(made(ledger, key), change)
    with pytest.raises(BundleError), unpacked(target):
        pass
    assert not (ledger.parent / "evil").exists()


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"format": "labtrail-bundle/9"}'])
def test_a_manifest_that_is_none_is_refused(ledger: Path, key: SigningKey, manifest: bytes) -> None:
    def change(members: dict[str, bytes]) -> None:
        members[MANIFEST] = manifest

    with pytest.raises(BundleError), unpacked(rewritten(made(ledger, key), change, honest_sums=False)):
        pass


def test_a_member_twice_is_refused(ledger: Path, key: SigningKey) -> None:
    target = made(ledger, key)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(target, "a") as archive:
            archive.writestr(LEDGER, b"another")
    with pytest.raises(BundleError, match="expected the members"), unpacked(target):
        pass


@pytest.mark.slow
def test_no_damage_gives_anything_but_a_bundle_error(ledger: Path, key: SigningKey) -> None:
    target = made(ledger, key)
    raw = target.read_bytes()
    for position in [*range(0, len(raw), 211), *range(len(raw) - 300, len(raw), 3)]:
        for damaged in (raw[:position], raw[:position] + bytes([raw[position] ^ 0x40]) + raw[position + 1 :]):
            target.write_bytes(damaged)
            try:
                with unpacked(target) as bundle:
                    assert verify(bundle.ledger).sound, "what unpacks has the checksums of its manifest"
            except BundleError:
                continue


class Desk:
    """A folder, a home, and the two programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LABTRAIL_HOME": str(self.folder / "home")}
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.mark.slow
def test_a_bundle_is_made_here_and_verified_elsewhere(ledger: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    done = desk.run("labtrail", "export", "--bundle", "a.bundle", "--redact", "trial:2", "--ledger", "toy.db")
    assert done.returncode == 0, done.stderr
    assert "withheld: " in done.stdout
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "a.bundle").rename(elsewhere / "a.bundle")
    (tmp_path / "home" / "log.pub").rename(elsewhere / "log.pub")
    for path in tmp_path.glob("toy.db*"):
        path.unlink()
    there = Desk(elsewhere)
    alone = there.run("audit.cli", "verify", "a.bundle")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    assert "whose key signed the head: the bundle itself names it" in alone.stdout
    pinned = there.run("audit.cli", "verify", "a.bundle", "--key", "log.pub")
    assert pinned.returncode == 0, pinned.stdout + pinned.stderr
    assert "whose key signed the head" not in pinned.stdout
    assert "hypothesis of hypothesis_proposed: withheld" in pinned.stdout
    there.run("labtrail", "keygen", "other.key", "--name", "labtrail-log")
    refused = there.run("audit.cli", "verify", "a.bundle", "--key", "other.pub")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1


def test_a_broken_bundle_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04" + os.urandom(50))
    refused = Desk(tmp_path).run("audit.cli", "verify", "x")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
