"""The warm process: imports a task's libraries once, then forks a confined child for every process of a recipe.

It imports nothing but Python's own library and its sandbox, so that a recipe starts in an almost empty interpreter.
"""

import atexit
import builtins
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from runners import seccomp
from runners.kernel import NEW_PID, enter
from runners.namespaces import (
    USERS,
    Keeper,
    Nursery,
    RoomError,
    become_mapped_user,
    check_apart,
    close_all_but,
    enter_room,
    installation,
    shown_folders,
)
from runners.sandbox import Limits, adopt, confine, die_with
from runners.tree import Place, Stopped, watch, written_of

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from runners.zygote import main; main(*sys.argv[2:])"
"""The program to start with `python -c`: package folder, descriptor, process id, modules. Works where the package is
not installed, and leaves `__main__` to the recipe."""
_FRAME = struct.Struct("!II")


@dataclass(frozen=True)
class Order:
    """One process to run: `argv` in `inside`/recipe, with `inside`/home as its home and temporary folder."""

    argv: tuple[str, ...]
    workspace: str
    inside: str
    """The workspace as the process finds it; another name in tier "namespaces"."""
    data: str | None
    """Training data that it may read."""
    limits: Limits


def send(channel: socket.socket, message: object, payload: bytes = b"") -> None:
    """Write one frame: a JSON message and raw bytes."""
    head = json.dumps(message).encode()
    channel.sendall(_FRAME.pack(len(head), len(payload)) + head + payload)


