"""Disks that fail: a file-size limit, and strace that makes the n-th system call fail or kills the process in it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ledger import checkpoint
from ledger.keys import SigningKey
from ledger.log import EventLog
from tests.test_ledger import check_whole, drafts

# Appends batches with known ids, says each one that was acknowledged, and ends quietly at the first error.
APPENDER = """
import resource, signal, sys
from pathlib import Path
from ledger.events import CorrectionRecorded, Draft
from ledger.log import EventLog, LedgerError
path, batches, limit = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
body = CorrectionRecorded(target=0, author="a", reason="r", statement="x" * 400)
log = EventLog.open(path)
log.connection.execute("PRAGMA wal_autocheckpoint = 3")
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
start = log.size
print("open", flush=True)
for number in range(start, start + batches):
    drafts = [Draft(body, "person:p", id=f"{number}-{part}", blobs=(b"%d" % number,)) for part in range(2)]
    try:
        log.append(drafts)
    except LedgerError as error:
        print("refused", error, flush=True)
        break
    print("acknowledged", number, flush=True)
log.close()
"""


def appender(path: Path, batches: int, limit: int = 0) -> list[str]:
    return [sys.executable, "-c", APPENDER, str(path), str(batches), str(limit)]


def check_after(path: Path, before: int, output: str) -> None:
    """Every acknowledged batch is there, no half batch is, and the ledger is whole and takes more."""
    acknowledged = re.findall(r"^acknowledged (\d+)$", output, re.MULTILINE)
    with EventLog.open(path) as log:
        stored = [event.id for event in log.events(before)]
        expected = [f"{number}-{part}" for number in acknowledged for part in range(2)]
        assert stored[: len(expected)] == expected, "an acknowledged event was lost"
        assert len(stored) - len(expected) in (0, 2), "a batch was split"
        check_whole(log)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    EventLog.create(path).close()
    return path


def test_a_file_size_limit_is_a_clear_error_and_loses_nothing(path: Path) -> None:
    limit = path.stat().st_size + 40_000
    result = subprocess.run(appender(path, 1000, limit), capture_output=True, text=True, check=False)
    assert "acknowledged" in result.stdout
    assert "refused" in result.stdout, result.stderr
    assert "nothing was acknowledged; append the same ids again" in result.stdout
    check_after(path, 0, result.stdout)
    more = subprocess.run(appender(path, 3), capture_output=True, text=True, check=True)
    assert more.stdout.count("acknowledged") == 3, "with room again the log goes on"


FAULTS = [
    (call, fault)
    for call in ("pwrite64", "fdatasync", "fsync", "openat", "ftruncate", "unlink")
    for fault in ("error=EIO", "error=ENOSPC", "signal=KILL")
]


@pytest.mark.slow
@pytest.mark.parametrize(("call", "fault"), FAULTS)
def test_no_failing_system_call_loses_an_acknowledged_event(path: Path, call: str, fault: str) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    hits = 0
    # Calls that name other files are let through: only the ledger's own calls fail, the n-th of them in turn n.
    for turn in range(1, 13):
        with EventLog.read_only(path) as log:
            before = log.size
        watch = [part for suffix in ("", "-wal", "-shm") for part in ("-P", f"{path}{suffix}")]
        command = [strace, "-f", "-qq", "-o", "/dev/null", *watch, "-e", f"trace={call}"]
        command += ["-e", f"inject={call}:{fault}:when={turn}"]
        result = subprocess.run([*command, *appender(path, 4)], capture_output=True, text=True, check=False)
        if "ptrace" in result.stderr and "not permitted" in result.stderr:
            pytest.skip("strace may not trace here")
        hits += result.stdout.count("acknowledged") < 4
        check_after(path, before, result.stdout)
    print(f"{call} {fault}: {hits} of 12 turns stopped the appender")


# Draft names are known, so that strace can be told which files' calls are to fail.
SIGNER = """
import secrets, sys
from pathlib import Path
secrets.token_hex = lambda length=None: sys.argv[2]
from ledger import checkpoint
from ledger.keys import SigningKey
from ledger.log import EventLog
path = Path(sys.argv[1])
with EventLog.read_only(path) as log:
    checkpoint.sign(log, SigningKey.load(path.with_name("log.key")))
