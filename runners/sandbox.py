"""One process of untrusted code, confined; what each tier of isolation covers and what it does not.

Tier "process" covers, on every Linux
- time: wall clock and CPU from the fork to the end; the tree is killed at its wall budget;
- memory, bytes written, number of processes and log: looked at every 50 ms (the log at every byte), the tree is
  killed above them; one process cannot take more than twice the memory budget between two looks;
- what is left behind: daemons, double forks and new sessions are found through the subreaper and killed before
  the facts are told, so that no process of a recipe outlives it;
- the environment (an allow list), open files (none but the three standard ones), setuid programs (not honoured),
  size of a single file, core dumps;
- the death of whoever started it: the tree goes with the warm process, the warm process with the supervisor.

It does not cover, because recipe and supervisor are the same user on the same machine
- reading: every file that this user can read, hidden data and keys included, unless their mode forbids it;
- writing: every folder that this user can write, /tmp and /dev/shm included, which carry notes from run to run;
- signals: a recipe may kill its supervisor or any process of this user; where it kills or stops the warm process,
  that is its own crash, and no second run of the seed;
- the network, the GPU, the machine's other load, memory in unmapped files of /dev/shm;
- CPU of processes that live for less than 50 ms and whose parent refuses to wait for them;
- a recipe that kills the warm process and disguises its daemons' environment;
- attacks on the kernel.

Tier "namespaces" covers all of the first list, and
- reading: the recipe sees the system's programs and libraries, Python, its own workspace and the data handed to it,
  and nothing else: no hidden data, key, ledger, home, other run, other process, /sys or device beyond the plain ones;
- writing: its workspace, which is gone after the process, and /tmp and /dev/shm of its own, of 64 MiB each;
- signals, ptrace and /proc: processes of its own room only; the room's first process cannot be killed from inside,
  and everything else in the room dies with it, whatever its session, parent or environment;
- the network: no interface is up, no address resolves, no socket of another family can be made, abstract unix sockets
  of the machine are not there;
- privileges: an unprivileged user where the supervisor is root, no capability, no setuid, no new namespace or mount,
  none of the system calls of `runners.seccomp`;
- CPU of all processes, also of those that nobody waits for.

It does not cover
- attacks on the kernel or the processor; what /proc tells of the machine's load;
- the machine's other load; memory bandwidth and caches are shared;
- GPUs that the task asks for: their memory and driver are shared with whoever else uses them;
- disk space between two looks (50 ms of writing), and inodes of the workspace's file system.
"""

import math
import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

from runners.kernel import prctl

FILE_BYTES = 1 << 30
"""Largest file that a recipe may write."""
OPEN_FILES = 4096
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38


@dataclass(frozen=True)
class Limits:
    """What one process tree may use."""

    wall_s: float
    memory_bytes: int
    log_bytes: int
    written_bytes: int
    processes: int
    threads: int


def adopt() -> None:
    """Make this process the parent of all its orphans, and closed to debuggers and /proc readers of the same user."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    prctl(_PR_SET_DUMPABLE, 0)


def confine(limits: Limits, parent: int, log: int, own_user: bool) -> None:
    """Turn this fresh child into a confined one that dies with `parent`, its parent as it sees it. Raises OSError.

    `own_user`: whether it will be a user that nobody else is. Files other than the standard ones stay open: the
    caller closes them when it has nothing more to tell.
    """
    os.setsid()
    prctl(_PR_SET_DUMPABLE, 1)
    # A setuid program could not be killed by this user.
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # Where memory runs out, the kernel takes the recipe and not the books.
    Path("/proc/self/oom_score_adj").write_text("1000")
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    # The budget of CPU is the budget of wall clock on every thread; the hard limit comes a second after the signal.
    cpu_s = math.ceil(limits.wall_s * limits.threads) + 1
    _limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES, FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0, 0)
    # What it has of its parent's is not the recipe's; the looks keep the budget of the tree.
    data_bytes = _data_bytes() + 2 * limits.memory_bytes
    _limit(resource.RLIMIT_DATA, data_bytes, data_bytes)
    # The kernel counts this limit over all processes of the user and does not apply it to root: it stops a
    # fork bomb from taking the machine between two looks, and the looks keep the budget.
    tasks = 16 * limits.processes * limits.threads + (0 if own_user else _tasks() + 1024)
    _limit(resource.RLIMIT_NPROC, tasks, tasks)
    die_with(parent)


def die_with(parent: int) -> None:
    """End this process at the death of its parent, and now where that is dead. To be said anew as another user."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the kernel knew whose death to watch


def _data_bytes() -> int:
    """Writable private memory of this process (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")


def _tasks() -> int:
    """Threads on this machine now (proc(5), loadavg)."""
    with open("/proc/loadavg") as file:
        return int(file.read().split()[3].partition("/")[2])


def _limit(kind: int, soft: int, hard: int) -> None:
    """Lower a limit; one that is lower already stays."""
    current = resource.getrlimit(kind)[1]
    if current != resource.RLIM_INFINITY:
        soft, hard = min(soft, current), min(hard, current)
    resource.setrlimit(kind, (soft, hard))