def receive(channel: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Read one frame. Raises EOFError where the other side is gone, TimeoutError by the channel's own limit."""
    head_bytes, payload_bytes = _FRAME.unpack(_exactly(channel, _FRAME.size))
    message: dict[str, Any] = json.loads(_exactly(channel, head_bytes))
    return message, _exactly(channel, payload_bytes)


class _Warm:
    """What this process has made ready for its children."""

    def __init__(self, isolation: str, package: str, devices: tuple[str, ...]) -> None:
        """While it is small, and before `adopt` closes /proc/self to an unprivileged user.

        Raises OSError, RoomError.
        """
        self._nursery: Nursery | None = None
        # Kept open: it tells of this process and of every child that was waited for.
        self._io = os.open("/proc/self/io", os.O_RDONLY) if Path("/proc/self/io").exists() else None
        # A user of its own for each warm process: the kernel's limit on processes then is the recipe's.
        self.user = USERS[os.getpid() % len(USERS)]
        self._shown: tuple[str, ...] = ()
        if isolation == "namespaces":
            self._shown = shown_folders(package)
            seccomp.program()
            become_mapped_user()
            self._nursery = Nursery(installation(package), devices, self.user)

    def place(self, order: Order) -> Place:
        """A room that is ready, in tier "namespaces". Raises RoomError."""
        keeper = None
        if self._nursery:
            check_apart(order.workspace, self._shown)
            keeper = self._nursery.build(order.workspace, order.data)
        return Place(keeper, self._nursery.pid if self._nursery else None, self._written_bytes)

    def _written_bytes(self) -> int | None:
        return None if self._io is None else written_of(os.pread(self._io, 1 << 12, 0).decode())


def main(descriptor: str, supervisor: str, isolation: str, devices: str, *preload: str) -> None:
    """Serve the process `supervisor` over the socket `descriptor` until it closes it or dies."""
    # A socket, not a pipe: /proc/PID/fd/N of a socket cannot be opened, so no recipe can write facts into it.
    channel = socket.socket(fileno=int(descriptor))
    # A file that becomes readable at the supervisor's death. The parent-death signal would come with the death
    # of the thread that started this process.
    supervisor_end = os.pidfd_open(int(supervisor))
    if os.getppid() != int(supervisor):
        return
    doing = f"open {isolation}"
    try:
        warm = _Warm(isolation, sys.path[0], tuple(filter(None, devices.split(os.pathsep))))
        adopt()
        for name in preload:
            doing = f"preload {name}"
            importlib.import_module(name)
    except Exception as error:  # the process boundary: the supervisor raises it as an infrastructure error
        send(channel, {"error": f"cannot {doing}: {type(error).__name__}: {error}"})
        return
    # Libraries take themselves apart at exit, torch for 90 ms: not the recipe's time, and the child just ends.
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    gc.collect()
    # The collector writes to every object that it looks at, and each write would copy a page into the child.
    gc.freeze()
    send(channel, {"ready": True})
    try:
        _serve(warm, channel, supervisor_end)
    except (Stopped, EOFError, ConnectionError):
        # Its home, see `runners.local`: a supervisor that died cannot remove it.
        shutil.rmtree(os.environ["HOME"], ignore_errors=True)


def _serve(warm: _Warm, channel: socket.socket, supervisor_end: int) -> None:
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    poller.register(supervisor_end, select.POLLIN)
    while True:
        if supervisor_end in {descriptor for descriptor, _ in poller.poll()}:
            raise Stopped
        message, _ = receive(channel)
        order = Order(**{**message, "argv": tuple(message["argv"]), "limits": Limits(**message["limits"])})
        send(channel, *_execute(warm, order, (channel.fileno(), supervisor_end)))


def _execute(warm: _Warm, order: Order, stops: tuple[int, ...]) -> tuple[dict[str, object], bytes]:
    """Facts and log of one process tree, or the reason why it could not be started."""
    log, log_end = os.pipe()
    trouble, trouble_end = os.pipe()
    try:
        place = warm.place(order)
        if place.keeper:
            enter(place.keeper.pidfd, NEW_PID)
        parent, started_s = os.getpid(), time.monotonic()
        pid = os.fork()
        if pid == 0:
            _become(order, place.keeper, warm.user, parent, log_end, trouble_end)
        facts, output = watch(pid, place, started_s, order.limits, log, stops)
        if place.keeper:
            os.close(place.keeper.pidfd)
        os.set_blocking(trouble, False)
        os.close(trouble_end)
        trouble_end = -1
        if reason := os.read(trouble, 1 << 12):
            return {"error": reason.decode(errors="replace")}, b""
        return asdict(facts), output
    except RoomError as error:
        return {"error": f"cannot build a room for the recipe: {error}"}, b""
    finally:
        for descriptor in (log, log_end, trouble, trouble_end):
            if descriptor >= 0:
                os.close(descriptor)


def _become(order: Order, keeper: Keeper | None, user: int, parent: int, log: int, trouble: int) -> NoReturn:
    """The child's life. Until it is confined, a failure is the machine's; from then on it is the recipe's."""
    try:
        # The parent of a room's process is outside of what it can number.
        seen = 0 if keeper else parent
        confine(order.limits, seen, log, own_user=keeper is not None and os.geteuid() == 0)
        if keeper:
            enter_room(keeper, user)
            die_with(seen)
        os.chdir(f"{order.inside}/recipe")
        home = f"{order.inside}/home"
        os.environ.update(HOME=home, TMPDIR=home, USER="recipe", LOGNAME="recipe")
        tempfile.tempdir = None
        _reseed()
        if keeper:
            seccomp.install()
    except BaseException as error:  # the process boundary: nothing may return into the parent's code
        os.write(trouble, f"{type(error).__name__}: {error}".encode()[: 1 << 12])
        os._exit(1)
    close_all_but((0, 1, 2))
    code = 1
    try:
        code = _program(order)
    finally:
        os._exit(code)


def _reseed() -> None:
    """As in a fresh interpreter: a forked generator would give every seed of every trial the same numbers."""
    if numpy_random := sys.modules.get("numpy.random"):
        numpy_random.seed()


def _program(order: Order) -> int:
    """Run the command to its end; the exit code that the interpreter would give."""
    if order.argv[0] == "python" and len(order.argv) > 1 and not order.argv[1].startswith("-"):
        code = _script(order.argv[1:], f"{order.inside}/recipe")
        try:
            # What an interpreter does at its end, without tearing down every module.
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        except BaseException:
            traceback.print_exc()
        return _flush() or code
    program = sys.executable if order.argv[0] == "python" else order.argv[0]
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and what is ignored stays so in a new program
    try:
        os.execvp(program, (program, *order.argv[1:]))
    except OSError as error:
        os.write(2, f"{program}: {error.strerror}\n".encode())
        return 127


def _script(argv: tuple[str, ...], folder: str) -> int:
    """What `python SCRIPT ARGUMENT...` does, in this interpreter; its exit code."""
    path = str(Path(folder, argv[0]))
    _forget(folder)
    sys.argv = list(argv)
    # The first entry is this package's, see BOOT; the others are the interpreter's.
    sys.path[0] = str(Path(path).parent)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    module = ModuleType("__main__")
    module.__dict__.update(__file__=path, __builtins__=builtins)
    sys.modules["__main__"] = module
    try:
        with open(path, "rb") as file:
            source = file.read()
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - it is what this process is for
    except SystemExit as leave:
        return _exit_code(leave.code)
    except BaseException as error:
        error.__traceback__ = _outside(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _forget(folder: str) -> None:
    """Let the recipe's own modules win over those that this process has imported under the same name."""
    own = {entry.name.removesuffix(".py") for entry in os.scandir(folder)} - set(sys.builtin_module_names)
    for name in [name for name in sys.modules if name.partition(".")[0] in own]:
        del sys.modules[name]


def _outside(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without this module's frames: what the author of the recipe can act on."""
    while trace and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return trace


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _flush() -> int:
    """120 where the last output is lost, as the interpreter says it."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return 120
    return 0


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        chunk = channel.recv(count - len(parts))
        if not chunk:
            raise EOFError("the other side closed the channel")
        parts += chunk
    return bytes(parts)
