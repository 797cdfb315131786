"""One process tree of untrusted code: confined, clocked, watched, and ended to its last process.

Isolation tier "process". It covers
- time: wall clock and CPU from the fork to the end; the tree is killed at its wall budget;
- memory, number of processes and log: looked at every 50 ms (the log at every byte), the tree is killed above them;
- what is left behind: daemons, double forks and new sessions are found through the subreaper and killed before
  the facts are told, so that no process of a recipe outlives it;
- the environment (an allow list), open files (none but the three standard ones), setuid programs (not honoured),
  size of a single file, core dumps;
- the death of whoever started it: the tree goes with the warm process, the warm process with the supervisor.

It does not cover, because recipe and supervisor are the same user on the same machine
- reading: every file that this user can read, hidden data and keys included, unless their mode forbids it;
- writing: every folder that this user can write, /tmp and /dev/shm included, which carry notes from run to run;
- signals: a recipe may kill its supervisor (the run is then an infrastructure failure) or any process of this user;
- the network, the GPU, the machine's other load, total disk space, memory in unmapped files of /dev/shm;
- CPU of processes that live for less than 50 ms and whose parent refuses to wait for them;
- a recipe that kills the warm process and disguises its daemons' environment;
- attacks on the kernel.
"""

import contextlib
import ctypes
import math
import os
import resource
import select
import signal
import time
from dataclasses import dataclass

MARK = "LABTRAIL_RUNNER"
"""Environment variable that every process of one warm process inherits."""
FILE_BYTES = 1 << 30
"""Largest file that a recipe may write."""
OPEN_FILES = 4096
SAMPLE_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38


@dataclass(frozen=True)
class Limits:
    """What one process tree may use."""

    wall_s: float
    memory_bytes: int
    log_bytes: int
    processes: int
    threads: int


@dataclass(frozen=True)
class Facts:
    """The fields of `ledger.events.ProcessFacts`, which would bring other libraries into the recipe's interpreter."""

    exit_code: int | None
    signal: int | None
    killed_for: str | None
    wall_s: float
    cpu_s: float
    max_rss_bytes: int
    log_bytes: int


class Stopped(Exception):
    """The supervisor is gone or wants no result; the tree has been ended."""


