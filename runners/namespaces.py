"""A room for one recipe process: namespaces of its own, and a file system that holds what it may see."""

import contextlib
import gc
import json
import os
import pwd
import select
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any, NoReturn

from runners.kernel import (
    BIND,
    NEW_CGROUP,
    NEW_IPC,
    NEW_NET,
    NEW_NS,
    NEW_PID,
    NEW_USER,
    NEW_UTS,
    NO_DEV,
    NO_EXEC,
    NO_SUID,
    PRIVATE,
    READ_ONLY,
    RECURSIVE,
    bound_capabilities,
    clear_capabilities,
    detach,
    enter,
    mount,
    pivot_root,
    prctl,
    restrict,
    unshare,
)

ROOMS = ("ledger", "evaluators", "runners", "agents", "audit")
"""This program's own packages: a task's measuring code says how hidden data are made."""
USERS = range(61184, 65184)
"""Who recipes are where the supervisor is root: of the range that systemd gives to services of a moment."""
WORKSPACE, DATA = "/workspace", "/data"
"""Where a recipe finds its own folder, and the data handed to it."""
SCRATCH_BYTES = 64 << 20
"""Size of /tmp, and of /dev/shm: memory beside the budget of the processes."""
_KINDS = NEW_NS | NEW_NET | NEW_IPC | NEW_UTS | NEW_CGROUP
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives", "/etc/ld.so.cache")
_PROCESSORS = ("/sys/devices/system/cpu", "/sys/devices/system/node")
_SCRATCH = ("/tmp", "/dev/shm")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_PR_SET_DUMPABLE = 4


@dataclass(frozen=True)
class Keeper:
    """The first process of a room, which holds no recipe code; the room ends with it."""

    pid: int
    pidfd: int
    setup_cpu_s: float


class RoomError(Exception):
    """The kernel or the layout of this machine does not allow a room; the message says what."""


def installation(package: str) -> tuple[str, ...]:
    """Folders of the system and of Python that every recipe may read."""
    prefixes = (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)
    libraries = [path for path in sys.path if path and Path(path).is_dir() and Path(path) != Path(package)]
    loaded = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return tuple(path for path in (*_SYSTEM, *_PROCESSORS, *prefixes, *libraries, *loaded) if path.startswith("/"))


def check_apart(workspace: str, shown: Iterable[str]) -> None:
    """Raises RoomError where a folder that every recipe may read holds the workspace, and so perhaps the ledger."""
    for path in shown:
        if is_below(workspace, path):
            raise RoomError(f"{workspace} lies in {path}, which every recipe may read: keep the ledger elsewhere")


def shown_folders(package: str) -> tuple[str, ...]:
    """`installation`, without links. Raises RoomError where that would show the user's home."""
    # A user without an entry, as containers have them, has no home.
    home = next((os.path.realpath(entry.pw_dir) for entry in pwd.getpwall() if entry.pw_uid == os.getuid()), "")
    shown = tuple(os.path.realpath(path) for path in installation(package) if path.startswith("/"))
    for path in shown:
        if is_below(home, path) and path not in _SYSTEM:
            raise RoomError(f"the home {home} lies in {path}, which every recipe may read: install Python elsewhere")
    return shown


