"""A tree of recipe processes: clocked, watched, and ended to its last process."""

import contextlib
import math
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from runners.namespaces import Keeper
from runners.sandbox import Limits

MARK = "LABTRAIL_RUNNER"
"""Environment variable that every process of one warm process inherits."""
SAMPLE_S = 0.05
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


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
    written_bytes: int | None
    waited_s: float | None


class Stopped(Exception):
    """The supervisor is gone or wants no result; the tree has been ended."""


@dataclass(frozen=True)
class Place:
    """Where a tree runs, beside the processes that hold no recipe code."""

    keeper: Keeper | None
    """The first process of its room; none in tier "process"."""
    nursery: int | None
    written_bytes: Callable[[], int | None]
    """Bytes that this process and all its dead children have written so far."""


def watch(
    main: int, place: Place, started_s: float, limits: Limits, log: int, stops: tuple[int, ...]
) -> tuple[Facts, bytes]:
    """Facts and log of the tree below `main`, a child of this process; on return the tree is gone, also on an error.

    `log` is the reading end of a pipe whose writing end this process holds open too. Raises Stopped as soon as one
    of the files `stops` has something to say.
    """
    tree, output = _Tree(main, place), _Output(log, limits.log_bytes)
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
        written_bytes=tree.written_bytes,
        waited_s=tree.waited_s,
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
            tree.note_waiting()
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
    """Every process of the one recipe that runs: below this process, and in the room where there is one."""

    def __init__(self, main: int, place: Place) -> None:
        self._main, self._keeper, self._written = main, place.keeper, place.written_bytes
        self._not_recipe = {place.nursery, place.keeper.pid if place.keeper else None}
        self._written_before = place.written_bytes()
        self.status: int | None = None
        self.max_rss_bytes = 0
        self.waited_s: float | None = None
        """How long the main thread was ready to run and had no core (proc(5), schedstat)."""
        self._room_is_open = place.keeper is not None
        self._reaped_cpu_s = 0.0
        self._seen_cpu_s: dict[tuple[int, int], float] = {}

    @property
    def cpu_s(self) -> float:
        """What the dead used; or what the looks saw, where a parent that ignores its children hides them."""
        return max(self._reaped_cpu_s, sum(self._seen_cpu_s.values()))

    @property
    def written_bytes(self) -> int | None:
        """What the dead wrote to storage; none where the kernel does not count it."""
        now = self._written()
        return None if now is None or self._written_before is None else now - self._written_before

    def note_waiting(self) -> None:
        """Of the main process while it is there, if only as a zombie."""
        with contextlib.suppress(OSError, IndexError), open(f"/proc/{self._main}/schedstat") as file:
            self.waited_s = int(file.read().split()[1]) / 1e9

    def reap(self) -> bool:
        """Collect the dead; whether any process is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return self._keeper is None or self.status is None or self._room_is_open
            self._reaped_cpu_s += usage.ru_utime + usage.ru_stime
            if self._keeper is not None and pid == self._keeper.pid:
                # With it, all its orphans: it is waited for after everything in its room.
                self._reaped_cpu_s -= self._keeper.setup_cpu_s
                self._room_is_open = False
                continue
            self.max_rss_bytes = max(self.max_rss_bytes, usage.ru_maxrss * 1024)
            if pid == self._main:
                self.status = status

    def sample(self, limits: Limits) -> str | None:
        """Look at the tree; the name of the budget that it has passed."""
        self.reap()
        pids = [pid for pid in descendants(os.getpid()) if pid not in self._not_recipe]
        rss_bytes, written_bytes = 0, self.written_bytes or 0
        for pid in pids:
            try:
                rss_bytes += _rss_bytes(pid)
                started, cpu_s = _start_and_cpu(pid)
                written_bytes += _written_bytes(pid)
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
        if written_bytes > limits.written_bytes:
            return "disk"
        return "processes" if len(pids) > limits.processes else None

    def end(self) -> None:
        """Kill until the kernel says that no child is left; an orphan's orphan is a child in the next round."""
        while self.reap():
            if self._keeper is None:
                for pid in descendants(os.getpid()):
                    _kill(pid)
            elif self._room_is_open:
                # The kernel ends everything in the room with its first process.
                _kill(self._keeper.pid)
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


def _written_bytes(pid: int) -> int:
    """Bytes that a process and the children it waited for have sent towards storage (proc(5), io)."""
    with open(f"/proc/{pid}/io") as file:
        return written_of(file.read())


def written_of(text: str) -> int:
    """The field `write_bytes` of /proc/PID/io."""
    return int(text.partition("\nwrite_bytes: ")[2].partition("\n")[0])