print("done")
"""
COPIER = """
import secrets, sys
from pathlib import Path
secrets.token_hex = lambda length=None: sys.argv[2]
from ledger.backup import backup
path = Path(sys.argv[1])
backup(path, path.with_name("copy.db"))
print("done")
"""
CALLS = "write,pwrite64,fsync,fdatasync,openat,rename,renameat,renameat2,link,linkat,ftruncate,unlink"


class Traced:
    """A program on the ledger whose system calls on some files are counted, or made to fail."""

    def __init__(self, program: str, path: Path, files: tuple[str, ...]) -> None:
        self.program, self.path, self.files, self.turn = program, path, files, 0

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Under strace; `{turn}` in the name of a file is the turn's own."""
        self.turn += 1
        watch = [part for name in self.files for part in ("-P", str(self.path.with_name(name.format(turn=self.turn))))]
        command = ["strace", "-f", "-qq", *watch, *options, sys.executable, "-c", self.program]
        done = subprocess.run([*command, str(self.path), str(self.turn)], capture_output=True, text=True, check=False)
        if "ptrace" in done.stderr and "not permitted" in done.stderr:
            pytest.skip("strace may not trace here")
        return done

    def calls(self) -> dict[str, int]:
        """How often the program makes each call on the files."""
        trace = self.path.with_name("trace")
        done = self.run("-o", str(trace), "-e", f"trace={CALLS}")
        assert done.stdout == "done\n", done.stderr
        names = re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE)
        return {name: names.count(name) for name in names}


def faults(counted: dict[str, int]) -> list[tuple[str, str, int]]:
    """(call, fault, n): the first and last few of each call, each with every fault."""
    turns = {call: sorted({*range(1, min(count, 3) + 1), count}) for call, count in counted.items()}
    kinds = ("error=EIO", "error=ENOSPC", "signal=KILL")
    return [(call, fault, n) for call, places in turns.items() for n in places for fault in kinds]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_failing_system_call_leaves_a_broken_checkpoint(path: Path) -> None:
    key = SigningKey.create(path.with_name("log.key"), "example.org/log")
    note = checkpoint.sidecar(path)
    traced = Traced(SIGNER, path, (note.name, f"{note.name}.{{turn}}.new"))
    with EventLog.open(path) as log:
        log.append(drafts(3))
    counted = traced.calls()
    assert {"write", "fsync", "openat"} <= counted.keys()
    assert counted.keys() & {"rename", "renameat", "renameat2"}
    stopped = 0
    for call, fault, n in faults(counted):
        with EventLog.open(path) as log:
            log.append(drafts(2))
            size = log.size
        before = note.read_bytes()
        done = traced.run("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={n}")
        stopped += done.stdout != "done\n"
        with EventLog.read_only(path) as log:
            found = checkpoint.verified(checkpoint.read(note), key.verifier)
            checkpoint.extends(log, found)
            check_whole(log)
            assert log.size == size
        assert note.read_bytes() == before or found.size == size, (call, fault, n)
        assert done.stdout != "done\n" or found.size == size, "a checkpoint was acknowledged and is not there"
    assert stopped, "no fault hit the signer"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_failing_system_call_leaves_a_broken_backup(path: Path) -> None:
    copy = path.with_name("copy.db")
    drafts_of_copy = tuple(f"copy.db.{{turn}}.new{suffix}" for suffix in ("", "-journal", "-wal", "-shm"))
    traced = Traced(COPIER, path, ("copy.db", *drafts_of_copy))
    with EventLog.open(path) as log:
        log.append(drafts(600))
        head = log.head()
    counted = traced.calls()
    copy.unlink()
    assert {"pwrite64", "openat"} <= counted.keys()
    assert counted.keys() & {"fsync", "fdatasync"}
    assert counted.keys() & {"link", "linkat"}
    stopped = 0
    for call, fault, n in faults(counted):
        done = traced.run("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={n}")
        stopped += done.stdout != "done\n"
        assert copy.exists() or done.stdout != "done\n", "a backup was acknowledged and is not there"
        for whole in (path, *([copy] if copy.exists() else [])):
            with EventLog.read_only(whole) as log:
                check_whole(log)
                assert log.head() == head, (call, fault, n)
        for left in path.parent.glob("copy.db*"):
            left.unlink()
    assert stopped, "no fault hit the backup"