def become_mapped_user() -> None:
    """Where this process is not root: be the same user in a user namespace, with capabilities there only."""
    if os.geteuid() == 0:
        return
    user, group = os.geteuid(), os.getegid()
    unshare(NEW_USER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


class Nursery:
    """A small process that builds rooms, forked before large libraries make forking slow."""

    def __init__(self, shown: Iterable[str], devices: Iterable[str], user: int) -> None:
        """Fork it; it ends when this process ends. Every room shows `shown` and `devices`, and belongs to `user`
        where this process is root."""
        life_end, self._life = os.pipe()
        self._channel, channel_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                close_all_but({0, 1, 2, channel_end.fileno(), life_end})
                _serve(channel_end, life_end, (*shown,), (*devices,), user)
            finally:
                os._exit(1)
        channel_end.close()
        os.close(life_end)
        self._receive()

    def build(self, workspace: str, data: str | None) -> Keeper:
        """A room with its keeper, a child of this process: `workspace` is WORKSPACE there, `data` is DATA.

        Raises RoomError.
        """
        self._channel.send(json.dumps([workspace, data]).encode())
        told: dict[str, Any] = {}
        while not {"pid", "cpu_s"} <= told.keys():
            told |= self._receive()
        return Keeper(told["pid"], os.pidfd_open(told["pid"]), told["cpu_s"])

    def _receive(self) -> dict[str, Any]:
        message = self._channel.recv(1 << 12)
        told: dict[str, Any] = json.loads(message) if message else {"error": "the process that builds rooms is gone"}
        if "error" in told:
            raise RoomError(told["error"])
        return told


def enter_room(keeper: Keeper, user: int) -> None:
    """Take this process, forked after `enter(keeper.pidfd, NEW_PID)`, into the room, without a privilege left."""
    enter(keeper.pidfd, _KINDS)
    bound_capabilities()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    clear_capabilities()
    # Files below /proc/self belong to the user of the process only where it may be dumped.
    prctl(_PR_SET_DUMPABLE, 1)


def close_all_but(kept: Iterable[int]) -> None:
    """Close every other file of this process."""
    wanted = set(kept)
    for link in list(Path("/proc/self/fd").iterdir()):
        if int(link.name) not in wanted:
            # The listing's own descriptor is gone already.
            with contextlib.suppress(OSError):
                os.close(int(link.name))


def _serve(channel: socket.socket, life: int, shown: tuple[str, ...], devices: tuple[str, ...], user: int) -> None:
    wanted = sorted({os.path.normpath(path) for path in shown if path.startswith("/")}, key=len)
    sources = {path: os.path.realpath(path) for path in wanted}
    # A room's own /tmp would hide what is installed below it: that is placed room by room.
    late = {path: source for path, source in sources.items() if any(is_below(path, scratch) for scratch in _SCRATCH)}
    try:
        unshare(NEW_NS)
        _furnish({path: source for path, source in sources.items() if path not in late}, devices, user)
    except Exception as error:  # the process boundary: the warm process raises it
        _tell(channel, error=f"{type(error).__name__}: {error}")
        return
    # Each fork would otherwise copy the pages that the collector writes to.
    gc.collect()
    gc.freeze()
    _tell(channel)
    while request := channel.recv(1 << 14):
        workspace, data = json.loads(request)
        pid = os.fork()
        if pid == 0:
            _open_room(channel, life, late, workspace, data, user)
        os.waitpid(pid, 0)


def _open_room(
    channel: socket.socket, life: int, late: Mapping[str, str], workspace: str, data: str | None, user: int
) -> NoReturn:
    """Leave the machine's namespaces and fork the keeper, which then is a child of the warm process."""
    try:
        unshare(_KINDS | NEW_PID)
        pid = os.fork()
        if pid:
            _tell(channel, pid=pid)
        else:
            _keep(channel, life, late, workspace, data, user)
    except BaseException as error:  # the process boundary: the warm process raises it
        _tell(channel, error=f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _keep(
    channel: socket.socket, life: int, late: Mapping[str, str], workspace: str, data: str | None, user: int
) -> None:
    """Be process 1: complete the room, then collect orphans until the warm process is gone or ends it."""
    # What has no handler, process 1 does not receive from inside its namespace, SIGKILL and SIGSTOP included.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    if os.geteuid() == 0:
        _own(f"/old{workspace}", user)
    _bind(f"/old{workspace}", WORKSPACE, NO_SUID | NO_DEV)
    if data is not None:
        _bind(f"/old{data}", DATA, READ_ONLY | NO_SUID | NO_DEV)
    for path in _SCRATCH:
        mount("scratch", path, "tmpfs", NO_SUID | NO_DEV, f"mode=1777,size={SCRATCH_BYTES},nr_inodes=10000")
    _place(late)
    mount("proc", "/proc", "proc", NO_SUID | NO_DEV | NO_EXEC)
    detach("/old")
    if os.geteuid() == 0:
        # Elsewhere its capabilities keep it from the recipe, and the warm process could no longer enter the room.
        prctl(_PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGCHLD, _collect)
    usage = getrusage(RUSAGE_SELF)
    _tell(channel, cpu_s=usage.ru_utime + usage.ru_stime)
    close_all_but({life})
    poller = select.poll()
    poller.register(life, select.POLLIN)
    while not poller.poll():
        pass


def _tell(channel: socket.socket, **facts: object) -> None:
    channel.send(json.dumps(facts).encode())


def _collect(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _furnish(shown: Mapping[str, str], devices: Iterable[str], user: int) -> None:
    """The root that all rooms copy, read-only, with places for what each adds; the machine's own is in /old.

    `shown` has each folder as it is named and where it lies.
    """
    os.umask(0o022)
    mount("none", "/", None, PRIVATE | RECURSIVE)
    sources = {path: os.path.realpath(path) for path in (*devices, *_DEVICES)}
    mount("root", "/tmp", "tmpfs", NO_SUID | NO_DEV, "mode=755,size=16m")
    Path("/tmp/old").mkdir()
    pivot_root("/tmp", "/tmp/old")
    os.chdir("/")
    _place(shown)
    for path in (*_DEVICES, *devices):
        _bind(f"/old{sources[path]}", path, NO_SUID | NO_EXEC)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        Path("/dev", name).symlink_to(f"/proc/self/fd{target}")
    for path in (*_SCRATCH, WORKSPACE, DATA, "/proc"):
        Path(path).mkdir(parents=True, exist_ok=True)
    _accounts(user if os.geteuid() == 0 else os.geteuid())
    restrict("/", READ_ONLY | NO_SUID | NO_DEV, below=False)


def _place(shown: Mapping[str, str]) -> None:
    """Show folders, the shorter names first, without this program's own code in them."""
    placed: list[str] = []
    for path, source in shown.items():
        if os.path.lexists(f"/old{path}") and not any(is_below(path, above) for above in placed):
            _show(path, source)
            placed.append(path)
    package = Path(__file__).parents[1]
    for name in ROOMS:
        if any(is_below(str(package), above) for above in placed) and (package / name).is_dir():
            mount("hidden", str(package / name), "tmpfs", READ_ONLY | NO_SUID | NO_DEV, "size=4k")


def is_below(path: str, above: str) -> bool:
    """Whether `path` is `above` or lies in it."""
    return path == above or path.startswith(above.rstrip("/") + "/")


def _show(path: str, source: str) -> None:
    """As outside: a link at the top, such as /lib, stays a link."""
    if Path(path).parent == Path("/") and Path(f"/old{path}").is_symlink():
        Path(path).symlink_to(Path(f"/old{path}").readlink())
    else:
        _bind(f"/old{source}", path, READ_ONLY | NO_SUID | NO_DEV)


def _bind(source: str, target: str, flags: int) -> None:
    if not os.path.lexists(target):
        is_folder = Path(source).is_dir()
        (Path(target) if is_folder else Path(target).parent).mkdir(parents=True, exist_ok=True)
        if not is_folder:
            Path(target).touch()
    mount(source, target, None, BIND | RECURSIVE)
    restrict(target, flags)


def _own(folder: str, user: int) -> None:
    os.chown(folder, user, user)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(f"{parent}/{name}", user, user, follow_symlinks=False)


def _accounts(user: int) -> None:
    """The few names that libraries look up."""
    Path("/etc").mkdir(exist_ok=True)
    Path("/etc/passwd").write_text(f"recipe:x:{user}:{user}::/tmp:/bin/sh\n")
    Path("/etc/group").write_text(f"recipe:x:{user}:\n")
    Path("/etc/hosts").write_text("127.0.0.1 localhost\n")
    Path("/etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")