def adopt() -> None:
    """Make this process the parent of all its orphans, and closed to debuggers and /proc readers of the same user."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_DUMPABLE, 0)


def confine(limits: Limits, parent: int, folder: str, log: int) -> None:
    """Turn this fresh child of `parent` into a confined one in `folder`. Raises OSError.

    Files other than the standard ones stay open: the caller closes them when it has nothing more to tell.
    """
    os.setsid()
    _prctl(_PR_SET_DUMPABLE, 1)
    # A setuid program could not be killed by this user.
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the kernel knew whose death to watch
    # Where memory runs out, the kernel takes the recipe and not the books.
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    os.chdir(folder)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    # The budget of CPU is the budget of wall clock on every thread; the hard limit comes a second after the signal.
    cpu_s = math.ceil(limits.wall_s * limits.threads) + 1
    _limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES, FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0, 0)
    # The kernel counts this limit over all processes of the user and does not apply it to root: it stops a
    # fork bomb from taking the machine between two looks, and the looks keep the budget.
    tasks = _tasks() + 16 * limits.processes * limits.threads + 1024
    _limit(resource.RLIMIT_NPROC, tasks, tasks)


def watch(main: int, started_s: float, limits: Limits, log: int, stops: tuple[int, ...]) -> tuple[Facts, bytes]:
    """Facts and log of the tree below `main`, a child of this process; on return the tree is gone, also on an error.

    `log` is the reading end of a pipe whose writing end this process holds open too. Raises Stopped as soon as one
    of the files `stops` has something to say.
    """
    tree, output = _Tree(main), _Output(log, limits.log_bytes)
    pidfd = os.pidfd_open(main)
    try:
        killed_for = _wait(tree, output, pidfd, started_s, limits, stops)
        ended_s = time.monotonic()
    finally:
        os.close(pidfd)
        tree.end()
    output.drain()
    assert tree.status is not None
    code = os.waitstatus_to_exitcode(tree.status)
    if output.over:
        killed_for = killed_for or "log"
    elif code == -signal.SIGXCPU:
        killed_for = killed_for or "cpu"
    facts = Facts(
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        killed_for=killed_for,
        wall_s=ended_s - started_s,
        cpu_s=tree.cpu_s,
        max_rss_bytes=tree.max_rss_bytes,
        log_bytes=output.seen_bytes,
    )
    return facts, bytes(output.kept)


def _wait(
    tree: "_Tree", output: "_Output", pidfd: int, started_s: float, limits: Limits, stops: tuple[int, ...]
) -> str | None:
    """Return when the main process has ended, or with the budget that the tree has passed."""
    poller = select.poll()
    for descriptor in (pidfd, output.descriptor, *stops):
        poller.register(descriptor, select.POLLIN)
    deadline_s, sample_s = started_s + limits.wall_s, started_s + SAMPLE_S
    while True:
        wait_s = min(deadline_s, sample_s) - time.monotonic()
        ready = {descriptor for descriptor, _ in poller.poll(max(0, math.ceil(wait_s * 1000)))}
        if pidfd in ready:
            tree.reap()
        if tree.status is not None:
            return None
        if ready.intersection(stops):
            raise Stopped
        if output.descriptor in ready:
            output.read()
        now_s = time.monotonic()
        if output.over:
            return "log"
        if now_s >= deadline_s:
            return "wall"
        if now_s >= sample_s:
            sample_s = now_s + SAMPLE_S
            if passed := tree.sample(limits):
                return passed


class _Output:
    """The log of a tree: kept up to its budget, counted beyond."""

    def __init__(self, descriptor: int, budget_bytes: int) -> None:
        self.descriptor, self._budget_bytes = descriptor, budget_bytes
        self.kept, self.seen_bytes = bytearray(), 0
        os.set_blocking(descriptor, False)

    @property
    def over(self) -> bool:
        return self.seen_bytes > self._budget_bytes

    def read(self) -> bool:
        """Take what the pipe holds, up to a chunk; whether there was anything."""
        try:
            chunk = os.read(self.descriptor, 1 << 16)
        except BlockingIOError:
            return False
        self.seen_bytes += len(chunk)
        self.kept += chunk[: self._budget_bytes - len(self.kept)]
        return bool(chunk)

    def drain(self) -> None:
        while self.read():
            pass


class _Tree:
    """Every process below this one: there is one recipe at a time, and its orphans come back here."""

    def __init__(self, main: int) -> None:
        self._main = main
        self.status: int | None = None
        self.max_rss_bytes = 0
        self._reaped_cpu_s = 0.0
        self._seen_cpu_s: dict[tuple[int, int], float] = {}

    @property
    def cpu_s(self) -> float:
        """What the dead used; or what the looks saw, where a parent that ignores its children hides them."""
        return max(self._reaped_cpu_s, sum(self._seen_cpu_s.values()))

    def reap(self) -> bool:
        """Collect the dead; whether any process is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._reaped_cpu_s += usage.ru_utime + usage.ru_stime
            self.max_rss_bytes = max(self.max_rss_bytes, usage.ru_maxrss * 1024)
            if pid == self._main:
                self.status = status

    def sample(self, limits: Limits) -> str | None:
        """Look at the tree; the name of the budget that it has passed."""
        self.reap()
        pids = descendants(os.getpid())
        rss_bytes = 0
        for pid in pids:
            try:
                rss_bytes += _rss_bytes(pid)
                started, cpu_s = _start_and_cpu(pid)
            except OSError:
                continue
            self._seen_cpu_s[pid, started] = cpu_s
        if rss_bytes > limits.memory_bytes:
            # Resident sizes count a page once a process, and the warm process's pages in all of them. The kernel's
            # proportional sizes do not, but it walks the page tables for them: asked only where it matters.
            rss_bytes = sum(map(_proportional_bytes, pids))
        self.max_rss_bytes = max(self.max_rss_bytes, rss_bytes)
        if rss_bytes > limits.memory_bytes:
            return "memory"
        return "processes" if len(pids) > limits.processes else None

    def end(self) -> None:
        """Kill until the kernel says that no child is left; an orphan's orphan is a child in the next round."""
        while self.reap():
            for pid in descendants(os.getpid()):
                _kill(pid)
            time.sleep(0.0005)


def descendants(root: int) -> list[int]:
    """Processes below `root`, parents first. A snapshot: what forks meanwhile is found by the next one."""
    found = [root]
    for pid in found:
        try:
            for task in os.scandir(f"/proc/{pid}/task"):
                with open(f"{task.path}/children") as file:
                    found += map(int, file.read().split())
        except OSError:
            continue
    return found[1:]


def sweep(mark: str) -> None:
    """Kill every process whose environment carries `mark`: for when a warm process died before its recipe did."""
    sought = f"{MARK}={mark}".encode()
    for _ in range(100):
        pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
        found = [pid for pid in pids if sought in _environment(pid)]
        if not found:
            return
        for pid in found:
            _kill(pid)
        time.sleep(0.01)


def _environment(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _rss_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES


def _proportional_bytes(pid: int) -> int:
    """The process's pages, each divided by the number of processes that share it."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except ProcessLookupError:
        return 0
    except OSError:
        pass
    # A process may close its maps to others of its user; its resident size stays open.
    try:
        return _rss_bytes(pid)
    except OSError:
        return 0


def _start_and_cpu(pid: int) -> tuple[int, float]:
    """Start time in ticks, and CPU seconds without those of children (proc(5), fields 22, 14 and 15 of stat)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    return int(fields[19]), (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


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


def _prctl(option: int, value: int) -> None:
    # The kernel reads whole registers and refuses rubbish in the unused ones.
    arguments = [ctypes.c_ulong(number) for number in (value, 0, 0, 0)]
    if ctypes.CDLL(None, use_errno=True).prctl(option, *arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
