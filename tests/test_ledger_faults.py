"""Disks that fail: a file-size limit, and strace that makes the n-th system call fail or kills the process in it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ledger.log import EventLog
from tests.test_ledger import check_whole

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
